/** The calendar of drills over years, who begins them, what comes of them, and when somebody is told. */
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

type Cadence = "weekly" | "monthly" | "quarterly" | "yearly";

/** When the next period begins, by the calendar of JavaScript. */
function oracle(cadence: Cadence, done: Date): Date {
  const [year, month, day] = [done.getUTCFullYear(), done.getUTCMonth(), done.getUTCDate()];
  switch (cadence) {
    case "weekly": {
      const sinceMonday = (done.getUTCDay() + 6) % 7;
      return new Date(Date.UTC(year, month, day - sinceMonday + 7));
    }
    case "monthly":
      return new Date(Date.UTC(year, month + 1, 1));
    case "quarterly":
      return new Date(Date.UTC(year, month - month % 3 + 3, 1));
    case "yearly":
      return new Date(Date.UTC(year + 1, 0, 1));
  }
}

const cadences: readonly Cadence[] = ["weekly", "monthly", "quarterly", "yearly"];

describe("when a drill is due", () => {
  it.each(cadences)(
    "%s: as the next period begins, for every day of five years, leap days and ends of years too",
    async (cadence) => {
      const days = Array.from(
        { length: 5 * 366 },
        (_, day) => new Date(Date.UTC(2026, 11, 28) + day * 86_400_000 + (day % 3) * 43_199_999),
      );
      for (const zone of ["UTC", "America/New_York", "Pacific/Kiritimati"]) {
        await rolledBack(postgres, async () => {
          await postgres.query(`set local time zone '${zone}'`);
          const { rows } = await postgres.query(
            `select extract(epoch from backup.drill_due($1, t.at)) * 1000 as due
             from unnest($2::timestamptz[]) with ordinality as t (at, n) order by t.n`,
            [
              cadence,
              days.map((day) => day.toISOString()),
            ],
          );
          expect(rows.map(({ due }) => new Date(Number(due)).toISOString())).toEqual(
            days.map((day) => oracle(cadence, day).toISOString()),
          );
        });
      }
    },
  );

  it("a fresh install owes nothing before its first period is over", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.drill_calendar set since = '2026-11-21 12:00+00'");
      await setClock(postgres, "2026-11-22 23:59+00");
      expect(await scalar(postgres, "select count(*) from backup.drill_calendar where due_at <= backup.clock_now()"))
        .toBe("0");
      const { rows } = await postgres.query(
        "select name, due_at::timestamptz at time zone 'UTC' as due from backup.drill_calendar order by name",
      );
      expect(Object.fromEntries(rows.map(({ name, due }) => [name, due.slice(0, 10)]))).toEqual({
        complete: "2027-01-01",
        disaster: "2027-01-01",
        full: "2026-12-01",
        keys: "2027-01-01",
        record: "2026-12-01",
        recovery: "2026-11-23",
        runbooks: "2027-01-01",
        table: "2027-01-01",
      });
    });
  });
});

/** A project with a backup, where functions can be called. */
async function project(since: string): Promise<void> {
  await fillVault(postgres);
  await setClock(postgres, since);
  await postgres.query("update backup.drill_calendar set since = backup.clock_now()");
  await postgres.query(
    `insert into backup.runs (kind, tiers, status, origin, created_at, started_at, finished_at, consistent_at, manifest_name, manifest_hash)
     values ('full', '{daily}', 'succeeded', 'schedule', $1, $1, $1, $1, 'm', 'h')`,
    [since],
  );
}

/** Ends the drill that is under way as its worker would. */
async function end(result: Record<string, unknown>): Promise<void> {
  const { rows: [task] } = await postgres.query(
    `select c.id, c.token from backup.runs as r, backup.claim_task(r.id, 'test', '3 minutes') as c
      where r.kind = 'drill' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')`,
  );
  await postgres.query("select backup.drilling($1, $2, '{}', '{}')", [task.id, task.token]);
  await postgres.query("select backup.end_drill($1, $2, $3)", [task.id, task.token, result]);
}

const good = { ok: true, rtoSeconds: 60, rpoSeconds: 30, evidence: { signed: 1 }, error: null, notes: "" };
const alerts = async () =>
  (await postgres.query(
    "select kind || ' ' || subject as what from backup.alerts where kind ~ 'drill|objective' and status <> 'resolved' order by 1",
  ))
    .rows.map(({ what }) => what);

