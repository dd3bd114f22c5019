/** The second store as the database keeps it: who may copy, in which order, how much a day, and what is asked for when. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const manifest = "v1/backups/20261122T000000Z-daily-6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01/manifest";
const object = `v1/objects/aa/${"a".repeat(64)}`;
const hash = "b".repeat(64);

interface Lease {
  readonly run: string;
  readonly task: string;
  readonly token: string;
}

/** In the caller's transaction: a pair of stores, a run, and its task leased. */
async function leased(): Promise<Lease> {
  await postgres.query("select backup.tell_stores('first', 'second')");
  const { rows: [requested] } = await postgres.query("select run, joined from backup.request_copies('http', false)");
  const { rows: [task] } = await postgres.query(
    "select id, token from backup.claim_task($1, 'tester', '180 seconds')",
    [requested.run],
  );
  return { run: requested.run, task: task.id, token: task.token };
}

const copied = (name: string) => ({
  name,
  first_bytes: 10,
  first_hash: hash,
  second_bytes: 20,
  second_hash: hash,
});

/** Every call of a worker but the lease's, with what it takes beside that. */
const calls: readonly (readonly [string, string, readonly unknown[]])[] = [
  ["begin_survey", "select * from backup.begin_survey($1, $2, $3)", []],
  ["enter_copies", "select backup.enter_copies($1, $2, $3, $4)", ["[]"]],
  ["end_survey", "select backup.end_survey($1, $2, $3, now(), 0, '{}', null)", []],
  ["next_copies", "select * from backup.next_copies($1, $2, $3, 5)", []],
  ["enter_needs", "select backup.enter_needs($1, $2, $3, $4, '[]', true, null)", [manifest]],
  ["record_hold", "select backup.record_hold($1, $2, $3, $4, true)", [object]],
  ["intend_copy", "select backup.intend_copy($1, $2, $3, $4, $5, 1)", [object, hash]],
  ["record_copy", "select backup.record_copy($1, $2, $3, $4)", [copied(object)]],
  ["fail_copy", "select backup.fail_copy($1, $2, $3, $4, '{}')", [object]],
  ["next_look", "select backup.next_look($1, $2, $3, 'v1/')", []],
  ["record_look", "select backup.record_look($1, $2, $3, 'v1/', '[]', null)", []],
  ["end_copies", "select backup.end_copies($1, $2, $3, null)", []],
];

