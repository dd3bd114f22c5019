/** `replicate` as people run it, with two folders: what is missing, copying it, and what is told of it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { cli } from "./cli_fixture.ts";
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
  await ok(["incremental"]);
  await ok(["create"]);
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
    const { id } = await ok(["create"]);
    const completeOf = async () =>
      (await ok(["list"]) as unknown as { id: string; complete: boolean }[]).find((run) => run.id === id)?.complete;
    expect(await completeOf()).toBe(false);
    await ok(["incremental"]);
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
    await ok(["create"]);
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
    await ok(["create"]);
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
