import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

/** A finished backup, in a state that finish_run makes. */
async function backupRow(status: "succeeded" | "quarantined"): Promise<string> {
  return await scalar(
    postgres,
    `insert into backup.runs (kind, tiers, origin, status, created_at, started_at, finished_at, manifest_name, manifest_hash, quarantine_reason)
     values ('full', '{daily}', 'schedule', $1, now() - interval '1 hour', now() - interval '1 hour', now(), 'm', 'h',
       case when $1 = 'quarantined' then 'empty' end)
     returning id`,
    [status],
  ) ?? "";
}

describe("docs/dashboard.md", () => {
  const page = readFileSync(fileURLToPath(new URL("../../docs/dashboard.md", import.meta.url)), "utf8");
  const blocks = [...page.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, sql = ""]) => sql);

  it("shows nothing that the role postgres cannot run as it stands", async () => {
    expect(await scalar(postgres, "select current_user")).toBe("postgres");
    expect(blocks.length).toBeGreaterThan(10);
    await rolledBack(postgres, async () => {
      await backupRow("succeeded");
      await backupRow("quarantined");
      await postgres.query("select backup.raise_alert('run_missed', 'schedule:daily', 'message')");
      await postgres.query("insert into auth.users (id) values ('00000000-0000-4000-8000-000000000001')");
      for (const sql of blocks) expect(await sqlstate(postgres, sql), sql).toBe("none");
      const { rows } = await postgres.query(
        `select
           (select count(*) from backup.runs where status = 'quarantined') as quarantined,
           (select count(*) from backup.runs where hold_until is not null) as held,
           (select count(*) from backup.runs where kind = 'verify' and subject_run is not null) as verifications,
           (select status from backup.alerts where kind = 'run_missed') as alert,
           (select schedule from cron.job where jobname = 'holdfast-daily') as daily`,
      );
      const expected = { quarantined: "0", held: "0", verifications: "1", alert: "acknowledged", daily: "30 2 * * *" };
      expect(rows).toEqual([expected]);
    });
  });
});

describe("start_backup", () => {
  it("starts a run of tier manual and joins it when it is called again", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const { rows: [first] } = await postgres.query("select * from backup.start_backup()");
      expect(first).toMatchObject({ joined: "f", status: "queued" });
      const { rows: [second] } = await postgres.query("select * from backup.start_backup('weekly')");
      expect(second).toMatchObject({ run: first.run, joined: "t" });
      expect(second.message).toContain("joined");
      expect(await scalar(postgres, "select tiers from backup.runs")).toBe("{manual,weekly}");
      expect(await scalar(postgres, "select count(*) from backup.calls where run_id = $1", [first.run])).toBe("1");
    });
  });

  it("says at once what is missing, and records the failed run", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("delete from vault.secrets");
      const { rows: [answer] } = await postgres.query("select * from backup.start_backup()");
      expect(answer).toMatchObject({ status: "failed" });
      expect(answer.message).toContain("vault.create_secret");
      expect(await scalar(postgres, "select error_code from backup.runs where id = $1", [answer.run])).toBe(
        "setting_missing",
      );
    });
  });

  it("refuses a tier that no full backup has", async () => {
    await rolledBack(postgres, async () => {
      for (const tier of ["hourly", "Manual", "", null]) {
        expect(await sqlstate(postgres, "select backup.start_backup($1)", [tier])).toBe("HF003");
      }
    });
  });
});

describe("verify_backup", () => {
  it("starts one verification of a backup at a time, with a leg of the function verify", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const backup = await backupRow("succeeded");
      const { rows: [first] } = await postgres.query("select * from backup.verify_backup($1)", [backup]);
      const { rows: [second] } = await postgres.query("select * from backup.verify_backup($1)", [backup]);
      expect([first.joined, second.joined, second.run]).toEqual(["f", "t", first.run]);
      expect(await scalar(postgres, "select function_name from backup.calls where run_id = $1", [first.run])).toBe(
        "verify",
      );
    });
  });

  it("refuses what is no backup", async () => {
    await rolledBack(postgres, async () => {
      const running = await scalar(
        postgres,
        "select run from backup.request_run('full', '{manual}', 'dashboard', null)",
      );
      for (const id of [running, "00000000-0000-4000-8000-000000000000", null]) {
        expect(await sqlstate(postgres, "select backup.verify_backup($1)", [id])).toBe("HF303");
      }
    });
  });

  it("goes on from leg to leg, and ends with the backup verified", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const backup = await backupRow("succeeded");
      const run = await scalar(postgres, "select run from backup.verify_backup($1)", [backup]);
      const claim = "select id, token, detail from backup.claim_task($1, 'worker', interval '1 minute')";
      const record = "select backup.record_verify_leg($1, $2, $3)";
      const { rows: [first] } = await postgres.query(claim, [run]);
      const leg = { next: 3, objects: 3, problems: [] };
      expect(await scalar(postgres, record, [first.id, first.token, JSON.stringify(leg)])).toBe("t");
      expect(await sqlstate(postgres, record, [first.id, first.token, JSON.stringify(leg)])).toBe("HF413");
      const { rows: [second] } = await postgres.query(claim, [run]);
      expect(JSON.parse(second.detail)).toEqual({ next: 3, legs: [leg] });
      const last = { next: null, objects: 1, problems: [] };
      expect(await scalar(postgres, record, [second.id, second.token, JSON.stringify(last)])).toBe("f");
      expect(await scalar(postgres, "select status from backup.runs where id = $1", [run])).toBe("succeeded");
      expect(await scalar(postgres, "select verified_at from backup.runs where id = $1", [backup])).not.toBeNull();
    });
  });

  it("raises an alert for a backup with a damaged object, found in whichever leg", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const backup = await backupRow("succeeded");
      const run = await scalar(postgres, "select run from backup.verify_backup($1)", [backup]);
      const claim = "select id, token from backup.claim_task($1, 'worker', interval '1 minute')";
      const problem = { object: "v1/objects/aa/aa", code: "object_damaged", message: "x" };
      for (const leg of [{ next: 1, problems: [problem] }, { next: null, problems: [] }]) {
        const { rows: [task] } = await postgres.query(claim, [run]);
        await postgres.query("select backup.record_verify_leg($1, $2, $3)", [task.id, task.token, JSON.stringify(leg)]);
      }
      expect(await scalar(postgres, "select verified_at from backup.runs where id = $1", [backup])).toBeNull();
      const alert =
        "select message from backup.alerts where kind = 'backup_damaged' and subject = $1 and status = 'open'";
      expect(await scalar(postgres, alert, [`run:${backup}`])).toContain("1 problems");
    });
  });
});