describe("a worker that copies", () => {
  it.each(calls)(
    "is refused by %s with an old token, and where the second store is another one",
    async (_, call, more) => {
      await rolledBack(postgres, async () => {
        const { task, token } = await leased();
        expect(await sqlstate(postgres, call, [task, Number(token) - 1, "second", ...more])).toBe("HF413");
        expect(await sqlstate(postgres, call, [task, token, "third", ...more])).toBe("HF415");
      });
    },
  );

  it("is alone: a second request joins, and nobody else gets the task", async () => {
    await rolledBack(postgres, async () => {
      const { run } = await leased();
      const { rows } = await postgres.query("select run, joined from backup.request_copies('cli', true)");
      expect(rows).toEqual([{ run, joined: "t" }]);
      expect((await postgres.query("select from backup.claim_task($1, 'other', '1 second')", [run])).rowCount).toBe(0);
      expect(await sqlstate(postgres, "insert into backup.runs (kind, origin) values ('replicate', 'http')")).toBe(
        "23505",
      );
    });
  });

  it("cannot record a manifest before every object that it names", async () => {
    await rolledBack(postgres, async () => {
      const { task, token } = await leased();
      const record = "select backup.record_copy($1, $2, 'second', $3)";
      await postgres.query("select backup.enter_copies($1, $2, 'second', $3)", [
        task,
        token,
        JSON.stringify([{ name: manifest, kind: "manifest", bytes: 5, hash: null }]),
      ]);
      expect(await sqlstate(postgres, record, [task, token, copied(manifest)])).toBe("HF415");
      await postgres.query("select backup.enter_needs($1, $2, 'second', $3, $4, true, null)", [
        task,
        token,
        manifest,
        JSON.stringify([{ name: object, bytes: 10, hash }]),
      ]);
      expect(await sqlstate(postgres, record, [task, token, copied(manifest)])).toBe("HF415");
      const next = "select name from backup.next_copies($1, $2, 'second', 5)";
      expect((await postgres.query(next, [task, token])).rows).toEqual([{ name: object }]);
      await postgres.query(record, [task, token, copied(object)]);
      expect((await postgres.query(next, [task, token])).rows).toEqual([{ name: manifest }]);
      await postgres.query(record, [task, token, copied(manifest)]);
      expect(await scalar(postgres, "select count(*) from backup.copies where status = 'stored'")).toBe("2");
      expect(await scalar(postgres, "select count(*) from backup.copy_needs")).toBe("0");
    });
  });

  it("cannot record a manifest before the locks of what it shares with others are renewed", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2026-11-22 12:00:00+00");
      const { task, token } = await leased();
      const at = async (sql: string, ...values: readonly unknown[]) =>
        (await postgres.query(sql, [task, token, ...values])).rows;
      const record = "select backup.record_copy($1, $2, 'second', $3)";
      const enter = async (name: string, renewAfter: string | null) => {
        const entered = JSON.stringify([{ name, kind: "manifest", bytes: 5, hash: null }]);
        await at("select backup.enter_copies($1, $2, 'second', $3)", entered);
        const needs = JSON.stringify([{ name: object, bytes: 10, hash }]);
        await at("select backup.enter_needs($1, $2, 'second', $3, $4, true, $5)", name, needs, renewAfter);
      };
      const next = () => at("select name, status from backup.next_copies($1, $2, 'second', 5)");
      await enter(manifest, "21 hours");
      await at(record, copied(object));
      await at(record, copied(manifest));

      const [later, last] = ["20261123T120000Z", "20261124T130000Z"].map((utc) =>
        manifest.replace(/\d{8}T\d{6}Z/, utc)
      );
      await setClock(postgres, "2026-11-23 08:59:00+00");
      await enter(later ?? "", "21 hours");
      expect(await next()).toEqual([{ name: later, status: "missing" }]);
      await at(record, copied(later ?? ""));

      await setClock(postgres, "2026-11-23 09:00:00+00");
      await enter(last ?? "", "21 hours");
      expect(await next()).toEqual([{ name: object, status: "stored" }]);
      expect(await sqlstate(postgres, record, [task, token, copied(last ?? "")])).toBe("HF415");
      await at("select backup.record_hold($1, $2, 'second', $3, true)", object);
      expect(await next()).toEqual([{ name: last, status: "missing" }]);
      await at(record, copied(last ?? ""));
    });
  });

  it("makes a copy again that was not there any more when its lock was to be renewed", async () => {
    await rolledBack(postgres, async () => {
      const { task, token } = await leased();
      const at = async (sql: string, ...values: readonly unknown[]) =>
        (await postgres.query(sql, [task, token, ...values])).rows;
      const entered = JSON.stringify([{ name: manifest, kind: "manifest", bytes: 5, hash: null }]);
      const needs = JSON.stringify([{ name: object, bytes: 10, hash }]);
      await at("select backup.enter_copies($1, $2, 'second', $3)", entered);
      await at("select backup.enter_needs($1, $2, 'second', $3, $4, true, '0')", manifest, needs);
      await at("select backup.record_copy($1, $2, 'second', $3)", copied(object));
      await at("select backup.record_hold($1, $2, 'second', $3, false)", object);
      expect(await at("select name, status from backup.next_copies($1, $2, 'second', 5)")).toEqual([
        { name: object, status: "missing" },
      ]);
    });
  });

  it("ends when the second store is taken away, and every backup is complete with the first", async () => {
    await rolledBack(postgres, async () => {
      const { run } = await leased();
      await postgres.query("select backup.tell_stores('first', null)");
      expect(await scalar(postgres, "select status from backup.runs where id = $1", [run])).toBe("cancelled");
      expect(
        await scalar(
          postgres,
          "select count(*) from backup.runs where kind = 'full' and finished_at is not null and complete_at is null and status = 'succeeded'",
        ),
      )
        .toBe("0");
    });
  });
});

