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

const sunday = "2026-11-22 00:00:02+00";
const monday = "2026-11-23 00:00:02+00";

async function jobs(): Promise<Record<string, string>> {
  const { rows } = await postgres.query(
    "select jobname, schedule from cron.job where jobname ~ '^holdfast-' order by 1",
  );
  return Object.fromEntries(rows.map((row) => [row.jobname, row.schedule]));
}

async function apply(): Promise<Record<string, string>> {
  const { rows } = await postgres.query("select * from backup.apply_schedules()");
  return Object.fromEntries(rows.map((row) => [row.schedule, row.outcome]));
}

const asInstalled = {
  "holdfast-alerts": "* * * * *",
  "holdfast-anchor": "17 * * * *",
  "holdfast-changes": "* * * * *",
  "holdfast-daily": "0 0 * * *",
  "holdfast-daily_checks": "23 4 * * *",
  "holdfast-drills": "47 * * * *",
  "holdfast-monitor": "*/5 * * * *",
  "holdfast-replicate": "*/15 * * * *",
  "holdfast-retention": "37 * * * *",
  "holdfast-security": "43 3 1 * *",
  "holdfast-watchdog": "* * * * *",
  "holdfast-weekly": "0 0 * * 0",
  "holdfast-weekly_checks": "53 4 * * 1",
};

describe("cron jobs", () => {
  it("are derived from the schedules at install, as the role postgres", async () => {
    expect(await jobs()).toEqual(asInstalled);
    const { rows } = await postgres.query(
      "select distinct username, database, active from cron.job where jobname ~ '^holdfast-'",
    );
    expect(rows).toEqual([{ username: "postgres", database: "postgres", active: "t" }]);
  });

  it("hold no address and no secret, only a call of a function", async () => {
    const { rows } = await postgres.query("select command from cron.job where jobname ~ '^holdfast-' order by jobname");
    expect(rows.map((row) => row.command)).toEqual([
      "select backup.call_notify()",
      "select backup.call_anchor()",
      "select backup.call_drain()",
      "select backup.run_schedule('daily')",
      "select backup.call_checks('daily')",
      "select backup.call_drills()",
      "select backup.call_monitor()",
      "select backup.call_replication()",
      "select backup.call_retention()",
      "select backup.audit_security()",
      "select backup.tick()",
      "select backup.run_schedule('weekly')",
      "select backup.call_checks('weekly')",
    ]);
  });

  it("are kept as they are when nothing changed", async () => {
    await rolledBack(postgres, async () => {
      expect(await apply()).toEqual({
        alerts: "kept",
        anchor: "kept",
        changes: "kept",
        daily: "kept",
        daily_checks: "kept",
        drills: "kept",
        monitor: "kept",
        replicate: "kept",
        retention: "kept",
        security: "kept",
        watchdog: "kept",
        weekly: "kept",
        weekly_checks: "kept",
      });
      expect(await jobs()).toEqual(asInstalled);
    });
  });

  it("that a person changed are not overwritten: the row follows", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        "select cron.alter_job(jobid, schedule => '30 4 * * *') from cron.job where jobname = 'holdfast-daily'",
      );
      expect(await apply()).toMatchObject({ daily: "adopted", weekly: "kept" });
      expect(await jobs()).toEqual({ ...asInstalled, "holdfast-daily": "30 4 * * *" });
      expect(await scalar(postgres, "select cron from backup.schedules where name = 'daily'")).toBe("30 4 * * *");
      expect(await apply()).toMatchObject({ daily: "kept" });
    });
  });

  it.each(["30 seconds", "0 0 31 2 *", "0 0 $ * *"])(
    "get the time of their row again where a person gave them one that is never due or not understood: %s",
    async (odd) => {
      await rolledBack(postgres, async () => {
        const isTaken = await sqlstate(
          postgres,
          "select cron.alter_job(jobid, schedule => $1) from cron.job where jobname = 'holdfast-daily'",
          [odd],
        );
        // pg_cron of this version may refuse it itself.
        if (isTaken !== "none") return expect(await jobs()).toEqual(asInstalled);
        expect(await apply()).toMatchObject({ daily: "refused", weekly: "kept" });
        expect(await jobs()).toEqual(asInstalled);
        expect(await scalar(postgres, "select count(*) from backup.audit_log where action = 'schedule.refused'")).toBe(
          "1",
        );
        expect(await apply()).toMatchObject({ daily: "kept" });
      });
    },
  );

  it("that are there for the first time have missed nothing; one that was taken away by hand has", async () => {
    await rolledBack(postgres, async () => {
      const since = "select enabled_since > now() - interval '1 minute' from backup.schedules where name = 'anchor'";
      await postgres.query("update backup.schedules set enabled_since = now() - interval '3 days'");
      await postgres.query("select cron.unschedule('holdfast-anchor')");
      expect(await apply()).toMatchObject({ anchor: "added" });
      expect(await scalar(postgres, since)).toBe("f");
      await postgres.query("select cron.unschedule('holdfast-anchor')");
      await postgres.query("update backup.schedules set applied_cron = null where name = 'anchor'");
      expect(await apply()).toMatchObject({ anchor: "added" });
      expect(await scalar(postgres, since)).toBe("t");
    });
  });

  it("follow a row that was changed, come back when they are missing, and go when a schedule is not enabled", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.schedules set cron = '15 2 * * *' where name = 'daily'");
      await postgres.query("update backup.schedules set enabled = false where name = 'watchdog'");
      await postgres.query("select cron.unschedule('holdfast-weekly')");
      expect(await apply()).toEqual({
        alerts: "kept",
        anchor: "kept",
        changes: "kept",
        daily: "changed",
        daily_checks: "kept",
        drills: "kept",
        monitor: "kept",
        replicate: "kept",
        retention: "kept",
        security: "kept",
        watchdog: "removed",
        weekly: "added",
        weekly_checks: "kept",
      });
      expect(await jobs()).toEqual({
        "holdfast-alerts": "* * * * *",
        "holdfast-anchor": "17 * * * *",
        "holdfast-changes": "* * * * *",
        "holdfast-daily": "15 2 * * *",
        "holdfast-daily_checks": "23 4 * * *",
        "holdfast-monitor": "*/5 * * * *",
        "holdfast-drills": "47 * * * *",
        "holdfast-replicate": "*/15 * * * *",
        "holdfast-retention": "37 * * * *",
        "holdfast-security": "43 3 1 * *",
        "holdfast-weekly": "0 0 * * 0",
        "holdfast-weekly_checks": "53 4 * * 1",
      });
    });
  });
});

