/** The verdict, its reasons and the recovery point, as everybody is told them. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, scalar, session, setClock } from "./cluster.ts";
import { addBackup, at, look, slotOf, wellWorld } from "./monitor_fixture.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

interface Status {
  readonly verdict: string;
  readonly line: string;
  readonly reasons: readonly string[];
  readonly recoveryPointSeconds: number | null;
  readonly lastBackupAt: string | null;
  readonly stream: Readonly<Record<string, unknown>> | null;
}

const status = async (also: unknown = []): Promise<Status> =>
  JSON.parse(await scalar(postgres, "select backup.status($1)", [JSON.stringify(also)]) ?? "");
const run = async (sql: string, values: readonly unknown[] = []) => void await postgres.query(sql, [...values]);

/** The newest backup is so many hours old; null: there is none. */
async function backupOf(hours: number | null): Promise<void> {
  await run("delete from backup.runs");
  if (hours !== null) await addBackup(postgres, -60 * hours);
}

describe("the verdict", () => {
  it.each([
    ["ok", 1, "0 0 * * *"],
    ["ok", 25.9, "0 0 * * *"],
    ["warning", 26.1, "0 0 * * *"],
    ["warning", 49.9, "0 0 * * *"],
    ["critical", 50.1, "0 0 * * *"],
    ["critical", null, "0 0 * * *"],
    // A week apart.
    ["ok", 100, null],
    ["warning", 171, null],
    ["critical", 339, null],
  ])("is %s where the newest backup is %s h old and the daily schedule is %s", async (verdict, hours, daily) => {
    await wellWorld(postgres, async () => {
      if (daily === null) {
        await run("update backup.schedules set enabled = false, applied_cron = null where name = 'daily'");
      }
      await backupOf(hours);
      const told = await status();
      expect(told.verdict, told.line).toBe(verdict);
      expect(told.reasons).toHaveLength(verdict === "ok" ? 0 : 1);
    });
  });

  it("expects one a day where nothing is scheduled", async () => {
    await wellWorld(postgres, async () => {
      await run("update backup.schedules set enabled = false, applied_cron = null where kind = 'full'");
      await backupOf(27);
      expect((await status()).verdict).toBe("warning");
    });
  });

  it("is the gravest of alerts, conditions and what the caller sees, its line the gravest reason with a count", async () => {
    await wellWorld(postgres, async () => {
      expect(await status([{ severity: "warning", message: "only one store is configured" }])).toMatchObject({
        verdict: "warning",
        line: "warning: only one store is configured",
        reasons: ["only one store is configured"],
      });
      await run("select backup.raise_alert('retention_not_followed', 'retention', 'nobody prunes', 'warning')");
      await run("select backup.raise_alert('backup_damaged', 'run:1', e'verifying\\nfound 2 problems')");
      const told = await status([{ severity: "warning", message: "only one store is configured" }]);
      expect(told).toMatchObject({
        verdict: "critical",
        line: "critical: backup_damaged: verifying found 2 problems (and 2 more)",
        reasons: [
          "backup_damaged: verifying\nfound 2 problems",
          "retention_not_followed: nobody prunes",
          "only one store is configured",
        ],
      });
      await run("select backup.acknowledge_alert(id) from backup.alerts where kind = 'backup_damaged'");
      expect((await status()).verdict, "seen is not mended").toBe("critical");
    });
  });

  it("says once what is both a condition and an alert, and at once that it is mended", async () => {
    await wellWorld(postgres, async () => {
      await backupOf(60);
      await look(postgres);
      expect((await status()).reasons).toEqual(["the newest backup is older than two intervals"]);
      await addBackup(postgres, -10);
      expect(await status()).toMatchObject({ verdict: "ok", reasons: [] });
    });
  });
});