describe("the egress of a day", () => {
  it("ends at midnight UTC, to the byte; what is larger than any day goes alone, so that nothing waits behind it for ever", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.settings set value = '1' where name = 'egress_mb_per_day'");
      await setClock(postgres, "2026-11-22 23:59:59.999+00");
      const { task, token } = await leased();
      const enter = JSON.stringify([{ name: "v1/keys/k", kind: "key", bytes: 1, hash: null }]);
      await postgres.query("select backup.enter_copies($1, $2, 'second', $3)", [task, token, enter]);
      const may = (bytes: number) =>
        scalar(
          postgres,
          "select backup.intend_copy($1, $2, 'second', 'v1/keys/k', md5($3::bigint::text), $3::bigint)",
          [
            task,
            token,
            bytes,
          ],
        );
      expect(await may(1_048_575)).toBe("t");
      expect(await may(1_048_577)).toBe("f");
      expect(await may(2)).toBe("f");
      expect(await may(1)).toBe("t");
      expect(await may(1)).toBe("f");
      await setClock(postgres, "2026-11-23 00:00:00+00");
      expect(await may(1_048_577)).toBe("t");
      expect(await may(1)).toBe("f");
      await setClock(postgres, "2026-11-24 00:00:00+00");
      expect(await may(1_048_576)).toBe("t");
      expect(await may(1)).toBe("f");
    });
  });
});

describe("asking for copies", () => {
  const sent = () => scalar(postgres, "select count(*) from net.http_request_queue");

  it("calls the function only where there is a second store, nobody is at it, and nothing failed a short while ago", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const before = Number(await sent());
      await postgres.query("select backup.ask_for_copies()");
      expect(Number(await sent())).toBe(before);
      await postgres.query("select backup.tell_stores('first', 'second')");
      await postgres.query("select backup.ask_for_copies()");
      expect(Number(await sent())).toBe(before + 1);
      const run = await scalar(postgres, "select run from backup.request_copies('http', false)");
      await postgres.query("select backup.ask_for_copies()");
      expect(Number(await sent())).toBe(before + 1);
      await postgres.query("select backup.fail_run($1, 'store_denied', 'refused')", [run]);
      await postgres.query("select backup.ask_for_copies()");
      expect(Number(await sent())).toBe(before + 1);
      expect(
        await scalar(
          postgres,
          "select string_agg(kind, ',') from backup.alerts where status = 'open' and subject = 'kind:replicate'",
        ),
      )
        .toBe("copies_failed");
      await postgres.query(
        "update backup.runs set finished_at = backup.clock_now() - interval '11 minutes', started_at = null where id = $1",
        [run],
      );
      await postgres.query("select backup.ask_for_copies()");
      expect(Number(await sent())).toBe(before + 2);
    });
  });

  it("makes a run under way look again before it ends", async () => {
    await rolledBack(postgres, async () => {
      const { task, token } = await leased();
      const survey = async () => {
        const { rows: [begun] } = await postgres.query(
          "select due, began, asked from backup.begin_survey($1, $2, 'second')",
          [task, token],
        );
        if (begun.due === "t") {
          await postgres.query("select backup.end_survey($1, $2, 'second', $3, $4, '{}', null)", [
            task,
            token,
            begun.began,
            begun.asked,
          ]);
        }
        return begun.due;
      };
      const end = () => scalar(postgres, "select backup.end_copies($1, $2, 'second', null)", [task, token]);
      expect(await end()).toBe("again");
      expect(await survey()).toBe("t");
      expect(await survey()).toBe("f");
      await postgres.query("select backup.ask_for_copies()");
      expect(await end()).toBe("again");
      expect(await survey()).toBe("t");
      // A clock that is moved back in between changes nothing of that.
      await postgres.query("select backup.ask_for_copies()");
      await setClock(postgres, "2020-01-01 00:00:00+00");
      expect(await survey()).toBe("t");
      expect(await survey()).toBe("f");
    });
  });

  it("gives nothing in a database that is a copy of the one that it was installed in", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.tell_stores('first', 'second')");
      await postgres.query("update backup.identity set project_ref = 'original', present_ref = 'another'");
      expect(await scalar(postgres, "select run from backup.request_copies('http', false)")).toBeNull();
    });
  });

  it("leaves no trace of runs that copied after a week", async () => {
    await rolledBack(postgres, async () => {
      const { run } = await leased();
      await postgres.query("select backup.cancel_run($1)", [run]);
      await postgres.query("select backup.purge_traces()");
      expect(await scalar(postgres, "select count(*) from backup.runs where id = $1", [run])).toBe("1");
      await setClock(postgres, "2099-01-01 00:00:00+00");
      await postgres.query("select backup.purge_traces()");
      expect(await scalar(postgres, "select count(*) from backup.runs where id = $1", [run])).toBe("0");
    });
  });
});
