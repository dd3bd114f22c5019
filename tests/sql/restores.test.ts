import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const person = "6f1c8c7e-3333-4c4e-9c36-5f1f4a1f7a01";
const entries = { schema: "public", name: "entries" };

interface Begun {
  readonly id: string;
  readonly side_schema: string | null;
  readonly token: string;
}

function factsOf(more: Readonly<Record<string, unknown>> = {}): string {
  const facts = { scope: "table", mode: "beside", source_backup: randomUUID(), target_label: "here/postgres" };
  return JSON.stringify({ ...facts, tables: [entries], worker: "test", ...more });
}

async function begin(more: Readonly<Record<string, unknown>> = {}): Promise<Begun> {
  const { rows } = await postgres.query<Begun>("select * from backup.begin_restore($1)", [factsOf(more)]);
  return rows[0] as Begun;
}

const progress = "select backup.restore_progress($1, $2, $3)";
const finish = "select backup.finish_restore($1, $2, $3)";
const claim = "select backup.claim_restore($1, 'other', interval '90 seconds', $2, $3)";

async function column(id: string, name: string): Promise<string | null> {
  return await scalar(postgres, `select ${name} from backup.restores where id = $1`, [id]);
}

async function fill({ side_schema }: Begun): Promise<string> {
  await postgres.query(`create schema ${side_schema}; create table ${side_schema}.entries (id uuid, body text)`);
  return side_schema ?? "";
}

const exists = async (schema: string) => await scalar(postgres, "select to_regnamespace($1) is not null", [schema]);

/** A moment before the lease of a restore that just began has run out, and one long after anything may live. */
const [soon, late] = ["now() + interval '10 seconds'", "now() + interval '30 days'"] as const;
async function moveClock(sql: string): Promise<void> {
  await setClock(postgres, await scalar(postgres, `select (${sql})::text`) ?? "");
}

