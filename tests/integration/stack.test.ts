/** A whole project with the sample app: what its functions use, and who asks for a backup twice. */
import { describe, expect, it } from "vitest";
import { hostedLimits } from "../../src/local/gateway/limits.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { useProject } from "../support/stack.ts";

const mib = 1024 * 1024;
/**
 * What a leg may use: far enough below the platform's limits that a slower machine stays within them too. Memory is
 * resident, of the whole process, runtime included; 170 to 216 MiB were seen.
 */
const leg = { cpuMs: 1_000, peakBytes: 230 * mib };
const integers = 3_000_000;

let sampleRows = 0;
// Installed by `supabase db push` here, as on a hosted project.
const project = useProject({ prepared: false }, async ({ query, stack: { cluster, gateway } }) => {
  const app = await loadSampleApp({
    owner: { connectionString: cluster.plainUrl() },
    admin: { connectionString: cluster.plainUrl(cluster.superuser) },
    gateway: { url: gateway.url, anonKey: gateway.anonKey },
  });
  sampleRows = Object.values(app.rows).reduce((sum, rows) => sum + rows, 0);
  await query(`create table public.integers as select i from generate_series(1, ${integers}) as i`);
});

describe("a backup of the sample app and of a table of one integer column", () => {
  let run = "";

  it("that is asked for twice at once is one run, and each is told", async () => {
    const asked = await Promise.all([project().startBackup(), project().startBackup()]);
    expect(new Set(asked.map((each) => each.run)).size).toBe(1);
    expect(asked.map((each) => each.joined).sort()).toEqual([false, true]);
    run = asked[0]?.run ?? "";
    const third = await project().startBackup();
    expect(third).toMatchObject({ run, joined: true });
    const ended = await project().ended(run);
    expect(ended, await project().story(run)).toMatchObject({ status: "succeeded", attempt: 1 });
    expect(Number(ended.rows)).toBeGreaterThanOrEqual(sampleRows + integers);
    expect(sampleRows).toBeGreaterThan(200_000);
    expect(await project().query("select count(*)::int as runs from backup.runs")).toEqual([{ runs: 1 }]);
  });

  it("stays within the platform's limits in every isolate, and within ours in every leg", async () => {
    const isolates = await project().isolates();
    const working = isolates.filter((isolate) => isolate.function === "backup");
    expect(working.length).toBeGreaterThan(1);
    expect(working.filter((isolate) => !["retired", "idle", null].includes(isolate.endedBy))).toEqual([]);
    for (const isolate of working) {
      expect(isolate.cpuMs).toBeLessThan(hostedLimits.cpuHardMs);
      expect(isolate.peakBytes).toBeLessThan(hostedLimits.memoryBytes);
      for (const use of isolate.uses) {
        expect(use.cpuMs).toBeLessThan(leg.cpuMs);
        expect(use.peakBytes).toBeLessThan(leg.peakBytes);
      }
    }
    const cpuMs = Math.max(...working.flatMap((isolate) => isolate.uses.map((use) => use.cpuMs)));
    expect(cpuMs, "the figures are figures").toBeGreaterThan(50);
  });

  it("is sound, object by object", async () => {
    const { rows } = await project().run(run);
    expect(await project().verify(run)).toMatchObject({ ok: true, problems: [], rows: Number(rows) });
  });
});
