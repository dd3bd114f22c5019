/** Keys as people handle them: replaced, kept on paper, tried. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { cli } from "../integration/cli_fixture.ts";

const cluster = useCluster();
let folder: string;
let first: string;
let settings: Record<string, string>;
const idOf = (entry: string) => entry.split(":")[0] ?? "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-keys-"));
  first = await fresh();
  settings = { BACKUP_DB_URL: cluster().plainUrl(), BACKUP_KEYS: first, BACKUP_STORE: `file://${folder}/store` };
  await query(cluster().plainUrl(), "create table public.notes (id int primary key, x text)");
  await query(cluster().plainUrl(), "insert into public.notes values (1, 'one')");
  expect((await cli(["init", "--json"], settings)).exit).toBe(0);
  expect((await cli(["create", "--json"], settings)).exit).toBe(0);
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function fresh(): Promise<string> {
  return ((await cli(["keygen", "--json"], {})).document as { keys: string }).keys;
}

interface Checked {
  readonly ok: boolean;
  readonly keys: readonly { readonly id: string; readonly opens: boolean }[];
}

const withKeys = (keys: string) => ({ ...settings, BACKUP_KEYS: keys });

async function check(keys: string): Promise<Checked & { readonly exit: number | null }> {
  const { exit, document, stderr } = await cli(["keys", "check", "--json"], withKeys(keys));
  expect(document, stderr).toBeDefined();
  return { exit, ...document as Checked };
}

describe("keys", () => {
  it("are replaced in two steps, with every backup opened at each, and no object touched", async () => {
    const second = await fresh();
    const objects = () => readdirSync(join(folder, "store/v1/objects"), { recursive: true });
    const before = objects();
    expect((await check(second)).exit, "the new key opens nothing yet").toBe(3);
    const both = `${second},${first}`;
    const planned = await cli(["keys", "rotate", "--dry-run", "--json"], withKeys(both));
    expect(planned.document).toMatchObject({ done: false, epochs: [{ dropped: [] }] });
    expect((await check(second)).exit, "a dry run changes nothing").toBe(3);
    expect((await cli(["keys", "rotate", "--json"], withKeys(both))).exit).toBe(0);
    expect(await check(both)).toMatchObject({ exit: 0, ok: true, keys: [{ opens: true }, { opens: true }] });

    const unasked = await cli(["keys", "rotate", "--json"], withKeys(second));
    expect(unasked.exit).toBe(2);
    expect(unasked.document).toMatchObject({ done: false, epochs: [{ dropped: [idOf(first)] }] });
    expect((await check(first)).exit, "a key goes only when somebody says so").toBe(0);
    expect((await cli(["keys", "rotate", "--yes", "--json"], withKeys(second))).exit).toBe(0);
    expect(await check(second)).toMatchObject({ exit: 0, ok: true });
    const old = await check(first);
    expect(old).toMatchObject({ exit: 3, ok: false, keys: [{ id: idOf(first), opens: false }] });
    expect(objects()).toEqual(before);
    expect((await cli(["keys", "rotate", "--yes", "--json"], withKeys(first))).exit, "a lost key rewrites nothing")
      .toBe(1);
    first = second;
    settings = withKeys(second);
    expect((await cli(["verify", "latest", "--json"], settings)).exit).toBe(0);
  }, 60_000);

  it("are not replaced where the audit cannot tell of it", async () => {
    const files = () => {
      const keys = join(folder, "store/v1/keys");
      return readdirSync(keys).map((name) => readFileSync(join(keys, name), "utf8"));
    };
    const before = files();
    await query(
      cluster().plainUrl(),
      `create function public.no_audit() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
       create trigger no_audit before insert on backup.audit_log for each row execute function public.no_audit()`,
    );
    try {
      const refused = await cli(["keys", "rotate", "--yes", "--json"], withKeys(`${await fresh()},${first}`));
      expect(refused).toMatchObject({ exit: 1, document: { error: { code: "database_failed" } } });
      expect(files()).toEqual(before);
    } finally {
      await query(cluster().plainUrl(), "drop trigger no_audit on backup.audit_log; drop function public.no_audit()");
    }
  }, 60_000);

  it("are replaced in both stores at once, also in an epoch that the first has lost", async () => {
    const identity = await generateIdentity();
    const both = {
      ...settings,
      BACKUP_SECONDARY: `file://${folder}/second`,
      BACKUP_RECIPIENTS: await identityToRecipient(identity),
      BACKUP_IDENTITIES: identity,
    };
    const rotate = async (keys: string, given = both) =>
      await cli(["keys", "rotate", "--yes", "--json"], { ...given, BACKUP_KEYS: keys });
    mkdirSync(join(folder, "second"));
    const copied = await cli(["replicate", "--json"], both);
    expect(copied.exit, copied.stdout + copied.stderr).toBe(0);
    const keyFiles = (store: string) =>
      readdirSync(join(folder, store, "v1/keys")).map((name) =>
        [name, readFileSync(join(folder, store, "v1/keys", name), "utf8")] as const
      );
    const [kept] = keyFiles("second");
    if (kept === undefined) throw new Error("the second store has no key");
    const later = await fresh();
    for (const keys of [`${later},${first}`, later]) {
      expect((await rotate(keys)).document).toMatchObject({
        done: true,
        earlier: [],
        stores: [{}, {}].map(() => expect.any(String)),
      });
      expect(keyFiles("second")).toEqual(keyFiles("store"));
    }
    const ofSecond = { ...both, BACKUP_STORE: "second" };
    const opens = async (keys: string) =>
      (await cli(["keys", "check", "--json"], { ...ofSecond, BACKUP_KEYS: keys })).document;
    expect(await opens(later)).toMatchObject({ ok: true });
    expect(await opens(first)).toMatchObject({ ok: false });
    expect(
      (await cli(["replicate", "--json"], { ...both, BACKUP_KEYS: later })).document,
      "nothing is left to carry on",
    )
      .toMatchObject({ bytes: expect.any(Number), missing: 0 });
    expect(keyFiles("second")).toEqual(keyFiles("store"));

    // The first store loses an epoch: what opens it in the second one follows the keys all the same.
    const other = await fresh();
    const path = join(folder, "store/v1/keys", kept[0]);
    const lost = readFileSync(path);
    rmSync(path);
    try {
      const planned = await cli(["keys", "rotate", "--dry-run", "--json"], {
        ...both,
        BACKUP_KEYS: `${other},${later}`,
      });
      expect(planned.document).toMatchObject({ epochs: [{ epoch: kept[0].replace(".jwe.json", ""), dropped: [] }] });
      for (const keys of [`${other},${later}`, other]) expect((await rotate(keys)).exit).toBe(0);
      expect(await opens(other)).toMatchObject({ ok: true });
      expect(await opens(later)).toMatchObject({ ok: false });
    } finally {
      writeFileSync(path, lost);
    }
    // With the second store not set here, that is told.
    const alone = await rotate(`${other},${later}`, { ...both, BACKUP_SECONDARY: "" });
    expect(alone.exit, alone.stderr).toBe(0);
    expect(alone.stderr).toMatch(/warning: the second store, .*second, is not set here/);
    expect((await rotate(other)).exit).toBe(0);
    first = other;
    settings = withKeys(other);
  }, 120_000);

  it("are on paper too: a pair whose private half opens everything, and whose public half nothing", async () => {
    const made = (await cli(["keys", "recovery", "--json"], {})).document as Record<
      "id" | "publicKey" | "privateKey",
      string
    >;
    expect((await cli(["keys", "rotate", "--json"], withKeys(`${first},${made.publicKey}`))).exit).toBe(0);
    expect((await cli(["create", "--json"], withKeys(`${first},${made.publicKey}`))).exit).toBe(0);
    const paper = join(folder, "paper.key");
    writeFileSync(paper, `${made.privateKey}\n`);
    const { BACKUP_KEYS: _none, ...rest } = settings;
    const checked = await cli(["keys", "check", "--keys-file", paper, "--json"], rest);
    expect(checked.document, checked.stderr).toMatchObject({ ok: true, keys: [{ id: made.id, opens: true }] });

    // Everything is lost but the store and the paper.
    await query(cluster().plainUrl(), "create database elsewhere");
    const target = cluster().plainUrl("postgres", "elsewhere");
    const restored = await cli([
      "restore-full",
      "latest",
      "--target-db-url",
      target,
      "--keys-file",
      paper,
      "--yes",
      "--json",
    ], {
      BACKUP_STORE: settings["BACKUP_STORE"] ?? "",
    });
    expect(restored.exit, restored.stderr).toBe(0);
    expect(await query(target, "select * from public.notes")).toEqual([{ id: 1, x: "one" }]);

    const alone = await cli(["keys", "check", "--json"], withKeys(made.publicKey));
    expect(alone).toMatchObject({ exit: 2, document: { error: { code: "key_malformed" } } });
  }, 60_000);

  it("are named by id alone: in the list, in errors, in the audit, and nowhere by what they are", async () => {
    const listed = await cli(["keys", "list", "--json"], settings);
    expect(listed.document).toMatchObject([{ wrappedFor: [idOf(first), expect.stringMatching(/^r-/)] }]);
    const stranger = await fresh();
    const wrong = await cli(["keys", "check", "--json"], withKeys(stranger));
    expect(wrong.stdout + wrong.stderr).toContain(idOf(first));
    const rows = await query(
      cluster().plainUrl(),
      "select action, detail::text as detail from backup.audit_log where subject = 'keys' order by id",
    );
    expect(new Set(rows.map(({ action }) => action))).toEqual(new Set(["key.checked", "key.rotating", "key.rotated"]));
    const seen = [listed, wrong].map(({ stdout, stderr }) => stdout + stderr).join() + JSON.stringify(rows) +
      readFileSync(join(folder, "store/v1/repository.json"), "utf8");
    for (const key of [first, stranger]) expect(seen).not.toContain(key.split(":")[1]);
  }, 60_000);
});
