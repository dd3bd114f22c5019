/** An installation takes a moment, and pg_cron goes on meanwhile: a job that began between two migrations would find half of what it calls. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { startCluster } from "../../src/local/postgres.ts";
import { fillVault, scalar, session } from "./cluster.ts";

const folder = fileURLToPath(new URL("../../supabase/migrations/", import.meta.url));

describe("an installation", () => {
  it("makes its jobs last, each of which goes through at once, and alarms nobody", async () => {
    const cluster = await startCluster({ version: 15, platform: true, durable: false });
    const postgres = await session(cluster);
    try {
      // With address and secret in Vault beforehand, functions are called from the first minute on.
      await fillVault(postgres);
      const files = readdirSync(folder).filter((name) => name.endsWith(".sql")).sort();
      for (const [index, file] of files.entries()) {
        await postgres.query(`begin; ${readFileSync(`${folder}${file}`, "utf8")}; commit`);
        const jobs = await scalar(postgres, "select count(*) from cron.job where jobname like 'holdfast-%'");
        const wanted = index < files.length - 1
          ? "0"
          : await scalar(postgres, "select count(*) from backup.schedules where enabled");
        expect(`${file}: ${jobs}`).toBe(`${file}: ${wanted}`);
      }
      const { rows } = await postgres.query<{ command: string }>(
        "select command from cron.job where jobname like 'holdfast-%' and command not like '%run_schedule%' order by 1",
      );
      expect(rows.length).toBeGreaterThanOrEqual(11);
      // The audit of a fresh install has findings, which are meant.
      const called = rows.filter(({ command }) => command !== "select backup.audit_security()");
      for (const { command } of [...called, { command: "select backup.look()" }]) await postgres.query(command);
      expect(
        (await postgres.query("select kind, subject, message from backup.alerts where severity <> 'information'")).rows,
      ).toEqual([]);
    } finally {
      await postgres.end();
      await cluster.destroy();
    }
  }, 120_000);
});
