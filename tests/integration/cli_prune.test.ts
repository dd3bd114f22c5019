/** `retention` and `prune` as people run them, with a folder: the policy, a plan, a confirmation, and what is gone afterwards. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { cli, cliAtTerminal } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-prune-"));
let settings: Record<string, string> = {};
const taken: string[] = [];

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const ask = async (text: string, values: unknown[] = []) => await query(cluster().plainUrl(), text, values);
const manifests = () => readdirSync(join(folder, "v1/backups")).filter((name) => !name.startsWith("."));
/** Backups 0 and 1 are `days` and 20 days old. */
const age = async (id: string, days: number) =>
  await ask(
    `update backup.runs set created_at = now() - $2 * interval '1 day', started_at = now() - $2 * interval '1 day',
       finished_at = now() - $2 * interval '1 day', consistent_at = now() - $2 * interval '1 day' where id = $1`,
    [id, days],
  );

beforeAll(async () => {
  const { keys } = await ok(["keygen"], {});
  settings = {
    BACKUP_DB_URL: cluster().plainUrl(),
    BACKUP_KEYS: String(keys),
    BACKUP_STORE: `file://${folder}`,
  };
  await ok(["init"]);
  await ask("select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  for (let n = 0; n < 5; n++) taken.push(String((await ok(["create"]))["id"]));
}, 2 * clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("retention", () => {
  it("shows the policy, sets it, and refuses one that contradicts itself, as exit 2", async () => {
    expect(await ok(["retention"])).toMatchObject({ windowHours: 168, atLeast: 3, prunedAt: null, waiting: 0 });
    const { tiers } = await ok(["retention", "gfs", "--keep", "daily=10d", "--keep", "yearly=800d"]);
    const kept = Object.fromEntries(
      (tiers as { tier: string; keepHours: number }[]).map(({ tier, keepHours }) => [tier, keepHours / 24]),
    );
    expect(kept).toEqual({ hourly: 1, daily: 10, safety: 30, weekly: 35, manual: 90, monthly: 366, yearly: 800 });
    for (
      const [args, code] of [
        [["--keep", "daily=40d"], "policy_refused"],
        [["--keep", "daily=0"], "usage"],
        [["--keep", "daily"], "usage"],
        [["forever"], "usage"],
      ] as const
    ) {
      const { exit, document } = await cli(["retention", ...args, "--json"], settings);
      expect({ exit, document }).toMatchObject({ exit: 2, document: { error: { code } } });
    }
    const after = await ok(["retention", "standard"]);
    expect((after["tiers"] as { tier: string }[]).map(({ tier }) => tier)).not.toContain("monthly");
  }, 120_000);
});

describe("prune", () => {
  it("removes nothing before the newest backup is verified, and says so", async () => {
    await age(taken[0] ?? "", 200);
    await age(taken[1] ?? "", 20);
    const plan = await ok(["prune", "--dry-run"]);
    expect(plan).toMatchObject({ dryRun: true, remove: [], refused: expect.stringContaining("is not verified") });
    expect(await ok(["prune", "--yes"])).toMatchObject({ removed: 0, warnings: [{ code: "nothing_removed" }] });
    expect(manifests().length).toBe(5);
    await ok(["verify", "latest"]);
  }, 120_000);

  it("only plans unless it is confirmed", async () => {
    const object = `v1/backups/${manifests().find((name) => name.endsWith(taken[0] ?? "?"))}/manifest`;
    const plan = await ok(["prune", "--dry-run"]);
    expect(plan).toMatchObject({
      dryRun: true,
      refused: null,
      remove: [{ object, reason: "older than its tier manual keeps it (2160 h)" }],
    });
    expect((plan["keep"] as unknown[]).length).toBe(4);
    const unasked = await cli(["prune", "--json"], settings);
    expect(unasked).toMatchObject({
      exit: 2,
      document: { error: { code: "confirmation_missing" }, remove: [{ object }] },
    });
    expect(manifests().length).toBe(5);
  }, 120_000);

  it("removes what it planned once the word is typed at a terminal", async () => {
    const { exit, shown } = await cliAtTerminal(["prune"], settings, "prune");
    expect(exit, shown).toBe(0);
    expect(manifests().length).toBe(4);
    expect(manifests().some((name) => name.endsWith(taken[0] ?? "?"))).toBe(false);
    expect(await ok(["prune", "--yes"])).toMatchObject({ dryRun: false, remove: [], warnings: [] });
    expect(await ok(["retention"])).toMatchObject({ prunedAt: expect.any(String), waiting: 0 });
    expect(await ok(["verify", "latest"])).toMatchObject({ ok: true });
  }, 120_000);

  it("wants the second store that the database knows", async () => {
    await ask("select backup.tell_stores('file://x', 'file://y')");
    const { exit, document } = await cli(["prune", "--dry-run", "--json"], settings);
    expect({ exit, document }).toMatchObject({ exit: 2, document: { error: { code: "setting_missing" } } });
    await ask("select backup.tell_stores('file://x', null)");
  });
});
