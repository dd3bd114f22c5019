/** The runbook of retention, followed command by command: a wrong policy is put right, a hold holds, a removed backup comes back. */
import { randomBytes } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { Followed, preparePlace, shell } from "./runbook_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-runbook-retention-"));
const placeholder = "1b9d1b9d-0000-4000-8000-000000000000";
let settings: Record<string, string> = {};
let page: Followed;
/** Oldest first. */
const taken: string[] = [];
let held = "";

const live = (text: string, values: readonly unknown[] = []) => query(cluster().plainUrl("postgres"), text, values);
const manifests = () => readdirSync(join(folder, "store/v1/backups")).filter((name) => !name.startsWith("."));
const manifestOf = (id: string) => manifests().find((name) => name.endsWith(id)) ?? "";

async function ok(text: string): Promise<string> {
  const { exit, stdout, stderr } = await shell({ folder }, text, settings);
  expect(exit, stdout + stderr).toBe(0);
  return stdout;
}

beforeAll(async () => {
  preparePlace(folder);
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  await live(
    "create table public.notes (id int primary key, t text); insert into public.notes values (1, 'as it was')",
  );
  await ok("npm run -s backup:init");
  await live("select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  for (let n = 0; n < 4; n++) {
    const { id } = JSON.parse(await ok("npm run -s backup:create -- --tier daily --json")) as { id: string };
    taken.push(id);
    await live("update public.notes set t = $1", [`later ${n}`]);
  }
  // Two are older than their tier keeps them; two midnights of the last days have none.
  for (const [index, days] of [[0, 60], [1, 50], [2, 2.5]] as const) {
    await live(
      `update backup.runs set created_at = created_at - $2 * interval '1 day', started_at = started_at - $2 * interval '1 day',
         finished_at = finished_at - $2 * interval '1 day', consistent_at = consistent_at - $2 * interval '1 day' where id = $1`,
      [taken[index], days],
    );
  }
  await live("update backup.settings set value = '1' where name = 'keep_at_least'");
  await live("update backup.schedules set enabled_since = now() - interval '5 days' where name = 'daily'");
  held = taken[1] ?? "";
  page = new Followed(
    { folder, sql: (text) => live(text.replaceAll(placeholder, held)) },
    "retention.md",
    settings,
  );
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the runbook retention", () => {
  it("shows what is missing and what should be gone, and follows the policy again", async () => {
    const shown = await page.follow("Decide");
    expect(shown).toMatch(/daily +30 d +4 there/);
    expect(shown).toMatch(/missing, due at \d{4}-/);
    expect(shown).toMatch(/2 should be gone/);
    expect(shown).toMatch(/nothing is removed: the newest backup, [0-9a-f-]{36}, is not verified/);
    held = taken[1] ?? "";
    // Asked for before anybody prunes; the page has it further below.
    await live("select backup.hold_backup($1, 'case 17', now() + interval '1 year')", [held]);
    cpSync(join(folder, "store"), join(folder, "before"), { recursive: true });
    await page.follow("A tier is not followed");
    expect(manifestOf(taken[0] ?? "?")).toBe("");
    expect(manifestOf(held)).not.toBe("");
  }, 120_000);

  it("tells a store's size, keeps less, and undoes what was set wrongly, with every change in the audit", async () => {
    await page.follow("A store fills");
    expect(await live("select keep::text from backup.policies where tier = 'daily'")).toEqual([{ keep: "7 days" }]);
    const output = await page.follow("A wrong policy was set");
    expect(output).toContain("retention.set");
    expect(await live("select keep::text from backup.policies where tier = 'daily'")).toEqual([{ keep: "720:00:00" }]);
    expect(await live("select paused_until from backup.schedules where name = 'retention'")).toEqual([{
      paused_until: null,
    }]);
  }, 120_000);

  it("holds what a case needs", async () => {
    await live("select backup.release_hold($1)", [held]);
    expect(await page.follow("A hold")).toContain(held);
    await ok("npm run -s backup:prune -- --yes");
    expect(manifestOf(held)).not.toBe("");
  }, 120_000);

  it("brings back what a prune removed, while its objects are there", async () => {
    const removed = taken[0] ?? "";
    expect(await page.follow("It was removed, and is wanted", 1)).toContain("retention");
    expect(await page.follow("It was removed, and is wanted", 1)).toContain(removed);
    // The provider's older state of the bucket: the manifest alone is put back.
    const name = readdirSync(join(folder, "before/v1/backups")).find((one) => one.endsWith(removed)) ?? "?";
    expect(existsSync(join(folder, "store/v1/backups", name))).toBe(false);
    cpSync(join(folder, "before/v1/backups", name), join(folder, "store/v1/backups", name), { recursive: true });
    const empty = await freshDatabase(cluster());
    const { BACKUP_DB_URL: database = "" } = page.settings;
    delete page.settings["BACKUP_DB_URL"];
    Object.assign(page.settings, { REMOVED: removed, EMPTY: cluster().url("postgres", empty) });
    await page.follow("It was removed, and is wanted", 2);
    expect(await query(cluster().plainUrl("postgres", empty), "select t from public.notes")).toEqual([{
      t: "as it was",
    }]);
    page.settings["BACKUP_DB_URL"] = database;
    await page.follow("It was removed, and is wanted");
    await page.follow("Check");
    page.end();
  }, 120_000);
});