describe("a restore's record", () => {
  it("goes from planned through loading to beside, with its counts, its time and whether the objective was met", async () => {
    await rolledBack(postgres, async () => {
      const restore = await begin({ scope: "record" });
      expect(restore.side_schema).toMatch(/^restore_[0-9a-f]{8}$/);
      expect(await column(restore.id, "status")).toBe("planned");
      await postgres.query(progress, [restore.id, restore.token, { status: "loading", steps_total: 3, steps_done: 1 }]);
      expect(await column(restore.id, "status || steps_done || steps_total")).toBe("loading13");
      const end = { tables: [{ ...entries, inserted: 2 }], measured_seconds: 12.5 };
      expect(await scalar(postgres, finish, [restore.id, restore.token, end])).toBe("beside");
      const { rows } = await postgres.query(
        "select tables, measured_seconds, objective_seconds, within_objective, lease_until from backup.restores where id = $1",
        [restore.id],
      );
      expect(rows[0]).toMatchObject({
        measured_seconds: "12.5",
        objective_seconds: "3600",
        within_objective: "t",
        lease_until: null,
      });
      expect(JSON.parse(rows[0].tables)).toEqual([{ ...entries, inserted: 2 }]);
    });
  });

  it("says when an objective was missed, and has one for every scope", async () => {
    await rolledBack(postgres, async () => {
      for (
        const [scope, seconds] of [["record", 3600], ["table", 14400], ["user", 14400], ["full", 86400], [
          "point",
          86400,
        ]]
      ) {
        const { id, token } = await begin({
          scope,
          target_is_here: false,
          ...(scope === "user" ? { user_id: person } : {}),
        });
        await postgres.query(finish, [id, token, { measured_seconds: Number(seconds) + 1 }]);
        expect(await column(id, "objective_seconds"), String(scope)).toBe(String(seconds));
        expect(await column(id, "within_objective"), String(scope)).toBe("f");
      }
    });
  });

  it("keeps names and counts of tables, and nothing else that is put beside them", async () => {
    await rolledBack(postgres, async () => {
      const told = [{ ...entries, rows: 3, body: "a person's words" }];
      const kept = [{ name: "entries", rows: 3, schema: "public" }];
      const { id, token } = await begin({ tables: told });
      expect(JSON.parse(await column(id, "tables") ?? "")).toEqual(kept);
      await postgres.query(progress, [id, token, { tables: [] }]);
      await postgres.query(progress, [id, token, { tables: told }]);
      expect(JSON.parse(await column(id, "tables") ?? "")).toEqual(kept);
      await postgres.query(finish, [id, token, { tables: told }]);
      expect(JSON.parse(await column(id, "tables") ?? "")).toEqual(kept);
      const around = "update backup.restores set tables = $2 where id = $1";
      expect(await sqlstate(postgres, around, [id, JSON.stringify(told)])).toBe("23514");
    });
  });

  it("never goes back a stage, nor on once it has ended", async () => {
    await rolledBack(postgres, async () => {
      const { id, token } = await begin({ mode: "merge" });
      await postgres.query(progress, [id, token, { status: "applying" }]);
      expect(await sqlstate(postgres, progress, [id, token, { status: "loading" }])).toBe("HF415");
      expect(await sqlstate(postgres, progress, [id, token, { status: "succeeded" }])).toBe("HF415");
      expect(await scalar(postgres, finish, [id, token, {}])).toBe("succeeded");
      expect(await sqlstate(postgres, progress, [id, token, {}])).toBe("HF413");
      expect(await sqlstate(postgres, finish, [id, token, {}])).toBe("HF413");
    });
  });

  it("a restore into another database has no side schema unless it asks for one", async () => {
    await rolledBack(postgres, async () => {
      expect((await begin({ scope: "full" })).side_schema).toBeNull();
      expect((await begin({ scope: "point", target_is_here: false, side: true })).side_schema).not.toBeNull();
    });
  });

  it("names the user plainly here alone, in the audit as a keyed hash", async () => {
    await rolledBack(postgres, async () => {
      const { id, token } = await begin({ scope: "user", mode: "merge", user_id: person });
      await postgres.query("select backup.fail_restore($1, $2, $3)", [id, token, { code: "internal", message: "m" }]);
      expect(await column(id, "user_id")).toBe(person);
      const { rows } = await postgres.query<{ action: string; detail: string }>(
        "select action, detail from backup.audit_log where subject = $1 order by id",
        [`restore:${id}`],
      );
      expect(rows.map((row) => row.action)).toEqual(["restore.begun", "restore.failed"]);
      const hash = await scalar(postgres, "select backup.person_hash($1)", [person]);
      for (const { detail } of rows) {
        expect(JSON.parse(detail).person).toBe(hash);
        expect(detail).not.toContain(person);
      }
    });
  });
});

describe("two restores", () => {
  it("in place on the same table: the second is refused and the first one named", async () => {
    await rolledBack(postgres, async () => {
      const first = await begin({ mode: "merge" });
      await postgres.query("savepoint before");
      await expect(postgres.query("select backup.begin_restore($1)", [factsOf({ mode: "replace" })]))
        .rejects.toMatchObject({ code: "HF415", message: expect.stringContaining(first.id) });
      await postgres.query("rollback to savepoint before");
      await begin({ mode: "replace", tables: [{ schema: "app", name: "entries" }] });
      await postgres.query(finish, [first.id, first.token, {}]);
      await begin({ mode: "replace" });
    });
  });

  it("in place, where the tables are known later: refused when they are", async () => {
    await rolledBack(postgres, async () => {
      await begin({ mode: "merge" });
      const second = await begin({ scope: "user", mode: "merge", user_id: person, tables: [] });
      expect(await sqlstate(postgres, progress, [second.id, second.token, { tables: [entries] }])).toBe("HF415");
      expect(await sqlstate(postgres, progress, [second.id, second.token, { status: "applying" }])).toBe("none");
    });
  });

  it("a full one in place is at work on every table", async () => {
    await rolledBack(postgres, async () => {
      const full = await begin({ scope: "full", mode: "in_place", tables: [] });
      expect(await sqlstate(postgres, "select backup.begin_restore($1)", [factsOf({ mode: "merge" })])).toBe("HF415");
      await postgres.query("select backup.fail_restore($1, $2, $3)", [full.id, full.token, { code: "cancelled" }]);
      await begin({ mode: "merge" });
      const again = factsOf({ scope: "full", mode: "in_place", tables: [] });
      expect(await sqlstate(postgres, "select backup.begin_restore($1)", [again])).toBe("HF415");
    });
  });

  it("beside, or in place in different databases, run side by side", async () => {
    await rolledBack(postgres, async () => {
      const [one, two] = [await begin(), await begin()];
      expect(one.side_schema).not.toBe(two.side_schema);
      await begin({ mode: "merge" });
      await begin({ mode: "merge", target_is_here: false, target_label: "there/a" });
      await begin({ mode: "merge", target_is_here: false, target_label: "there/b" });
      const same = factsOf({ mode: "merge", target_is_here: false, target_label: "there/b" });
      expect(await sqlstate(postgres, "select backup.begin_restore($1)", [same])).toBe("HF415");
    });
  });

  it("that begin at the same moment: one of them is refused", async () => {
    const [one, two] = [await session(await installedCluster()), await session(await installedCluster())];
    try {
      await one.query("begin");
      await two.query("begin");
      await one.query("select backup.begin_restore($1)", [factsOf({ mode: "merge" })]);
      const second = two.query("select backup.begin_restore($1)", [factsOf({ mode: "merge" })])
        .then(() => "none", (error: pg.DatabaseError) => error.code);
      const waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
      await expect.poll(async () => await scalar(postgres, waits), { timeout: 10_000 }).toBe("1");
      await one.query("commit");
      expect(await second).toBe("HF415");
    } finally {
      await two.query("rollback");
      await one.query("delete from backup.restores");
      await one.end();
      await two.end();
    }
  });
});