describe("policies", () => {
  it("have the default preset, and a point-in-time window of their own", async () => {
    const { rows } = await postgres.query("select tier, keep from backup.policies order by tier");
    expect(rows).toEqual([
      { tier: "daily", keep: "30 days" },
      { tier: "hourly", keep: "24:00:00" },
      { tier: "manual", keep: "90 days" },
      { tier: "safety", keep: "30 days" },
      { tier: "weekly", keep: "90 days" },
    ]);
    expect(await scalar(postgres, "select backup.setting_integer('pitr_window_seconds')")).toBe(String(7 * 86400));
  });
});

describe("the window of point-in-time recovery", () => {
  it("is never shorter than the hourly tier, whichever of them is changed", async () => {
    await rolledBack(postgres, async () => {
      const window = (seconds: number) =>
        sqlstate(postgres, "update backup.settings set value = $1 where name = 'pitr_window_seconds'", [seconds]);
      const hourly = (keep: string) =>
        sqlstate(postgres, "update backup.policies set keep = $1 where tier = 'hourly'", [keep]);
      expect(await window(86_399)).toBe("23514");
      expect(await window(86_400)).toBe("none");
      expect(await hourly("25 hours")).toBe("23514");
      expect(await hourly("23 hours")).toBe("none");
      expect(await window(23 * 3600)).toBe("none");
    });
  });
});

describe("an incremental", () => {
  /** Position and moment of a segment's end; each begins where the last one ended. */
  const store = async (token: string, begin: string, end: string, at: string) =>
    await scalar(postgres, "select backup.record_segment($1, $2)", [
      token,
      JSON.stringify({
        chain_id: "hours",
        start_lsn: begin,
        end_lsn: end,
        name: `segment ${end}`,
        raw_bytes: 10,
        stored_bytes: 5,
        hash: "h",
        stored_hash: "s",
        epoch: "e",
        transactions: 1,
        changes: 2,
        ddl: 0,
        part: 0,
        taken_at: at,
        ends_in_transaction: false,
      }),
    ]);

  it("is sealed once its hour is over, and what comes then is another's", async () => {
    await rolledBack(postgres, async () => {
      const statusOf = (run: string | null) => scalar(postgres, "select status from backup.runs where id = $1", [run]);
      const seal = () => scalar(postgres, "select backup.seal_incrementals(false)");
      await setClock(postgres, "2026-11-22 09:10:00+00");
      const token = await scalar(postgres, "select backup.claim_drain('test', interval '1 hour')") ?? "";
      await postgres.query("select backup.begin_chain($1, 'hours', 'no_slot', '{one,two}', '0/100')", [token]);
      const first = await store(token, "0/100", "0/200", "2026-11-22 09:10:00+00");
      await setClock(postgres, "2026-11-22 09:59:59+00");
      expect(await store(token, "0/200", "0/300", "2026-11-22 09:59:59+00"), "in the same hour").toBe(first);
      expect(await seal()).toBe("0");
      expect(await statusOf(first)).toBe("copying");
      await setClock(postgres, "2026-11-22 10:00:00+00");
      expect(await seal(), "also when nothing has changed since").toBe("1");
      expect(await statusOf(first)).toBe("succeeded");
      const second = await store(token, "0/300", "0/400", "2026-11-22 10:00:00+00");
      expect(second).not.toBe(first);
      await setClock(postgres, "2026-11-22 11:00:30+00");
      const third = await store(token, "0/400", "0/500", "2026-11-22 11:00:30+00");
      expect([await statusOf(second), await statusOf(third)]).toEqual(["succeeded", "copying"]);
      const { rows } = await postgres.query(
        "select wal_lsn, rows from backup.runs where kind = 'incremental' order by wal_lsn",
      );
      expect(rows).toEqual([
        { wal_lsn: "0/300", rows: "4" },
        { wal_lsn: "0/400", rows: "2" },
        { wal_lsn: "0/500", rows: "2" },
      ]);
    });
  });
});

