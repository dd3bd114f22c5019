/** A copy of a database as people meet it: what status and doctor say, and adopting it. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { cli, cliAtTerminal } from "./cli_fixture.ts";

const cluster = useCluster();
let folder: string;
let original: Record<string, string>;
let copy: Record<string, string>;
let prefix: string;

interface Identity {
  readonly standing: string;
  readonly prefix: string;
  readonly isOriginal: boolean;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-adopt-"));
  const keys = ((await cli(["keygen", "--json"], {})).document as { keys: string }).keys;
  const name = await freshDatabase(cluster());
  const settings = (database: string) => ({
    BACKUP_DB_URL: cluster().plainUrl("postgres", database),
    BACKUP_KEYS: keys,
    BACKUP_STORE: `file://${folder}/store`,
  });
  [original, copy] = [settings(name), settings(`${name}_copy`)];
  expect((await cli(["init", "--json"], original)).exit).toBe(0);
  await query(cluster().plainUrl("postgres", name), "create table public.notes (id int primary key)");
  expect((await cli(["create", "--json"], original)).exit).toBe(0);
  const admin = cluster().plainUrl(cluster().superuser);
  await query(admin, `create database ${name}_copy template ${name}`);
  await query(admin, `alter database ${name}_copy owner to postgres`);
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const identityOf = async (settings: Record<string, string>) =>
  ((await cli(["status", "--json"], settings)).document as { identity: Identity }).identity;
const create = async (settings: Record<string, string>) => {
  const { exit, stderr, document } = await cli(["create", "--json"], settings);
  expect(exit, stderr).toBe(0);
  return (document as { id: string }).id;
};
const verified = (id: string, settings: Record<string, string>) => cli(["verify", id, "--json"], settings);
const below = (settings: Record<string, string>, place: string) => ({
  ...settings,
  BACKUP_STORE: `${settings["BACKUP_STORE"]}/${place}`,
});

describe("a copy of a database", () => {
  it(
    "backs up below a prefix of its own, is told by status and doctor, and its backups open by that address",
    async () => {
      const id = await create(copy);
      const status = await cli(["status", "--json"], copy);
      expect(status.exit).toBe(3);
      const { identity, alerts } = status.document as {
        identity: Identity;
        alerts: { kind: string; severity: string }[];
      };
      expect(alerts).toMatchObject([{ kind: "identity_changed", severity: "critical" }]);
      expect(identity).toMatchObject({ standing: "copy", isOriginal: false });
      prefix = identity.prefix;
      expect((await cli(["status"], copy)).stdout).toMatch(
        new RegExp(`identity: .*a copy; writes to ${prefix}/ in its store`),
      );
      expect((await cli(["doctor"], copy)).stdout).toMatch(/warn {2}identity: .*holdfast adopt/);
      expect((await cli(["doctor"], original)).stdout).toMatch(/ok {4}identity: database/);
      expect((await verified(id, copy)).exit, "it is not at the top").toBe(1);
      expect((await verified(id, below(copy, prefix))).exit).toBe(0);
      const again = await create(below(copy, prefix));
      expect(existsSync(join(folder, "store", prefix, prefix)), "an address that names it is no reason to nest").toBe(
        false,
      );
      expect((await verified(again, below(copy, prefix))).exit).toBe(0);
      expect(await identityOf(original)).toMatchObject({ standing: "original", prefix: "", isOriginal: true });
    },
    120_000,
  );

  it("is not adopted without a typed prefix, nor with keys that do not open the original's place", async () => {
    const dry = await cli(["adopt", "--dry-run", "--json"], copy);
    expect(dry).toMatchObject({ exit: 0, document: { done: false, lastClaim: { number: 1, ref: null } } });
    expect((await cli(["adopt", "--dry-run"], copy)).stdout).toMatch(
      /last claimed by database .* ago\nIt is perhaps alive/,
    );
    const asked = await cli(["adopt", "--json"], copy);
    expect(asked).toMatchObject({ exit: 2, document: { done: false, error: { code: "confirmation_missing" } } });
    expect((await cliAtTerminal(["adopt"], copy, "clone-00000000")).exit).toBe(2);
    const [strange] = [(await cli(["keygen", "--json"], {})).document as { keys: string }];
    const refused = await cli(["adopt", "--yes", "--json"], { ...copy, BACKUP_KEYS: strange.keys });
    expect(refused).toMatchObject({ exit: 1, document: { error: { code: "key_wrong" } } });
    expect(await identityOf(copy)).toMatchObject({ standing: "copy", prefix, adopting: false });
    const nothing = await cli(["adopt", "--yes", "--json"], original);
    expect(nothing).toMatchObject({ exit: 1, document: { error: { code: "run_state" } } });
  }, 120_000);

  it("said at the dashboard with keys that do not fit: the next backup says so, and goes on where it was", async () => {
    await query(copy["BACKUP_DB_URL"] ?? "", "select backup.adopt($1)", [prefix]);
    expect(await identityOf(copy)).toMatchObject({ adopting: true, isOriginal: false });
    const nested = below(copy, prefix);
    const id = await create(nested);
    expect(await identityOf(copy)).toMatchObject({ standing: "copy", prefix, adopting: false });
    expect((await cli(["status", "--json"], copy)).document).toMatchObject({
      alerts: [{ subject: "adoption" }, { subject: "store" }],
    });
    expect((await verified(id, nested)).exit).toBe(0);
  }, 60_000);

  it(
    "takes the original's place once its prefix is typed; the original is the copy then, by the same rule",
    async () => {
      const typed = await cliAtTerminal(["adopt"], copy, prefix);
      expect(typed.exit, typed.shown).toBe(0);
      expect(await identityOf(copy)).toMatchObject({ standing: "original", prefix: "", isOriginal: true });
      expect((await verified(await create(copy), copy)).exit).toBe(0);
      expect((await cli(["status", "--json"], copy)).document).toMatchObject({ alerts: [] });
      const id = await create(original);
      const theirs = await identityOf(original);
      expect(theirs).toMatchObject({ standing: "copy", isOriginal: false });
      expect((await verified(id, below(original, theirs.prefix))).exit).toBe(0);
      const kept = await cli(["adopt", "--keep-prefix", "--yes", "--json"], original);
      expect(kept).toMatchObject({
        exit: 0,
        document: { done: true, keepPrefix: true, identity: { isOriginal: true } },
      });
      expect(await identityOf(original)).toMatchObject({ standing: "original", prefix: theirs.prefix });
      expect((await cli(["doctor"], original)).stdout).toMatch(/ok {4}identity: /);
    },
    120_000,
  );
});
