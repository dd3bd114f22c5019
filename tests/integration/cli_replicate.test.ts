/** `replicate` as people run it, with two folders: what is missing, copying it, and what is told of it. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { cli, startCli } from "./cli_fixture.ts";
import { differences } from "./replicate_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-replicate-"));
let identity = "";
let settings: Record<string, string> = {};

function objectsIn(store: string): Map<string, Uint8Array> {
  const root = join(folder, store);
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((file) => join(file.parentPath ?? file.path, file.name));
  // Claims say who writes to the first store, and stay there.
  const named = paths.map((path) => [path.slice(root.length + 1), path] as const)
    .filter(([name]) => !name.startsWith("v1/claims/"));
  return new Map(named.map(([name, path]) => [name, new Uint8Array(readFileSync(path))]));
}

/** Backs up into the first store, and leaves the second one as it is. */
const firstOnly = () => ({ ...settings, BACKUP_SECONDARY: "" });

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

beforeAll(async () => {
  const { keys } = await ok(["keygen"], {});
  identity = await generateIdentity();
  settings = {
    BACKUP_DB_URL: cluster().plainUrl(),
    BACKUP_KEYS: String(keys),
    BACKUP_STORE: `file://${folder}/first`,
    BACKUP_SECONDARY: `file://${folder}/second`,
    BACKUP_RECIPIENTS: await identityToRecipient(identity),
  };
  await query(
    cluster().plainUrl(),
    "create table public.notes as select i, md5(i::text) as t from generate_series(1, 3000) as i",
  );
  await ok(["init"]);
  await query(cluster().plainUrl(), "select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await ok(["incremental"], firstOnly());
  await ok(["create"], firstOnly());
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("replicate", () => {
  it("shows what is missing, with its size, and changes nothing", async () => {
    const shown = await ok(["replicate", "--dry-run"]);
    const first = objectsIn("first");
    expect(shown).toMatchObject({ copied: 0, missing: first.size });
    expect((shown["names"] as { name: string; bytes: number }[]).map(({ name, bytes }) => [name, bytes]).sort())
      .toEqual([...first].map(([name, bytes]) => [name, bytes.byteLength]).sort());
    expect(objectsIn("second").size).toBe(0);
    expect(await query(cluster().plainUrl(), "select from backup.copies")).toEqual([]);
  });

  it("copies it, tells so, and finds nothing the second time", async () => {
    const done = await ok(["replicate"]);
    expect(done).toMatchObject({ missing: 0, missingBytes: 0, warnings: [] });
    const [first, second] = [objectsIn("first"), objectsIn("second")];
    expect(done["copied"]).toBe(first.size);
    expect(done["bytes"]).toBe([...second.values()].reduce((sum, bytes) => sum + bytes.byteLength, 0));
    expect(await differences(first, second, identity)).toEqual([]);
    expect(await ok(["replicate"])).toMatchObject({ copied: 0, bytes: 0, missing: 0 });
    expect(await ok(["replicate", "--dry-run"])).toMatchObject({ missing: 0, names: [] });
    const list = await ok(["list"]) as unknown as { complete: boolean }[];
    expect(list.filter((run) => run.complete).length).toBeGreaterThan(0);
  });

  it("makes a later backup wait for it: list and status say what is lacking until it ran", async () => {
    const { id } = await ok(["create"], firstOnly());
    const completeOf = async () =>
      (await ok(["list"]) as unknown as { id: string; complete: boolean }[]).find((run) => run.id === id)?.complete;
    expect(await completeOf()).toBe(false);
    await ok(["incremental"], firstOnly());
    const lacking = await cli(["status", "--json"], settings);
    const { secondStore } = lacking.document as { secondStore: { objects: number; lagSeconds: number; store: string } };
    expect(secondStore.objects).toBeGreaterThan(0);
    expect(secondStore.store).toBe(`file://${folder}/second`);
    const spoken = await cli(["status"], settings);
    expect(spoken.stdout).toMatch(/second store: .* lacks \d+ objects/);
    await ok(["replicate"]);
    expect(await completeOf()).toBe(true);
    const { document } = await cli(["status", "--json"], settings);
    expect(document).toMatchObject({ secondStore: { objects: 0, lagSeconds: null } });
  });

  it("stops at the day's egress, and says what is missing", async () => {
    await query(
      cluster().plainUrl(),
      `create table public.noise as select i, (select string_agg(md5(random()::text || i || n), '') from generate_series(1, 400) as n) as t
         from generate_series(1, 300) as i;
       update backup.settings set value = '1' where name = 'egress_mb_per_day'`,
    );
    await ok(["create"], firstOnly());
    const short = await ok(["replicate"]);
    expect(short).toMatchObject({ warnings: [{ code: "egress_spent" }] });
    expect(short["missing"]).toBeGreaterThan(0);
    await query(cluster().plainUrl(), "update backup.settings set value = '0' where name = 'egress_mb_per_day'");
    await ok(["replicate"]);
    expect(await differences(objectsIn("first"), objectsIn("second"), identity)).toEqual([]);
  });

  it("refuses to go without a second store, recipients, or with another one than is known", async () => {
    const failure = async (more: Record<string, string>) => {
      const { exit, document } = await cli(["replicate", "--json"], { ...settings, ...more });
      return { exit, ...(document as { error: { code: string } }).error };
    };
    expect(await failure({ BACKUP_SECONDARY: "" })).toMatchObject({ exit: 2, code: "setting_missing" });
    expect(await failure({ BACKUP_RECIPIENTS: "" })).toMatchObject({ exit: 2, code: "setting_missing" });
    expect(await failure({ BACKUP_SECONDARY: `file://${folder}/third` })).toMatchObject({ exit: 1, code: "run_state" });
    expect(await failure({ BACKUP_STORE: "second" })).toMatchObject({ exit: 1, code: "store_read_only" });
  });

  it("fails by name where a copy of an original is damaged, and says which", async () => {
    await ok(["create"], firstOnly());
    const before = objectsIn("second");
    const fresh = [...objectsIn("first").keys()].find((name) => name.startsWith("v1/backups/") && !before.has(name)) ??
      "";
    const path = join(folder, "first", fresh);
    const whole = readFileSync(path);
    writeFileSync(path, whole.subarray(0, 200));
    const { exit, document } = await cli(["replicate", "--json"], settings);
    expect(exit).toBe(1);
    expect(document).toMatchObject({
      error: { code: "object_damaged", message: expect.stringContaining(fresh) as unknown },
    });
    writeFileSync(path, whole);
    await ok(["replicate"]);
    expect(await differences(objectsIn("first"), objectsIn("second"), identity)).toEqual([]);
  });
});

describe("a backup and a drain by this process", () => {
  const lacking = async () => (await ok(["replicate", "--dry-run"]))["missing"];
  const change = async () => {
    // A table without a key: its updates are not in the stream.
    await query(cluster().plainUrl(), "insert into public.notes select max(i) + 1, 'new' from public.notes");
  };

  it.each(["create", "incremental"])("%s: copies what is new, where a second store is set", async (command) => {
    await ok(["replicate"]);
    await change();
    const done = await ok([command]);
    expect(done).toMatchObject({ copies: { missing: 0, warnings: [] } });
    expect((done["copies"] as { copied: number }).copied).toBeGreaterThan(0);
    expect(await lacking()).toBe(0);
    expect(await differences(objectsIn("first"), objectsIn("second"), identity)).toEqual([]);
    await change();
    const spoken = await cli([command], settings);
    expect(spoken.exit, spoken.stderr).toBe(0);
    expect(spoken.stdout).toMatch(/were copied to the second store/);
    await change();
    expect(await ok([command], firstOnly())).toMatchObject({ copies: null });
    expect(await lacking()).toBeGreaterThan(0);
  });

  it("create: is as good as ever where the second store fails, with a warning that says why", async () => {
    await change();
    const away = join(folder, "away");
    renameSync(join(folder, "second"), away);
    try {
      const { exit, document, stderr } = await cli(["create", "--json"], settings);
      expect(exit, stderr).toBe(0);
      expect(document).toMatchObject({
        status: "succeeded",
        copies: { copied: 0, missing: null, warnings: [{ code: "not_copied" }] },
      });
      expect(stderr).toMatch(/warning: not_copied: store_missing/);
      const refused = await cli(["create", "--json"], { ...settings, BACKUP_RECIPIENTS: "nonsense" });
      expect(refused.exit).toBe(0);
      expect(refused.document).toMatchObject({ status: "succeeded", copies: { warnings: [{ code: "not_copied" }] } });
    } finally {
      renameSync(away, join(folder, "second"));
    }
    await query(cluster().plainUrl(), "update backup.tasks set not_before = null where not_before is not null");
    await ok(["replicate"]);
    expect(await lacking()).toBe(0);
  }, 120_000);

  it("into another store is not mixed with the copies of the first", async () => {
    const other = { ...settings, BACKUP_STORE: `file://${folder}/other` };
    mkdirSync(join(folder, "other"));
    const before = objectsIn("second");
    const result = await cli(["create", "--json"], other);
    expect(result.document, result.stderr).toMatchObject({ copies: null });
    expect(result.stderr).toMatch(/notice: the second store is that of file:.*first/);
    expect(objectsIn("second")).toEqual(before);
  });

  it("follow: copies what is new beside its drains", async () => {
    await ok(["replicate"]);
    const before = [...objectsIn("second").keys()].filter((name) => name.startsWith("v1/changes/"));
    await change();
    const run = startCli(["follow", "--interval", "1", "--json"], settings);
    try {
      await vi.waitFor(() => {
        const now = [...objectsIn("second").keys()].filter((name) => name.startsWith("v1/changes/"));
        expect(now.length).toBeGreaterThan(before.length);
      }, { timeout: 100_000, interval: 500 });
    } finally {
      run.signal("SIGINT");
    }
    const { exit, stderr } = await run.result;
    expect(exit, stderr).toBe(0);
    expect(stderr).not.toContain("warning");
  }, 150_000);
});