describe("settings", () => {
  it("refuse values outside their bounds, and names that are not there", async () => {
    await rolledBack(postgres, async () => {
      for (const value of ["0", "17", "two", "-1", "", "1.5"]) {
        const change = "update backup.settings set value = $1 where name = 'concurrency'";
        expect(await sqlstate(postgres, change, [value]), value).toBe("23514");
      }
      expect(await scalar(postgres, "select backup.setting_integer('concurrency')")).toBe("2");
      expect(await sqlstate(postgres, "select backup.setting_integer('concurency')")).toBe("HF002");
    });
  });
});

describe("a schedule that is due", () => {
  it("asks for one run for both tiers on Sunday, whichever job comes first", async () => {
    for (const order of [["daily", "weekly"], ["weekly", "daily"]]) {
      await rolledBack(postgres, async () => {
        await fillVault(postgres);
        await setClock(postgres, sunday);
        const first = await scalar(postgres, "select backup.run_schedule($1)", [order[0]]);
        const second = await scalar(postgres, "select backup.run_schedule($1)", [order[1]]);
        expect(second).toBe(first);
        const { rows } = await postgres.query("select id, tiers, origin from backup.runs");
        expect(rows).toEqual([{ id: first, tiers: "{daily,weekly}", origin: "schedule" }]);
      });
    }
  });

  it("still serves both when the first job's run has ended before the second job comes", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await setClock(postgres, sunday);
      const first = await scalar(postgres, "select backup.run_schedule('daily')");
      await postgres.query("select backup.fail_run($1, 'internal', 'for the test')", [first]);
      expect(await scalar(postgres, "select backup.run_schedule('weekly')")).toBe(first);
    });
  });

  it("serves the daily tier alone on other days, with one signed leg in the queue", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await setClock(postgres, monday);
      const run = await scalar(postgres, "select backup.run_schedule('daily')");
      expect(await scalar(postgres, "select tiers from backup.runs where id = $1", [run])).toBe("{daily}");
      const { rows } = await postgres.query(
        `select c.function_name, c.status, convert_from(q.body, 'UTF8')::jsonb as body
         from backup.calls as c join net.http_request_queue as q on q.id = c.request_id where c.run_id = $1`,
        [run],
      );
      expect(rows.map((row) => ({ ...row, body: JSON.parse(row.body) }))).toEqual([
        { function_name: "backup", status: "sent", body: { action: "leg", run } },
      ]);
    });
  });

  it("joins a backup that is under way and gives it its tier", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await setClock(postgres, monday);
      const manual = await scalar(postgres, "select run from backup.start_backup('manual')");
      expect(await scalar(postgres, "select backup.run_schedule('daily')")).toBe(manual);
      expect(await scalar(postgres, "select tiers from backup.runs where id = $1", [manual])).toBe("{daily,manual}");
    });
  });

  it("records a failed run and an alert when Vault has no secret, instead of doing nothing", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, monday);
      const run = await scalar(postgres, "select backup.run_schedule('daily')");
      const { rows } = await postgres.query("select status, error_code from backup.runs where id = $1", [run]);
      expect(rows).toEqual([{ status: "failed", error_code: "setting_missing" }]);
      expect(
        await scalar(postgres, "select count(*) from backup.alerts where kind = 'backup_failed' and status = 'open'"),
      ).toBe("1");
    });
  });

  it("raises an alert when it did not run, which ends once a later one was asked for", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await postgres.query("update backup.schedules set enabled_since = '2026-11-20 12:00+00'");
      const open =
        "select string_agg(subject, ',' order by subject) from backup.alerts where kind = 'run_missed' and status = 'open'";
      await setClock(postgres, "2026-11-20 23:00:00+00");
      await postgres.query("select backup.watch_schedules()");
      expect(await scalar(postgres, open), "nothing was due since it was enabled").toBeNull();
      await setClock(postgres, "2026-11-21 00:20:00+00");
      await postgres.query("select backup.watch_schedules()");
      expect(await scalar(postgres, open), "it may still come").toBeNull();
      await setClock(postgres, "2026-11-22 00:31:00+00");
      await postgres.query("select backup.watch_schedules()");
      expect(await scalar(postgres, open)).toBe("schedule:daily,schedule:weekly");
      await setClock(postgres, "2026-11-23 00:00:01+00");
      await postgres.query("select backup.run_schedule('daily')");
      await setClock(postgres, "2026-11-23 00:31:00+00");
      await postgres.query("select backup.watch_schedules()");
      expect(await scalar(postgres, open)).toBe("schedule:weekly");
    });
  });
});
