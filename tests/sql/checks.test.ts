/** Checks register themselves; a run of them, its verdict and its alerts; who is late. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkTools } from "./checks_fixture.ts";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;
const { begun, resultOf, makeAll, verdictOf, openAlerts, backup } = checkTools(() => postgres);

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

describe("the registry", () => {
  it("has a check for each of the daily and weekly procedures, and says what cannot be made yet", async () => {
    const { rows } = await postgres.query(
      "select name, cadence, function_name, step from backup.checks order by place",
    );
    expect(rows.filter(({ cadence }) => cadence === "daily").map(({ name }) => name)).toEqual([
      "clock",
      "newest_backup",
      "newest_verified",
      "job_status",
      "backup_size",
      "row_counts",
      "stores_complete",
      "storage_use",
      "manifests",
      "objects",
      "chain",
    ]);
    const absent = rows.filter(({ function_name: by, step }) => by === null && step === null).map(({ name }) => name);
    expect(absent).toEqual([]);
  });

  it("takes a check that registers itself, makes available what was not, and refuses what does not fit", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `create function backup.prove_mine() returns table (outcome text, message text, evidence jsonb) language sql
         set search_path = '' as $$ select 'passed', 'seen', '{"n": 1}'::jsonb $$`,
      );
      await postgres.query("select backup.add_check('mine', 'weekly', 'mine is there', 'prove_mine')");
      await postgres.query("select backup.add_check('later', 'weekly', 'it comes later')");
      await postgres.query("select backup.add_check('later', 'weekly', 'it can be opened', 'prove_mine')");
      const lease = await begun("weekly");
      await makeAll(lease);
      expect(await resultOf(lease, "mine")).toEqual({ outcome: "passed", message: "seen", evidence: { n: 1 } });
      expect(await verdictOf(lease)).toMatchObject({ notYetAvailable: [] });
      expect(await sqlstate(postgres, "select backup.add_check('mine', 'hourly', 'x', 'prove_mine')")).toBe("HF003");
      expect(await sqlstate(postgres, "select backup.add_check('mine', 'daily', 'x', 'check_nothing')")).toBe("HF008");
      expect(await sqlstate(postgres, "select backup.add_check('Mine', 'daily', 'x')")).toBe("HF003");
    });
  });
});

describe("a run of checks", () => {
  it("is no failure for what is not available yet, and names it; it is never passed", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.add_check('later', 'weekly', 'it comes later')");
      const lease = await begun("weekly");
      await makeAll(lease);
      expect(await verdictOf(lease)).toMatchObject({ verdict: "passed", notYetAvailable: ["later"] });
      expect((await resultOf(lease, "later")).outcome).toBe("not_yet_available");
      expect(await scalar(postgres, "select status from backup.runs where id = $1", [lease.run])).toBe("succeeded");
    });
  });

  it("raises an alert for each check that failed, which the next good one ends", async () => {
    await rolledBack(postgres, async () => {
      await backup(5);
      const told = { newest_backup: "passed", job_status: "passed", objects: "failed", row_counts: "warning" };
      const first = await begun("daily");
      await makeAll(first, told);
      expect(await verdictOf(first)).toMatchObject({ verdict: "failed", failed: ["objects"], warning: ["row_counts"] });
      expect(await openAlerts()).toEqual([
        { kind: "anomaly", subject: "check:row_counts", severity: "warning" },
        { kind: "verification_failed", subject: "check:objects", severity: "critical" },
      ]);
      // Too little to say is no good news.
      await makeAll(await begun("daily"), { ...told, objects: "passed", row_counts: "no_verdict" });
      expect(await openAlerts()).toMatchObject([{ kind: "anomaly" }]);
      await makeAll(await begun("daily"), { ...told, objects: "passed", row_counts: "passed" });
      expect(await openAlerts()).toEqual([]);
    });
  });

  it("makes also what somebody asks for meanwhile, each check once", async () => {
    await rolledBack(postgres, async () => {
      const lease = await begun("daily");
      const { rows: [joined] } = await postgres.query(
        "select run, joined from backup.request_checks('weekly', 'http')",
      );
      expect(joined).toEqual({ run: lease.run, joined: "t" });
      // What the worker keeps does not take that away.
      await postgres.query("select backup.checking($1, $2, '{\"steps\": {}}')", [lease.task, lease.token]);
      await makeAll(lease);
      const made = await scalar(postgres, "select count(*) from backup.check_results where run_id = $1", [lease.run]);
      expect(made).toBe(await scalar(postgres, "select count(*) from backup.checks"));
    });
  });

  it("goes on behind a check that breaks, which has failed", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `create or replace function backup.prove_clock() returns table (outcome text, message text, evidence jsonb) language plpgsql
         as $$ begin raise exception 'broken'; end $$`,
      );
      const lease = await begun("daily");
      await makeAll(lease);
      expect(await resultOf(lease, "clock")).toMatchObject({
        outcome: "failed",
        message: "the check itself broke: broken (SQLSTATE P0001)",
      });
    });
  });

  it("is refused with an old token, for the verification of one backup, and in a copy of the database", async () => {
    await rolledBack(postgres, async () => {
      const lease = await begun("daily");
      expect(await sqlstate(postgres, "select backup.checking($1, $2)", [lease.task, Number(lease.token) - 1])).toBe(
        "HF413",
      );
      await postgres.query("select backup.become_copy('', 'a test')");
      expect(await sqlstate(postgres, "select backup.checking($1, $2)", [lease.task, lease.token])).toBe("HF415");
      expect(await scalar(postgres, "select run from backup.request_checks('weekly', 'http')")).toBeNull();
    });
    await rolledBack(postgres, async () => {
      const id = await backup(5);
      const { rows: [v] } = await postgres.query("select run from backup.request_verification($1, 'http')", [id]);
      const { rows: [task] } = await postgres.query("select id, token from backup.claim_task($1, 't', '9 s')", [v.run]);
      expect(await sqlstate(postgres, "select backup.checking($1, $2)", [task.id, task.token])).toBe("HF415");
      expect(await sqlstate(postgres, "select backup.request_checks('hourly', 'http')")).toBe("HF003");
    });
  });
});

describe("the cron jobs", () => {
  it("call the function, and order that the newest backup is verified whole, once", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const id = await backup(5, { verified: false });
      const calls = () =>
        scalar(postgres, "select count(*) from backup.calls where function_name = 'verify' and run_id is null");
      const verifications = () =>
        scalar(postgres, "select count(*) from backup.runs where kind = 'verify' and subject_run = $1", [id]);
      await postgres.query("select backup.call_checks('daily')");
      expect([await calls(), await verifications()]).toEqual(["1", "1"]);
      await postgres.query("select backup.call_checks('weekly')");
      expect([await calls(), await verifications()]).toEqual(["2", "1"]);
    });
  });

  it("without which the checks are late is an alert for each cadence, which ends by itself", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        "update backup.schedules set enabled = true, enabled_since = '2026-11-01 00:00+00' where kind like '%_checks'",
      );
      const overdue = () => scalar(postgres, "select backup.watch_checks()");
      // Monday, five hours after the daily ones were due; those of Sunday have been made by nobody.
      await setClock(postgres, "2026-11-23 09:00+00");
      expect(await overdue()).toBe("2");
      await makeAll(await begun("daily"));
      expect(await overdue()).toBe("1");
      expect(await openAlerts()).toContainEqual({
        kind: "verification_overdue",
        subject: "checks:weekly",
        severity: "critical",
      });
      await setClock(postgres, "2026-11-23 12:00+00");
      await makeAll(await begun("weekly"));
      // Of this morning, since those of nine o'clock count.
      expect(await overdue()).toBe("0");
      await setClock(postgres, "2026-11-24 11:00+00");
      expect(await overdue()).toBe("1");
      expect((await openAlerts()).map(({ subject }) => subject)).toContain("checks:daily");
    });
  });
});
