/** Shredding where a copy of the database writes below the same store: each has keys of its own, and lets the other's be. */
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli, type CliResult } from "../integration/cli_fixture.ts";
import { newEpoch } from "../../src/shared/crypto/epochs.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-shred-copies-"));
type Settings = Record<string, string>;
let original: Settings = {};
let copy: Settings = {};
let prefix = "";
/** Of the first epochs. */
let theirs = "";
let own = "";

const code = ({ document }: CliResult) => (document as { error?: { code: string } }).error?.code;
const keyFolder = (place: string) => join(folder, "store", place, "v1/keys");
const keyFile = (place: string, epoch: string) => join(keyFolder(place), `${epoch}.jwe.json`);
const epochsAt = (place: string) =>
  readdirSync(keyFolder(place)).map((name) => name.replace(/\.jwe\.json$/, "")).sort();
const at = (settings: Settings, place: string): Settings => ({
  ...settings,
  BACKUP_STORE: `${settings["BACKUP_STORE"]}/${place}`,
});
const shred = (settings: Settings, epoch: string, ...more: string[]) =>
  cli(["keys", "shred", epoch, ...more, "--json"], settings);
const gone = (settings: Settings, epoch: string) => shred(settings, epoch, "--with-backups", epoch, "--yes");

async function ok(settings: Settings, ...args: string[]): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

/** A newer one than the first, by which that may go. */
async function beginEpoch(place: string): Promise<void> {
  const store = createFileStore(join(folder, "store", place), { random: webCryptoRandom });
  const repository = await readRepository(store);
  const ring = parseKeyRing(original["BACKUP_KEYS"]);
  const clock = { ...systemClock, now: () => new Date(Date.now() + 60_000) };
  await newEpoch({ store, ring, clock, random: webCryptoRandom }, repository?.id ?? "");
}

beforeAll(async () => {
  const keys = ((await cli(["keygen", "--json"], {})).document as { keys: string }).keys;
  const name = await freshDatabase(cluster());
  const settings = (database: string) => ({
    BACKUP_DB_URL: cluster().plainUrl("postgres", database),
    BACKUP_KEYS: keys,
    BACKUP_STORE: `file://${folder}/store`,
  });
  [original, copy] = [settings(name), settings(`${name}_copy`)];
  await ok(original, "init");
  await query(cluster().plainUrl("postgres", name), "create table public.notes (id int primary key)");
  await ok(original, "create");
  const admin = cluster().plainUrl(cluster().superuser);
  await query(admin, `create database ${name}_copy template ${name}`);
  await query(admin, `alter database ${name}_copy owner to postgres`);
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("keys shred, of a database and its copy", () => {
  it(
    "is refused to a copy that nobody has noticed yet: what needs the keys at the top only the original knows",
    async () => {
      [theirs = ""] = epochsAt("");
      await beginEpoch("");
      expect(code(await gone(copy, theirs))).toBe("forbidden");
      await ok(copy, "create");
      [prefix = ""] = readdirSync(join(folder, "store")).filter((name) => name.startsWith("clone-"));
      expect(prefix).toMatch(/^clone-[0-9a-f]{8}$/);
      [own = ""] = epochsAt(prefix);
      await beginEpoch(prefix);
    },
    120_000,
  );

  it(
    "takes a copy's own epochs only, whose keys lie below its prefix, and not those of the place of another",
    async () => {
      expect(code(await gone(copy, theirs)), "it is not below the copy's prefix").toBe("object_missing");
      expect(code(await gone(original, own)), "it is not at the top").toBe("object_missing");
      expect(code(await gone(at(original, prefix), own)), "the address names the copy's place").toBe("forbidden");
      expect([existsSync(keyFile("", theirs)), existsSync(keyFile(prefix, own))]).toEqual([true, true]);
      const done = await gone(copy, own);
      expect(done, done.stderr).toMatchObject({ exit: 0, document: { done: true, copies: [] } });
      expect([existsSync(keyFile("", theirs)), existsSync(keyFile(prefix, own))]).toEqual([true, false]);
      await ok(original, "verify", "latest");
      await ok(copy, "create");
      await ok(at(copy, prefix), "verify", "latest");
    },
    120_000,
  );

  it("is refused while another place has the same key file, by which the epoch would open for ever", async () => {
    copyFileSync(keyFile("", theirs), keyFile(prefix, theirs));
    for (const more of [["--dry-run"], ["--with-backups", theirs, "--yes"]]) {
      const refused = await shred(original, theirs, ...more);
      expect(code(refused)).toBe("epoch_needed");
      expect(refused.stdout).toContain(`${prefix}/v1/keys/${theirs}.jwe.json`);
    }
    expect(code(await gone(copy, theirs)), "and the copy has it, but it is the top's as well").toBe("epoch_needed");
    expect([existsSync(keyFile("", theirs)), existsSync(keyFile(prefix, theirs))]).toEqual([true, true]);
    rmSync(keyFile(prefix, theirs));
  }, 60_000);

  it("says which copies lose backups of before they were copied, and leaves theirs as they are", async () => {
    const plan = await ok(original, "keys", "shred", theirs, "--dry-run");
    expect(plan).toMatchObject({ copies: [prefix], backups: [{ tier: "manual" }] });
    const kept = epochsAt(prefix);
    expect(await gone(original, theirs)).toMatchObject({ exit: 0, document: { done: true, copies: [prefix] } });
    expect(existsSync(keyFile("", theirs))).toBe(false);
    expect(epochsAt(prefix)).toEqual(kept);
    await ok(at(copy, prefix), "verify", "latest");
  }, 120_000);
});