describe("a year of drills", () => {
  it(
    "has each of them as often as both documents ask for, one at a time, and every missed one is told once",
    async () => {
      await rolledBack(postgres, async () => {
        await project("2027-12-30 12:00+00");
        const begun: Record<string, string[]> = {};
        const overdue = new Set<string>();
        for (let hour = 0; hour < 366 * 4; hour++) {
          const now = new Date(Date.UTC(2027, 11, 31) + hour * 6 * 3_600_000);
          await setClock(postgres, now.toISOString());
          const run = await scalar(postgres, "select backup.call_drills()");
          if (run !== null) {
            const name = String(await scalar(postgres, "select drill from backup.drills where run_id = $1", [run]));
            (begun[name] ??= []).push(now.toISOString());
            expect(await scalar(postgres, "select backup.call_drills()"), "one at a time").toBeNull();
            await end(good);
          }
          if (hour % 4 === 0) await postgres.query("select backup.watch_drills()");
          for (const one of await alerts()) overdue.add(one);
        }
        const months = (name: string) => (begun[name] ?? []).filter((at) => at >= "2028").map((at) => at.slice(0, 7));
        const all = Array.from({ length: 12 }, (_, month) => `2028-${String(month + 1).padStart(2, "0")}`);
        expect(months("record")).toEqual(all);
        expect(months("full")).toEqual(all);
        expect(months("table")).toEqual(["2028-01", "2028-04", "2028-07", "2028-10"]);
        const weeks = (begun["recovery"] ?? []).map((at) => oracle("weekly", new Date(at)).toISOString());
        expect(new Set(weeks).size).toBe(weeks.length);
        expect(weeks.length).toBeGreaterThanOrEqual(52);
        // Those of people nobody has done.
        expect([...overdue].sort()).toEqual(
          ["complete", "disaster", "keys", "runbooks"].map((name) => `drill_overdue drill:${name}`),
        );
        expect(await scalar(postgres, "select count(*) from backup.alerts where kind = 'drill_overdue'")).toBe("4");
        // And once they have, nothing is overdue.
        for (const name of ["complete", "disaster", "keys", "runbooks"]) {
          await postgres.query("select backup.request_drill($1, 'cli')", [name]);
          await end(good);
        }
        expect(await alerts()).toEqual([]);
      });
    },
    240_000,
  );
});

describe("what comes of a drill", () => {
  it("stands in its row, the calendar, the maintenance log and the audit", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      await postgres.query("select backup.request_drill('full', 'cli')");
      await setClock(postgres, "2027-03-01 12:01+00");
      await end({ ...good, notes: "a note" });
      const { rows: [drill] } = await postgres.query("select * from backup.drills");
      expect(drill).toMatchObject({
        drill: "full",
        ok: "t",
        rto_seconds: "60",
        rpo_seconds: "30",
        recovery_objective: "86400",
        loss_objective: "86400",
      });
      const { rows: [row] } = await postgres.query(
        "select last_drill, last_ok, due_at at time zone 'UTC' as due from backup.drill_calendar where name = 'full'",
      );
      expect(row).toEqual({ last_drill: drill.id, last_ok: "t", due: "2027-04-01 00:00:00" });
      const { rows: log } = await postgres.query("select kind, action, result, notes from backup.maintenance_log");
      expect(log).toEqual([{
        kind: "test",
        action: "Full restore",
        result: "Success",
        notes: `a note; recovered in 60 s; drill ${drill.id}`,
      }]);
      expect(await scalar(postgres, "select count(*) from backup.audit_log where subject = 'drill:' || $1", [drill.id]))
        .toBe("2");
    });
  });

  it("is an alert where it failed, which stays until the next good one, and none where a person cancelled it", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      const failure = { code: "space_missing", message: "no room", hint: "make some" };
      await postgres.query("select backup.request_drill('recovery', 'cli')");
      await end({ ...good, ok: false, rtoSeconds: null, rpoSeconds: null, error: failure });
      expect(await alerts()).toEqual(["drill_failed drill:recovery"]);
      expect(await scalar(postgres, "select status || ' ' || error_code from backup.runs where kind = 'drill'")).toBe(
        "failed space_missing",
      );
      expect(await scalar(postgres, "select last_ok from backup.drill_calendar where name = 'recovery'")).toBe("f");
      expect(
        await scalar(
          postgres,
          "select due_at = backup.drill_due(cadence, since) from backup.drill_calendar where name = 'recovery'",
        ),
      ).toBe("t");
      expect(await scalar(postgres, "select count(*) from backup.alerts where kind = 'backup_failed'")).toBe("0");
      await postgres.query("select backup.request_drill('recovery', 'cli')");
      await end(good);
      expect(await alerts()).toEqual([]);
      await postgres.query("select backup.cancel_run((select run from backup.request_drill('recovery', 'cli')))");
      expect(await alerts()).toEqual([]);
      expect(await scalar(postgres, "select result from backup.maintenance_log order by id desc limit 1")).toBe(
        "Failure",
      );
    });
  });

  it("is an alert where its run died, with nobody to sign for it", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      await postgres.query("select backup.request_drill('full', 'schedule')");
      await setClock(postgres, "2027-03-01 13:00+00");
      await postgres.query("select backup.revive_runs()");
      expect(await alerts()).toEqual(["drill_failed drill:full"]);
      const { rows: [{ ok, evidence }] } = await postgres.query("select ok, evidence from backup.drills");
      expect(ok).toBe("f");
      expect(JSON.parse(evidence)).toMatchObject({ signature: null, failure: { code: "run_stalled" } });
    });
  });

  it("is told where more time or data was lost than was promised", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      await postgres.query("select backup.request_drill('recovery', 'cli')");
      await end({ ...good, rpoSeconds: 76 });
      expect(await alerts()).toEqual(["objective_missed drill:recovery"]);
      expect(await scalar(postgres, "select message from backup.alerts where kind = 'objective_missed'")).toBe(
        "Recovery test: 76 s would be lost, 75 are promised",
      );
      await postgres.query("select backup.request_drill('recovery', 'cli')");
      await end(good);
      expect(await alerts()).toEqual([]);
    });
  });
});

