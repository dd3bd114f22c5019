/** What the CLI tells of security: findings with an exit code, changes alone, and which keys opened a restore. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli } from "../integration/cli_fixture.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";

const cluster = useCluster({ platform: false });
const folder = mkdtempSync(join(tmpdir(), "holdfast-security-"));
let settings: Record<string, string>;
let backup: string;
const idOf = (entry: string) => entry.split(":")[0] ?? "";
const ask = (text: string, values: unknown[] = []) => query(cluster().plainUrl(), text, values);

async function ok(...args: string[]): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const fresh = async () => ((await cli(["keygen", "--json"], {})).document as { keys: string }).keys;

beforeAll(async () => {
  settings = {
    BACKUP_DB_URL: cluster().plainUrl(),
    BACKUP_KEYS: await fresh(),
    BACKUP_STORE: `file://${folder}/store`,
  };
  await ask("create table public.notes (id int primary key); insert into public.notes values (1)");
  await ok("init");
  backup = String((await ok("create"))["id"]);
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("audit security", () => {
  it("exits 0 where nothing is open, 3 with what is, and 0 again once it is mended", async () => {
    expect(await ok("audit", "security")).toEqual({ ok: true, findings: [] });
    await ask("create role stranger; grant select on backup.audit_log to stranger");
    const found = await cli(["audit", "security", "--json"], settings);
    expect(found).toMatchObject({
      exit: 3,
      document: {
        ok: false,
        findings: [{ kind: "grant_unexpected", subject: "relation backup.audit_log", severity: "critical" }],
      },
    });
    expect(found.stdout).toContain("stranger:select");
    expect((await cli(["status", "--json"], settings)).exit, "an alert").toBe(3);
    const told = await cli(["audit", "security"], settings);
    expect(told.stdout).toMatch(/^critical\s+grant_unexpected\s+relation backup\.audit_log/);
    await ask("revoke select on backup.audit_log from stranger");
    expect(await ok("audit", "security")).toEqual({ ok: true, findings: [] });
    const alerts = await ask("select status from backup.alerts where kind = 'security_finding'");
    expect(alerts).toEqual([{ status: "resolved" }]);
  }, 60_000);
});

describe("audit export --kind change", () => {
  it("holds what was set, with both values, and no run", async () => {
    await ask("update backup.settings set value = '3' where name = 'concurrency'");
    await ok("keys", "rotate");
    const rows = await ok("audit", "export", "--kind", "change") as unknown as {
      action: string;
      subject: string;
      actor: string;
      detail: { from?: { value: string }; to?: { value: string } };
    }[];
    const words = new Set(rows.map(({ action }) => action.split(".")[0]));
    expect([...words].filter((word) => ["run", "alert", "backup", "restore", "call"].includes(word ?? ""))).toEqual([]);
    expect(rows.find(({ subject }) => subject === "setting:concurrency")).toMatchObject({
      actor: "role:postgres",
      detail: { from: { value: "2" }, to: { value: "3" } },
    });
    expect(words).toContain("key");
    expect(words).toContain("install");
  }, 60_000);
});

describe("the keys that opened a restore", () => {
  const usedFor = async (restore: unknown) =>
    (await ask("select detail from backup.audit_log where action = 'key.used' and subject = $1", [
      `restore:${restore}`,
    ]))
      .map(({ detail }) => detail);

  it("stand in the audit by their ids, those that were only there do not", async () => {
    const used = idOf(settings["BACKUP_KEYS"] ?? "");
    const idle = await fresh();
    settings = { ...settings, BACKUP_KEYS: `${idle},${settings["BACKUP_KEYS"]}` };
    await ok("restore-table", "public.notes", backup);
    const [rows] = await ask("select id from backup.restores where scope = 'table'");
    expect(await usedFor(rows?.["id"])).toEqual([{ keys: [used] }]);

    await ask("create database elsewhere");
    const target = cluster().plainUrl("postgres", "elsewhere");
    await ok("restore-full", backup, "--target-db-url", target, "--yes");
    const [full] = await ask("select id from backup.restores where scope = 'full' and not target_is_here");
    expect(await usedFor(full?.["id"])).toEqual([{ keys: [used] }]);

    const done = await cli(
      [
        "restore-full",
        backup,
        "--apply",
        "replace",
        "--yes",
        "--skip-safety-backup",
        "postgres",
        "--without-maintenance",
        "--json",
      ],
      settings,
    );
    expect(done.exit, done.stdout + done.stderr).toBe(0);
    const [inPlace] = await ask("select id from backup.restores where mode = 'replace'");
    expect(await usedFor(inPlace?.["id"])).toEqual([{ keys: [used] }]);
    const log = JSON.stringify(await ask("select * from backup.audit_log"));
    for (const entry of settings["BACKUP_KEYS"]?.split(",") ?? []) expect(log).not.toContain(entry.split(":")[1]);
  }, 120_000);

  it("have been told to the security audit, which counts their age", async () => {
    const told = await ask("select subject from backup.told_facts order by first_told_at");
    expect(told.map(({ subject }) => subject)).toContain(`key:${idOf(settings["BACKUP_KEYS"]?.split(",")[1] ?? "")}`);
  });
});