describe("the change stream in the status", () => {
  /** An open chain, as a drain left it. Its slot is not there. */
  const chain = async ({ lag = 40, hasFull = true, failure = null as string | null } = {}) => {
    await run(
      `insert into backup.chains (id, slot_name, publications, start_lsn, started_at, system_identifier, database_name)
       values ('0a1b2c3d', 'no_slot', '{}', '0/1', $1, 'x', 'x')`,
      [at(-6000)],
    );
    await run("update backup.drain set drained_at = $1, failed_at = $2, failure = $3", [
      at(-lag / 60),
      failure === null ? null : at(-1),
      failure,
    ]);
    if (hasFull) await run("update backup.runs set chain_id = '0a1b2c3d', wal_lsn = '0/2' where kind = 'full'");
  };
  const gone = "the slot of the change stream is gone";

  it.each([
    ["nothing but that the slot is gone, which no test has", {}, []],
    ["a drain that is late", { lag: 301 }, ["the change stream was last drained to its end 5 min 1 s ago"]],
    [
      "a chain without a full backup",
      { hasFull: false },
      ["nothing of the change stream can be restored: no full backup is on chain 0a1b2c3d yet"],
    ],
    [
      "a drain that failed",
      { failure: "store_unreachable: the store does not answer" },
      ["the last drain of the change stream failed: store_unreachable: the store does not answer"],
    ],
  ])("has a warning for %s", async (_what, facts, reasons) => {
    await wellWorld(postgres, async () => {
      await chain(facts);
      const told = await status();
      expect(told.verdict).toBe("warning");
      expect(told.reasons).toEqual([...reasons, gone]);
    });
  });

  it("has a warning for a slot that holds back half of its limit, with both positions told apart", async () => {
    await wellWorld(postgres, async () => {
      await chain();
      await slotOf(postgres, "0a1b2c3d", 500_001);
      const told = await status();
      expect(told.reasons).toEqual([
        expect.stringMatching(/^the slot holds back 488\.3 KiB of WAL; at 976\.6 KiB it is given up/),
      ]);
      expect(told.stream).toMatchObject({ restartLsn: "0/100", retainedBytes: 500_001, undrainedBytes: 0 });
    });
  });

  it("has a warning for one that ended, where none was begun after it", async () => {
    await wellWorld(postgres, async () => {
      await chain();
      await run("select backup.end_chain('0a1b2c3d', 'the slot is gone')");
      expect((await status()).reasons).toContainEqual(
        expect.stringMatching(/^the change stream ended at \d{4}-.*Z \(the slot is gone\): drain again/),
      );
    });
  });

  it.each([
    ["the full's without a stream", 3_600, null],
    ["the stream's where a full is on its chain", 40, {}],
    ["the full's while the chain has none", 3_600, { hasFull: false }],
    ["the full's while the stream is behind it", 3_600, { lag: 9_000 }],
  ])("leaves %s as the recovery point", async (_what, seconds, facts) => {
    await wellWorld(postgres, async () => {
      if (facts !== null) await chain(facts);
      expect((await status()).recoveryPointSeconds).toBe(seconds);
    });
  });

  it("leaves the last moment before what cannot be replayed as the recovery point, and none without a backup", async () => {
    await wellWorld(postgres, async () => {
      await chain();
      await run(
        "insert into backup.obstacles (chain_id, lsn, at, what, why) values ('0a1b2c3d', '0/9', $1, 'w', 'y')",
        [at(-15)],
      );
      expect((await status()).recoveryPointSeconds).toBe(900);
      await backupOf(null);
      expect((await status()).recoveryPointSeconds).toBeNull();
    });
  });
});

describe("public.backup_status", () => {
  const view = async () =>
    (await postgres.query<{ verdict: string; line: string; reasons: string }>(
      "select verdict, line, reasons::text from public.backup_status",
    )).rows[0];

  it("shows what the last look found, with what a function told within the hour", async () => {
    await wellWorld(postgres, async () => {
      // the view asks the server's own clock, by which this look is years ahead
      await postgres.query("select backup.look($1)", [JSON.stringify([{ severity: "warning", message: "one store" }])]);
      expect(await view()).toEqual({ verdict: "warning", line: "warning: one store", reasons: '["one store"]' });
      const goTo = async (minutes: number) => {
        await setClock(postgres, at(minutes));
        await run("update backup.pulse set ticked_at = $1", [at(minutes)]);
        await run("update backup.job_runs set started_at = $1", [at(minutes)]);
        await look(postgres);
      };
      await goTo(30);
      expect((await view())?.line, "kept from look to look").toBe("warning: one store");
      await goTo(61);
      expect((await view())?.verdict).toBe("ok");
    });
  });

  it("is critical where nobody has looked for a quarter of an hour", async () => {
    await wellWorld(postgres, async () => {
      await look(postgres);
      await run("update backup.standing set checked_at = clock_timestamp() - interval '16 minutes'");
      expect(await view()).toMatchObject({
        verdict: "critical",
        line: expect.stringMatching(/^critical: nobody has looked .*; the last time: ok: /) as string,
      });
    });
  });
});