describe("the report of a drill", () => {
  const reports = async () =>
    (await postgres.query(
      "select subject, severity, message, detail from backup.notices where kind = 'drill_report' order by id",
    )).rows.map(({ detail, ...row }) => ({ ...row, detail: JSON.parse(detail) as Record<string, unknown> }));

  it("goes out once for each drill, good or not, and for none that a person cancelled", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      const drilled = async (result: Record<string, unknown>) => {
        const id = await scalar(postgres, "select drill from backup.request_drill('recovery', 'cli')");
        await end(result);
        return id;
      };
      const first = await drilled({ ...good, notes: "a note" });
      const [report] = await reports();
      expect(report).toMatchObject({
        subject: "drill:recovery",
        severity: "information",
        message:
          `Recovery test: Success; a note; recovered in 60 s; \`holdfast drills report ${first}\` has the evidence`,
        detail: { drill: first, name: "recovery", ok: true, rtoSeconds: 60, rpoSeconds: 30 },
      });
      await postgres.query("select backup.judge_drill(d.run_id, '{\"ok\": false}') from backup.drills as d");
      expect(await reports(), "it has ended already").toHaveLength(1);
      await drilled({ ...good, ok: false, rtoSeconds: null, error: { code: "x", message: "no room", hint: "" } });
      expect((await reports())[1]).toMatchObject({
        message: expect.stringMatching(/^Recovery test: Failure; no room; `holdfast/) as string,
        detail: { ok: false, rtoSeconds: null },
      });
      await drilled({ ...good, rpoSeconds: 76 });
      expect((await reports())[2]?.["message"]).toContain("76 s would be lost, 75 are promised");
      await drilled({ ...good, notes: "x".repeat(9000) });
      expect(await reports()).toHaveLength(4);
      await postgres.query("select backup.cancel_run((select run from backup.request_drill('recovery', 'cli')))");
      expect(await reports()).toHaveLength(4);
      expect(
        await scalar(postgres, "select count(*) from backup.maintenance_log where notes like '%; drill ' || $1", [
          first,
        ]),
      ).toBe("1");
    });
  });
});

describe("a clock that was set back behind the last good drill", () => {
  it("lets it be due at once, and overdue after its grace, instead of years later", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      await postgres.query("update backup.drill_calendar set enabled = name = 'recovery'");
      await setClock(postgres, "2035-03-07 12:00+00");
      await postgres.query("select backup.request_drill('recovery', 'cli')");
      await end(good);
      await setClock(postgres, "2027-03-02 12:00+00");
      await postgres.query("select backup.watch_drills()");
      expect(await alerts(), "it has its grace").toEqual([]);
      await setClock(postgres, "2027-03-04 12:00+00");
      await postgres.query("select backup.watch_drills()");
      expect(await alerts()).toEqual(["drill_overdue drill:recovery"]);
      expect(await scalar(postgres, "select backup.call_drills()")).not.toBeNull();
      await end(good);
      expect(await alerts()).toEqual([]);
      await postgres.query("select backup.watch_drills()");
      expect(await alerts()).toEqual([]);
      expect(await scalar(postgres, "select backup.call_drills()")).toBeNull();
    });
  });

  it("a few hours of it make nothing due", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      await postgres.query("update backup.drill_calendar set enabled = name = 'recovery'");
      await postgres.query("select backup.request_drill('recovery', 'cli')");
      await end(good);
      await setClock(postgres, "2027-03-01 02:00+00");
      expect(await scalar(postgres, "select backup.call_drills()")).toBeNull();
    });
  });
});

describe("asking for a drill", () => {
  it("joins the same one, waits for no other, and knows only the calendar's", async () => {
    await rolledBack(postgres, async () => {
      const first = await scalar(postgres, "select drill from backup.request_drill('full', 'cli')");
      expect(await scalar(postgres, "select drill || ' ' || joined from backup.request_drill('full', 'http')")).toBe(
        `${first} true`,
      );
      expect(await sqlstate(postgres, "select backup.request_drill('record', 'cli')")).toBe("HF415");
      expect(await sqlstate(postgres, "select backup.request_drill('fullest', 'cli')")).toBe("HF008");
    });
  });

  it("is not done by the cron job beside a backup, a restore or an incident, without a backup, in a copy, or without functions", async () => {
    const due = async () => {
      await project("2027-03-01 12:00+00");
      await setClock(postgres, "2027-04-02 12:00+00");
    };
    const called = () => scalar(postgres, "select backup.call_drills()");
    await rolledBack(postgres, async () => {
      await due();
      expect(await called()).not.toBeNull();
    });
    for (
      const hindered of [
        "select backup.request_run('full', '{manual}', 'cli', null)",
        'select backup.begin_restore(\'{"scope": "full", "mode": "beside", "source_backup": "6f1c8c7e-4444-4c4e-9c36-5f1f4a1f7a01", "target_label": "x"}\')',
        "delete from backup.runs",
        "select backup.become_copy('', 'test')",
        "delete from vault.secrets",
        "update backup.drill_calendar set enabled = false",
        "select backup.open_incident('rows are gone')",
      ]
    ) {
      await rolledBack(postgres, async () => {
        await due();
        await postgres.query(hindered);
        expect(await called(), hindered).toBeNull();
      });
    }
  });

  it("tries one that failed again after a day, not each hour", async () => {
    await rolledBack(postgres, async () => {
      await project("2027-03-01 12:00+00");
      await postgres.query("update backup.drill_calendar set enabled = name = 'recovery'");
      let begun = 0;
      for (let hour = 0; hour < 72; hour++) {
        await setClock(postgres, new Date(Date.UTC(2027, 2, 8) + hour * 3_600_000).toISOString());
        if ((await scalar(postgres, "select backup.call_drills()")) === null) continue;
        begun++;
        await end({ ...good, ok: false });
      }
      expect(begun).toBe(4);
    });
  });
});

it("a backup that a drill restores is not removed meanwhile", async () => {
  await rolledBack(postgres, async () => {
    await project("2027-03-01 12:00+00");
    const backup = await scalar(
      postgres,
      "select id from backup.runs where kind = 'full' order by created_at desc limit 1",
    );
    await postgres.query("select backup.request_drill('full', 'cli')");
    await postgres.query("update backup.drills set backup_id = $1 where finished_at is null", [backup]);
    expect(
      await scalar(postgres, "select count(*) from backup.backups_needed() where backup = $1 and why ~ '^drill '", [
        backup,
      ]),
    ).toBe("1");
  });
});

it("a database that a killed drill left is dropped by the function, which is called once an hour", async () => {
  await rolledBack(postgres, async () => {
    await project("2027-03-01 12:00+00");
    await postgres.query("select backup.request_drill('full', 'schedule')");
    await postgres.query("update backup.drills set database_name = 'holdfast_drill_x' where finished_at is null");
    const calls = () => scalar(postgres, "select count(*) from backup.calls where function_name = 'drill'");
    await postgres.query("select backup.watch_drills()");
    expect(await calls(), "it is under way").toBe("0");
    await setClock(postgres, "2027-03-01 13:00+00");
    await postgres.query("select backup.revive_runs(), backup.watch_drills(), backup.watch_drills()");
    expect(await calls()).toBe("1");
    await setClock(postgres, "2027-03-01 14:01+00");
    await postgres.query("select backup.drill_database_dropped(drill) from backup.left_drill_databases()");
    await postgres.query("select backup.watch_drills()");
    expect(await calls()).toBe("1");
  });
});