describe("the worker of a restore", () => {
  it("is told to end when somebody cancels, and the restore can be gone on with", async () => {
    await rolledBack(postgres, async () => {
      const { id, token } = await begin({ mode: "replace" });
      expect(await scalar(postgres, progress, [id, token, { status: "applying", steps_done: 2 }])).toBe("f");
      expect(await scalar(postgres, "select backup.cancel_restore($1)", [id])).toBe("applying");
      expect(await scalar(postgres, progress, [id, token, {}])).toBe("t");
      await postgres.query("select backup.fail_restore($1, $2, $3)", [id, token, { code: "cancelled", message: "m" }]);
      expect(await column(id, "status")).toBe("cancelled");
      expect(await sqlstate(postgres, "select backup.cancel_restore($1)", [id])).toBe("HF415");
      expect(await sqlstate(postgres, claim, [id, false, null])).toBe("HF415");
      const next = await scalar(postgres, claim, [id, true, null]);
      expect(Number(next)).toBeGreaterThan(Number(token));
      expect(await column(id, "status || steps_done")).toBe("applying2");
      expect(await scalar(postgres, progress, [id, next, {}])).toBe("f");
      expect(await sqlstate(postgres, progress, [id, token, {}])).toBe("HF413");
    });
  });

  it("is alone under its lease; once that has run out another takes over and the first one's calls are refused", async () => {
    await rolledBack(postgres, async () => {
      const { id, token } = await begin();
      await moveClock(soon);
      expect(await scalar(postgres, claim, [id, false, null])).toBeNull();
      await moveClock("now() + interval '5 minutes'");
      expect(await scalar(postgres, claim, [id, false, null])).toBe(String(Number(token) + 1));
      for (const sql of [progress, finish, "select backup.fail_restore($1, $2, $3)"]) {
        expect(await sqlstate(postgres, sql, [id, token, {}]), sql).toBe("HF413");
      }
    });
  });

  it("that died is found by the watchdog: the restore has failed, with an alert where it was in place", async () => {
    await rolledBack(postgres, async () => {
      const [inPlace, beside, asked] = [await begin({ mode: "merge" }), await begin(), await begin()];
      await postgres.query("select backup.cancel_restore($1)", [asked.id]);
      await moveClock(soon);
      expect(await scalar(postgres, "select backup.tick() ->> 'watch_restores'")).toBe("0");
      await moveClock("now() + interval '2 hours'");
      expect(await scalar(postgres, "select backup.tick() ->> 'watch_restores'")).toBe("3");
      expect(await column(inPlace.id, "status || error_code")).toBe("failedrun_stalled");
      expect(await column(beside.id, "status || error_code")).toBe("failedrun_stalled");
      expect(await column(asked.id, "status")).toBe("cancelled");
      const { rows } = await postgres.query("select subject from backup.alerts where kind = 'restore_failed'");
      expect(rows).toEqual([{ subject: `restore:${inPlace.id}` }]);
      const next = await scalar(postgres, claim, [inPlace.id, true, null]);
      await postgres.query(finish, [inPlace.id, next, {}]);
      expect(await scalar(postgres, "select status from backup.alerts where kind = 'restore_failed'")).toBe("resolved");
    });
  });

  it("that failed in place is settled by a replacement of all its tables, and by nothing less", async () => {
    await rolledBack(postgres, async () => {
      const other = { schema: "public", name: "other" };
      const failed = async (tables: readonly object[], more: object = {}) => {
        const { id, token } = await begin({ mode: "merge", tables, ...more });
        await postgres.query("select backup.fail_restore($1, $2, $3)", [id, token, { code: "lease_lost" }]);
        return `restore:${id}`;
      };
      const [one, both, none] = [await failed([entries]), await failed([entries, other]), await failed([])];
      // Of another database, which no replacement here puts right.
      const elsewhere = await failed([entries], { target_is_here: false, target_label: "there" });
      // Somebody has seen it: it stays until its cause is gone.
      await postgres.query("select backup.acknowledge_alert(id) from backup.alerts where subject = $1", [one]);
      const done = async (more: object) => {
        const { id, token } = await begin({ target_is_here: true, ...more });
        await postgres.query(finish, [id, token, {}]);
        const open =
          "select subject from backup.alerts where kind = 'restore_failed' and status <> 'resolved' order by id";
        return (await postgres.query(open)).rows.map(({ subject }) => subject);
      };
      expect(await done({ mode: "merge" })).toEqual([one, both, none, elsewhere]);
      expect(await done({ mode: "replace", tables: [other] })).toEqual([one, both, none, elsewhere]);
      expect(await done({ mode: "replace", target_is_here: false, scope: "full" })).toEqual([
        one,
        both,
        none,
        elsewhere,
      ]);
      // Some rows of the table, not all.
      expect(await done({ mode: "replace", scope: "record" })).toEqual([one, both, none, elsewhere]);
      expect(await done({ mode: "replace", scope: "user", user_id: person })).toEqual([one, both, none, elsewhere]);
      expect(await done({ mode: "replace" })).toEqual([both, none, elsewhere]);
      expect(await done({ mode: "replace", scope: "full", tables: [] })).toEqual([elsewhere]);
    });
  });

  it("that failed in place is not settled by a replacement that had begun before, and went on behind it", async () => {
    await rolledBack(postgres, async () => {
      const replacing = await begin({ mode: "replace", target_is_here: true });
      await postgres.query("select backup.fail_restore($1, $2, $3)", [replacing.id, replacing.token, {}]);
      await moveClock(soon);
      const failed = await begin({ mode: "merge" });
      await postgres.query("select backup.fail_restore($1, $2, $3)", [failed.id, failed.token, {}]);
      const token = await scalar(postgres, claim, [replacing.id, true, null]);
      await postgres.query(finish, [replacing.id, token, {}]);
      const { rows } = await postgres.query(
        "select subject from backup.alerts where kind = 'restore_failed' and status = 'open'",
      );
      expect(rows).toEqual([{ subject: `restore:${failed.id}` }]);
    });
  });

  it("may be asked for by nobody who names a restore that is not there", async () => {
    await rolledBack(postgres, async () => {
      const none = randomUUID();
      expect(await sqlstate(postgres, progress, [none, 1, {}])).toBe("HF414");
      expect(await sqlstate(postgres, claim, [none, false, null])).toBe("HF414");
      for (const name of ["cancel_restore", "drop_side"]) {
        expect(await sqlstate(postgres, `select backup.${name}($1)`, [none]), name).toBe("HF414");
      }
    });
  });
});

