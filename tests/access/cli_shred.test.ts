/** An epoch that is shredded opens for nobody; every other one, and the audit, stay whole. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli, type CliResult } from "../integration/cli_fixture.ts";
import { newEpoch } from "../../src/shared/crypto/epochs.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-shred-"));
let settings: Record<string, string>;
/** One of the first epoch, then two of the second. */
const backups: string[] = [];
let epochs: string[] = [];

const ask = (text: string, values: unknown[] = []) => query(cluster().plainUrl(), text, values);
const keyFile = (epoch: string, store = "store") => join(folder, store, "v1/keys", `${epoch}.jwe.json`);

async function run(...args: string[]): Promise<CliResult> {
  return await cli([...args, "--json"], settings);
}

async function ok(...args: string[]): Promise<Record<string, unknown>> {
  const result = await run(...args);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const code = ({ document }: CliResult) => (document as { error?: { code: string } }).error?.code;

async function actions(): Promise<string[]> {
  const rows = await ask("select action from backup.audit_log where subject ~ '^epoch:' order by id");
  return rows.map(({ action }) => String(action));
}

async function beginEpoch(): Promise<void> {
  const store = createFileStore(join(folder, "store"), { random: webCryptoRandom });
  const repository = await readRepository(store);
  const ring = parseKeyRing(settings["BACKUP_KEYS"]);
  // The id tells seconds: the next one has to sort behind.
  const clock = { ...systemClock, now: () => new Date(Date.now() + 60_000 * epochs.length) };
  await newEpoch({ store, ring, clock, random: webCryptoRandom }, repository?.id ?? "");
  epochs = readdirSync(join(folder, "store/v1/keys")).map((name) => name.replace(/\.jwe\.json$/, "")).sort();
}

beforeAll(async () => {
  const identity = await generateIdentity();
  const keys = ((await cli(["keygen", "--json"], {})).document as { keys: string }).keys;
  settings = {
    BACKUP_DB_URL: cluster().plainUrl(),
    BACKUP_KEYS: keys,
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_SECONDARY: `file://${folder}/second`,
    BACKUP_RECIPIENTS: await identityToRecipient(identity),
    BACKUP_IDENTITIES: identity,
  };
  await ask("create table public.notes (id int primary key); insert into public.notes values (1)");
  await ok("init");
  await ok("incremental");
  for (let time = 0; time < 2; time++) {
    backups.push(String((await ok("create"))["id"]));
    await ask("insert into public.notes select max(id) + 1 from public.notes");
    await ok("incremental");
    epochs = readdirSync(join(folder, "store/v1/keys")).map((name) => name.replace(/\.jwe\.json$/, "")).sort();
    if (time === 0) await beginEpoch();
  }
  // One of the second epoch with all that a replay reads before it, in segments of that epoch.
  for (let time = 0; time < 4; time++) {
    await ask("insert into public.notes select max(id) + 1 from public.notes");
    await ok("incremental");
  }
  backups.push(String((await ok("create"))["id"]));
  await ask("insert into public.notes select max(id) + 1 from public.notes");
  await ok("incremental");
  expect(epochs).toHaveLength(2);
  await ok("replicate");
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("keys shred", () => {
  const first = () => epochs[0] ?? "";
  const second = () => epochs[1] ?? "";

  it("never takes the newest epoch, nor one that is not there, nor anything without the database", async () => {
    for (const consent of [[], ["--with-backups", second(), "--yes"]]) {
      expect(code(await run("keys", "shred", second(), ...consent))).toBe("forbidden");
    }
    expect(code(await run("keys", "shred", "e20200101T000000Z-00000000", "--yes"))).toBe("object_missing");
    expect(code(await run("keys", "shred", "../repository", "--yes"))).toBe("usage");
    const { BACKUP_DB_URL: _none, ...alone } = settings;
    const without = await cli(["keys", "shred", first(), "--with-backups", first(), "--yes", "--json"], alone);
    expect(code(without)).toBe("setting_missing");
    expect(epochs.map((epoch) => existsSync(keyFile(epoch)))).toEqual([true, true]);
    expect(await actions()).toEqual([]);
  }, 60_000);

  it("shows what would become unreadable, and is refused while that is needed", async () => {
    const plan = await ok("keys", "shred", first(), "--dry-run");
    expect(plan).toMatchObject({ epoch: first(), done: false, backups: [{ id: backups[0], tier: "manual" }] });
    expect(plan["segments"]).toBeGreaterThan(0);
    expect(plan["anchors"]).toBeGreaterThan(0);
    // Taken right after the epoch began: a replay from it reads segments from before.
    expect(plan["moments"]).toEqual([backups[1]]);
    expect(code(await run("keys", "shred", first(), "--yes"))).toBe("epoch_needed");
    expect(code(await run("keys", "shred", first(), "--with-backups", second(), "--yes"))).toBe("confirmation_wrong");
    expect(code(await run("keys", "shred", first(), "--with-backups", first()))).toBe("confirmation_missing");
    expect(existsSync(keyFile(first()))).toBe(true);
    expect(await actions()).toEqual([]);
    await ok("verify", backups[0] ?? "");
  }, 60_000);

  it("is refused for a backup on hold, one that a restore needs, and while one is under way", async () => {
    const refused = async () => code(await run("keys", "shred", first(), "--with-backups", first(), "--yes"));
    await ask("select backup.hold_backup($1, 'court', now() + interval '1 day')", [backups[0]]);
    expect(await refused()).toBe("run_state");
    await ask("select backup.release_hold($1)", [backups[0]]);
    const facts = { scope: "table", mode: "beside", source_backup: backups[0], target_label: "here" };
    const [begun] = await ask("select id, token from backup.begin_restore($1)", [facts]);
    expect(await refused()).toBe("run_state");
    await ask("select backup.fail_restore($1, $2, '{}')", [begun?.["id"], begun?.["token"]]);
    const [underWay] = await ask("select run from backup.request_run('full', '{manual}', 'cli', null)");
    expect(await refused()).toBe("run_state");
    await ask("select backup.cancel_run($1)", [underWay?.["run"]]);
    const [copying] = await ask("select run from backup.request_copies('cli', false)");
    expect(await refused()).toBe("run_state");
    await ask("select backup.cancel_run($1)", [copying?.["run"]]);
    // The second store has the key file too: without it the epoch would open from there.
    const { BACKUP_SECONDARY: _none, ...alone } = settings;
    const half = await cli(["keys", "shred", first(), "--with-backups", first(), "--yes", "--json"], alone);
    expect(code(half)).toBe("setting_missing");
    expect(existsSync(keyFile(first(), "second"))).toBe(true);
    expect(existsSync(keyFile(first()))).toBe(true);
    expect(await actions()).toEqual([]);
  }, 120_000);

  it("makes it unreadable for ever, and nothing else", async () => {
    const kept = readFileSync(keyFile(second()));
    const done = await ok("keys", "shred", first(), "--with-backups", first(), "--yes");
    expect(done).toMatchObject({ done: true, backups: [{ id: backups[0] }] });
    expect(["store", "second"].map((store) => existsSync(keyFile(first(), store)))).toEqual([false, false]);
    expect(readFileSync(keyFile(second()))).toEqual(kept);
    expect(await actions()).toEqual(["key.shredding", "key.shredded"]);
    const [order] = await ask("select detail from backup.audit_log where action = 'key.shredding'");
    expect(order?.["detail"]).toMatchObject({ backups: [backups[0]] });

    expect(code(await run("verify", backups[0] ?? ""))).toBe("backup_not_found");
    // What is left of it opens with no key.
    const stranded = readdirSync(join(folder, "store/v1/objects"), { recursive: true }).length;
    expect(stranded).toBeGreaterThan(0);
    expect(await ok("keys", "list")).toMatchObject([{ epoch: second() }]);
    expect(await ok("keys", "check")).toMatchObject({ ok: true, backup: backups[2] });
    expect((await ok("list") as unknown as { id: string }[]).map(({ id }) => id)).not.toContain(backups[0]);
    await ok("verify", "latest");
    const timeline = await ok("timeline") as {
      fulls: { id: string; consistentAt: string }[];
      windows: { from: string }[];
    };
    expect(timeline.fulls.map(({ id }) => id)).toEqual([backups[1], backups[2]]);
    expect(timeline.windows.map(({ from }) => from)).toEqual([timeline.fulls[1]?.consistentAt]);
    await ok("verify", backups[1] ?? "");
    // Nothing of it is missed in the second store, and nothing of it comes back there.
    expect(await ok("replicate")).toMatchObject({ missing: 0 });
    expect(existsSync(keyFile(first(), "second"))).toBe(false);
    expect(code(await run("verify", backups[0] ?? "", "--store", "second"))).toBe("backup_not_found");
    await ok("verify", backups[1] ?? "", "--store", "second");
    expect(await ok("audit", "verify")).toMatchObject({ ok: true, tampered: [], rewound: [] });

    await ask("create database elsewhere");
    const target = cluster().plainUrl("postgres", "elsewhere");
    await ok("restore-point", "latest", "--target-db-url", target, "--yes");
    expect(await query(target, "select count(*)::int as rows from public.notes")).toEqual([{ rows: 8 }]);
    // The stream goes on as if nothing had been, also once the drain compares its chain with the store, and so do backups.
    await ask("update backup.drain set looked_at = looked_at - interval '1 day'");
    await ask("insert into public.notes values (100)");
    await ok("incremental");
    await ok("create");
    expect(await ask("select 1 from backup.gaps")).toEqual([]);
  }, 180_000);

  it("is over: a second time there is nothing, and one that died at its end is told to the audit", async () => {
    expect(code(await run("keys", "shred", first(), "--yes"))).toBe("object_missing");
    await ask("select backup.audit('key.shredding', $1, '{}')", [`epoch:${first()}`]);
    expect(await ok("keys", "shred", first(), "--yes")).toMatchObject({ done: true });
    expect(await actions()).toEqual(["key.shredding", "key.shredded", "key.shredding", "key.shredded"]);
  }, 60_000);

  it("goes on where it was killed between the store and its end", async () => {
    await beginEpoch();
    const [newest] = epochs.slice(-1);
    expect(code(await run("keys", "shred", newest ?? "", "--yes"))).toBe("forbidden");
    // Nothing was sealed with it: what stays is the newest.
    await beginEpoch();
    const unused = epochs.at(-2) ?? "";
    const bytes = readFileSync(keyFile(unused));
    expect(await ok("keys", "shred", unused, "--yes")).toMatchObject({ done: true, backups: [], segments: 0 });
    writeFileSync(keyFile(unused), bytes);
    expect(await ok("keys", "shred", unused, "--yes")).toMatchObject({ done: true });
    expect(existsSync(keyFile(unused))).toBe(false);
  }, 60_000);
});
