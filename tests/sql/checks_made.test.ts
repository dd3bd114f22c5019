/** The checks in SQL, each with its own fault. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkTools, object } from "./checks_fixture.ts";
import { installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

let postgres: pg.Client;
const { begun, make, resultOf, backup, enter } = checkTools(() => postgres);

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

describe("the check", () => {
  const made = async (name: string, cadence = "daily") => {
    const lease = await begun(cadence);
    await make(lease, name);
    await postgres.query("select backup.cancel_run($1)", [lease.run]);
    return await resultOf(lease, name);
  };
  const schedule = (since: string) =>
    postgres.query(
      `update backup.schedules set enabled = name = 'daily' where kind = 'full';
       update backup.schedules set enabled_since = '${since}', cron = '0 0 * * *' where name = 'daily'`,
    );

  it("newest_backup: one is missing for the last time that a schedule was due", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2026-11-23 07:00+00");
      await schedule("2026-11-20 12:00+00");
      expect(await made("newest_backup")).toMatchObject({ outcome: "failed", message: "there is no backup" });
    });
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2026-11-23 07:00+00");
      await schedule("2026-11-20 12:00+00");
      await backup(30);
      expect(await made("newest_backup")).toMatchObject({
        outcome: "failed",
        message: "backups are missing: the daily one of 2026-11-23T00:00:00Z",
      });
    });
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2026-11-23 07:00+00");
      await schedule("2026-11-20 12:00+00");
      const id = await backup(6.5);
      const { outcome, evidence } = await made("newest_backup");
      expect({ outcome, evidence }).toMatchObject({
        outcome: "passed",
        evidence: { backup: id, finishedAt: "2026-11-23T00:30:00Z", schedules: [{ schedule: "daily", backup: id }] },
      });
    });
  });

  it("newest_backup: without a schedule by its age, and late in the second store is a warning", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.schedules set enabled = false where kind = 'full'");
      const id = await backup(47);
      expect(await made("newest_backup")).toMatchObject({ outcome: "passed" });
      await postgres.query("select backup.tell_stores('first', 'second')");
      expect((await postgres.query("select complete_at from backup.runs where id = $1", [id])).rows).toEqual([{
        complete_at: null,
      }]);
      expect(await made("newest_backup")).toMatchObject({ outcome: "warning" });
    });
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.schedules set enabled = false where kind = 'full'");
      await backup(49);
      expect(await made("newest_backup")).toMatchObject({ outcome: "failed" });
    });
  });

  it.each<readonly [number, boolean, string]>([
    [1, false, "no_verdict"],
    [5, false, "warning"],
    [30, false, "failed"],
    [30, true, "passed"],
  ])("newest_verified: of %d hours ago, verified %s: %s", async (hours, isVerified, outcome) => {
    await rolledBack(postgres, async () => {
      await backup(hours, { verified: isVerified });
      expect(await made("newest_verified")).toMatchObject({ outcome });
    });
  });

  it("newest_verified: a share of its objects that was opened is not all of them", async () => {
    await rolledBack(postgres, async () => {
      const id = await backup(5, { verified: false, objects: [object(1)] });
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1)]);
      await postgres.query("select backup.record_opened($1, $2, 'first', $3)", [lease.task, lease.token, [object(1)]]);
      expect(await scalar(postgres, "select verified_at from backup.runs where id = $1", [id])).toBeNull();
      await make(lease, "newest_verified");
      expect(await resultOf(lease, "newest_verified")).toMatchObject({ outcome: "warning" });
    });
  });

  it("job_status: lists what failed in the last day", async () => {
    await rolledBack(postgres, async () => {
      await backup(5);
      await postgres.query(
        `insert into backup.runs (kind, status, origin, started_at, finished_at, error_code, error_message)
         values ('replicate', 'failed', 'http', now(), now(), 'store_unreachable', 'gone')`,
      );
      const { outcome, evidence } = await made("job_status");
      expect({ outcome, evidence }).toMatchObject({
        outcome: "warning",
        evidence: { bad: [{ kind: "replicate", code: "store_unreachable" }], runs: { full: { succeeded: 1 } } },
      });
    });
  });

  it("clock: something on record is newer than now", async () => {
    await rolledBack(postgres, async () => {
      await backup(0);
      await setClock(postgres, new Date(Date.now() - 3_600_000).toISOString());
      expect(await made("clock")).toMatchObject({ outcome: "failed", message: expect.stringContaining("moved back") });
    });
  });

  it("chain: a segment is missing inside, parts of one transaction follow each other, no stream is no verdict", async () => {
    await rolledBack(postgres, async () => {
      expect(await made("chain")).toMatchObject({ outcome: "no_verdict" });
    });
    await rolledBack(postgres, async () => {
      await postgres.query(
        `insert into backup.chains (id, slot_name, publications, start_lsn, system_identifier, database_name)
         values ('c1', 's', '{p}', '0/10', '1', 'postgres')`,
      );
      const { rows: [run] } = await postgres.query(
        "insert into backup.runs (kind, status, origin, started_at, finished_at) values ('incremental', 'succeeded', 'schedule', now(), now()) returning id",
      );
      for (const [from, to, part] of [[16, 32, 0], [32, 48, 0], [32, 48, 1], [32, 48, 2], [48, 64, 0], [64, 80, 0]]) {
        await postgres.query(
          `insert into backup.segments (chain_id, start_lsn, end_lsn, part, run_id, name, raw_bytes, stored_bytes, hash, stored_hash, epoch,
             transactions, changes, ddl, taken_at, ends_in_transaction)
           values ('c1', '0/0'::pg_lsn + $1, '0/0'::pg_lsn + $2, $3, $4, $5, 1, 1, 'h', 'h', 'e', 1, 1, 0, now(), $6)`,
          [from, to, part, run.id, `v1/changes/c1/${from}-${to}.${part}`, from === 32 && part !== 2],
        );
      }
      expect(await made("chain")).toMatchObject({ outcome: "passed", evidence: { segments: 6, holes: [] } });
      /** The segments in front of which something is missing, once this was done. */
      const holesAfter = async (sql: string) => {
        await postgres.query(`savepoint whole; ${sql}`);
        const { outcome, evidence } = await made("chain");
        await postgres.query("rollback to savepoint whole");
        const holes = evidence.holes as { segment: string }[];
        expect(outcome).toBe(holes.length === 0 ? "passed" : "failed");
        return holes.map(({ segment }) => segment.replace("v1/changes/c1/", ""));
      };
      const part = "delete from backup.segments where start_lsn = '0/20' and part =";
      expect(await holesAfter(`${part} 0`), "the first part").toEqual(["32-48.1"]);
      expect(await holesAfter(`${part} 1`), "a part in the middle").toEqual(["32-48.2"]);
      expect(await holesAfter(`${part} 2`), "the last part").toEqual(["48-64.0"]);
      // A part of another transaction, by its start or by its end, and the next segment where that ends.
      const moved = "update backup.segments set";
      expect(await holesAfter(`${moved} start_lsn = '0/28' where start_lsn = '0/20' and part > 0`)).toEqual([
        "32-48.1",
      ]);
      expect(
        await holesAfter(
          `${moved} end_lsn = '0/38' where start_lsn = '0/20' and part > 0; ${moved} start_lsn = '0/38' where start_lsn = '0/30'`,
        ),
      ).toEqual(["32-48.1"]);
      await postgres.query("delete from backup.segments where start_lsn = '0/30'");
      expect(await made("chain")).toMatchObject({
        outcome: "failed",
        evidence: { holes: [{ chain: "c1", from: "0/30", to: "0/40" }] },
      });
    });
  });

  it("logs_reviewed: lists what is unusual, and says what it cannot read", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `insert into backup.runs (kind, status, origin, started_at, finished_at, error_code, error_message)
         select 'replicate', 'failed', 'http', now(), now(), 'store_unreachable', 'gone' from generate_series(1, 3)`,
      );
      await postgres.query(
        `insert into backup.calls (nonce, function_name, status, expires_at, begun_at, ended_at)
         values ('0123456789abcdef', 'backup', 'lost', now(), now(), now())`,
      );
      const { outcome, evidence } = await made("logs_reviewed", "weekly");
      expect(outcome).toBe("warning");
      expect(evidence.anomalies).toEqual(expect.arrayContaining([
        expect.objectContaining({ what: "runs of kind replicate: store_unreachable", count: 3 }),
        expect.objectContaining({ what: "calls of backup: lost", count: 1 }),
      ]));
      expect(evidence.unread).toEqual([]);
      expect(JSON.stringify(evidence)).not.toContain("gone");
    });
  });

  it("logs_reviewed: counts the minutes without the watchdog, once a tenth of them is missing", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        "update backup.schedules set enabled_since = backup.clock_now() - interval '200 minutes' where name = 'watchdog'",
      );
      await postgres.query("delete from cron.job_run_details where command = 'select backup.tick()'");
      const ticks = (from: number, to: number) =>
        postgres.query(
          `insert into cron.job_run_details (jobid, runid, command, username, status, start_time, end_time)
           select 1, 800000 + n, 'select backup.tick()', current_user, 'succeeded', m, m
           from generate_series($1::integer, $2::integer) as n, lateral (select backup.clock_now() - n * interval '1 minute' as m) as x`,
          [from, to],
        );
      const missing = async () =>
        JSON.parse((await scalar(postgres, "select evidence::text from backup.prove_logs()")) ?? "{}").anomalies
          .filter(({ what }: { what: string }) => what === "cron: minutes without the watchdog");
      await ticks(1, 170);
      expect(await missing()).toMatchObject([{ count: 30 }]);
      await ticks(171, 185);
      expect(await missing()).toEqual([]);
    });
  });

  it("failures_documented: each failure once, with its row of the maintenance log where there is one", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `insert into backup.runs (kind, status, origin, started_at, finished_at, error_code, error_message)
         values ('prune', 'failed', 'http', now(), now(), 'store_unreachable', 'gone')`,
      );
      const hasLog = await scalar(
        postgres,
        "select to_regprocedure('backup.log_maintenance(text,text,text,text)') is not null",
      );
      const { outcome, evidence } = await made("failures_documented", "weekly");
      expect({ outcome, evidence }).toMatchObject({
        outcome: "passed",
        evidence: { failures: [{ kind: "prune", code: "store_unreachable" }], inMaintenanceLog: hasLog === "t" },
      });
      expect(evidence.failures[0].log !== null).toBe(hasLog === "t");
      expect((await made("failures_documented", "weekly")).evidence.failures).toEqual([]);
    });
  });
});