describe("rows that stand beside", () => {
  it("are put into place later, in a mode, as long as their schema is there", async () => {
    await rolledBack(postgres, async () => {
      const restore = await begin();
      await fill(restore);
      await postgres.query(finish, [restore.id, restore.token, {}]);
      expect(await sqlstate(postgres, claim, [restore.id, false, "in_place"])).toBe("HF415");
      await postgres.query("savepoint before");
      const next = await scalar(postgres, claim, [restore.id, false, "merge"]);
      expect(await column(restore.id, "mode || status")).toBe("mergeapplying");
      expect(await scalar(postgres, finish, [restore.id, next, {}])).toBe("succeeded");
      await postgres.query("rollback to savepoint before");
      await postgres.query("select backup.drop_side($1)", [restore.id]);
      expect(await sqlstate(postgres, claim, [restore.id, false, "merge"])).toBe("HF415");
    });
  });

  it("go when their time is over, not before, and never under a restore that is at work", async () => {
    await rolledBack(postgres, async () => {
      const [ended, kept, working] = [await begin(), await begin(), await begin()];
      const [first, second, third] = [await fill(ended), await fill(kept), await fill(working)];
      await postgres.query(finish, [ended.id, ended.token, {}]);
      await postgres.query(finish, [kept.id, kept.token, {}]);
      await postgres.query("select backup.extend_side($1, now() + interval '60 days')", [kept.id]);
      expect(await scalar(postgres, "select backup.expire_sides()")).toBe("0");
      await postgres.query(progress, [working.id, working.token, { lease_seconds: 100 * 86400 }]);
      await moveClock(late);
      expect(await scalar(postgres, "select backup.tick() ->> 'watch_restores'")).toBe("1");
      expect([await exists(first), await exists(second), await exists(third)]).toEqual(["f", "t", "t"]);
      expect(await column(ended.id, "side_dropped_at is not null")).toBe("t");
      expect(await sqlstate(postgres, "select backup.drop_side($1)", [working.id])).toBe("HF415");
      expect(await scalar(postgres, "select backup.drop_side($1)", [kept.id])).toBe("t");
      expect(await sqlstate(postgres, "select backup.drop_side($1)", [kept.id])).toBe("HF415");
      expect(await sqlstate(postgres, "select backup.extend_side($1, now() + interval '90 days')", [kept.id])).toBe(
        "HF415",
      );
    });
  });

  it("are kept until a moment to come", async () => {
    await rolledBack(postgres, async () => {
      const { id, token } = await begin();
      await postgres.query(finish, [id, token, {}]);
      for (const until of ["2020-01-01", "infinity", null]) {
        expect(await sqlstate(postgres, "select backup.extend_side($1, $2)", [id, until]), String(until)).toBe("HF003");
      }
    });
  });

  it("never take anything with them: a view elsewhere keeps them, with an alert that goes once they do", async () => {
    await rolledBack(postgres, async () => {
      const restore = await begin();
      const side = await fill(restore);
      await postgres.query(`create view public.looks_at_the_past as select id from ${side}.entries`);
      await postgres.query(`create view ${side}.own as select id from ${side}.entries`);
      await postgres.query(finish, [restore.id, restore.token, {}]);
      expect(await sqlstate(postgres, "select backup.drop_side($1)", [restore.id])).toBe("HF415");
      await moveClock(late);
      expect(await scalar(postgres, "select backup.expire_sides()")).toBe("0");
      expect(await scalar(postgres, "select message from backup.alerts where kind = 'side_kept'")).toContain(
        "looks_at_the_past",
      );
      expect(await exists(side)).toBe("t");
      expect(await scalar(postgres, "select to_regclass($1) is not null", [`${side}.own`])).toBe("t");
      await postgres.query("drop view public.looks_at_the_past");
      await postgres.query(`create function ${side}.helper() returns integer language sql as 'select 1'`);
      expect(await sqlstate(postgres, "select backup.drop_side($1)", [restore.id])).toBe("HF415");
      await postgres.query(`drop function ${side}.helper()`);
      expect(await scalar(postgres, "select backup.expire_sides()")).toBe("1");
      expect(await exists(side)).toBe("f");
      expect(await scalar(postgres, "select status from backup.alerts where kind = 'side_kept'")).toBe("resolved");
    });
  });

  it("are the only thing that is ever dropped: no schema of another form, of another database, or that stands nowhere", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("create schema restore_0123abcd; create schema precious; create table precious.things ()");
      const restore = await begin({ target_is_here: false });
      await postgres.query(`create schema ${restore.side_schema}`);
      await postgres.query(finish, [restore.id, restore.token, {}]);
      expect(await sqlstate(postgres, "select backup.drop_side($1)", [restore.id])).toBe("HF415");
      for (const name of ["precious", "public", "restore_0123abcd", "restore_0123abcd; drop schema precious", null]) {
        const wrong =
          "select backup.remove_side(jsonb_populate_record(r, jsonb_build_object('side_schema', $2::text))) from backup.restores as r where r.id = $1";
        expect(await sqlstate(postgres, wrong, [restore.id, name]), String(name)).toBe("HF415");
      }
      const here = await begin();
      await postgres.query(finish, [here.id, here.token, {}]);
      const strange = "update backup.restores set side_schema = 'precious' where id = $1";
      expect(await sqlstate(postgres, strange, [here.id])).toBe("23514");
      await moveClock(late);
      await postgres.query("select backup.expire_sides()");
      expect([await exists("precious"), await exists("restore_0123abcd"), await exists(restore.side_schema ?? "")])
        .toEqual(["t", "t", "t"]);
    });
  });
});

describe("backups_in_use", () => {
  const used = async () =>
    (await postgres.query<{ backup: string }>("select backup from backup.backups_in_use() order by 1")).rows.map((
      row,
    ) => row.backup);

  it("names the backup that a restore reads and its safety backup, until it ends", async () => {
    await rolledBack(postgres, async () => {
      const [read, safety] = [randomUUID(), randomUUID()];
      const { id, token } = await begin({ source_backup: read, mode: "merge", point_at: "2026-11-01T00:00:00Z" });
      expect(await used()).toEqual([read]);
      await postgres.query(progress, [id, token, { safety_run: safety }]);
      expect(await used()).toEqual([read, safety].sort());
      const moment =
        "select to_char(until_moment at time zone 'UTC', 'YYYY-MM-DD') from backup.backups_in_use() where backup = $1";
      expect(await scalar(postgres, moment, [read])).toBe("2026-11-01");
      expect(await scalar(postgres, moment, [safety])).toBeNull();
      await postgres.query(finish, [id, token, {}]);
      expect(await used()).toEqual([]);
    });
  });

  it("lets them go where one in place was cancelled before it changed anything, as after a dry run", async () => {
    await rolledBack(postgres, async () => {
      for (const [stage, isUsed] of [["loading", false], ["applying", true]] as const) {
        const read = randomUUID();
        const { id, token } = await begin({ source_backup: read, mode: "merge" });
        await postgres.query(progress, [id, token, { status: stage }]);
        await postgres.query("select backup.fail_restore($1, $2, $3)", [id, token, {
          code: "cancelled",
          message: "m",
        }]);
        expect(await scalar(postgres, "select status from backup.restores where id = $1", [id])).toBe("cancelled");
        expect((await used()).includes(read), stage).toBe(isUsed);
      }
    });
  });

  it("keeps them for a day after one in place failed, since somebody may go on with it", async () => {
    await rolledBack(postgres, async () => {
      const read = randomUUID();
      const inPlace = await begin({ source_backup: read, mode: "merge" });
      const beside = await begin();
      for (const { id, token } of [inPlace, beside]) {
        await postgres.query("select backup.fail_restore($1, $2, $3)", [id, token, { code: "internal", message: "m" }]);
      }
      expect(await used()).toEqual([read]);
      await moveClock("now() + interval '25 hours'");
      expect(await used()).toEqual([]);
    });
  });
});

it("the objectives are those that were promised", async () => {
  const { rows } = await postgres.query(
    "select kind || ' ' || scope as what, seconds::text from backup.objectives where kind || scope not in ('recoverytable', 'recoverypoint', 'recoveryfiles') order by 1",
  );
  expect(Object.fromEntries(rows.map((row) => [row.what, row.seconds]))).toEqual({
    "loss database": "86400",
    "loss files": "300",
    "loss user_data": "75",
    "recovery export": "60",
    "recovery full": "86400",
    "recovery record": "3600",
    "recovery user": "14400",
  });
});
