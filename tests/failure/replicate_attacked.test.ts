/** A first store that was damaged, forged, shrunken or put back: nothing of that spoils the second, and nothing is called complete too early. */
import { Buffer } from "node:buffer";
import { beforeAll, describe, expect, it } from "vitest";
import { decodeEpochFile, encodeEpochFile } from "../../src/shared/crypto/epoch_file.ts";
import { epochSource, rewrap } from "../../src/shared/crypto/epochs.ts";
import { type KeyRing, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { backup, query, testKeys } from "../integration/backup_fixture.ts";
import { drainNow } from "../integration/changes_stream_fixture.ts";
import { copies, differences, type Pair, pairOfStores } from "../integration/replicate_fixture.ts";
import { useCluster } from "../support/cluster.ts";
import { faulty } from "../support/faulty_store.ts";

const cluster = useCluster({ settings: { max_replication_slots: "30", max_wal_senders: "30" } });
const pageMs = 120_000;
/** What an attacker has who knows none of ours. */
const foreignKeys = `other:${"C".repeat(42)}E`;

interface Told {
  readonly pair: Pair;
  readonly key: string;
}

/** A segment and a backup in the first store; in the second as well with `copied`. */
async function project({ ring = parseKeyRing(testKeys), copied = true } = {}): Promise<Told> {
  const made = await pairOfStores(cluster());
  const pair = { ...made, deps: { ...made.deps, ring } };
  await query(pair.url, "create table public.notes (id int primary key, t text not null)");
  await query(pair.url, "insert into public.notes select i, md5(i::text) from generate_series(1, 500) as i");
  await drainNow(pair.deps);
  await backup(pair.deps);
  await query(pair.url, "update public.notes set t = 'changed' where id < 9");
  await drainNow(pair.deps);
  if (copied) expect(await copies(pair)).toMatchObject({ status: "succeeded" });
  const [key = ""] = [...pair.store.objects.keys()].filter((name) => name.startsWith("v1/keys/"));
  return { pair, key };
}

const alerts = async ({ url }: Pair) =>
  (await query(url, "select kind from backup.alerts where status <> 'resolved' and kind ~ '^copies' order by 1"))
    .map(({ kind }) => kind);
const complete = async ({ url }: Pair) =>
  (await query(
    url,
    "select kind, complete_at is not null as c from backup.runs where kind in ('full', 'incremental') order by 1",
  ))
    .map(({ kind, c }) => `${String(kind)} ${String(c)}`);
const lag = async ({ url }: Pair) =>
  Number((await query(url, "select objects::int as n from backup.copy_lag()"))[0]?.["n"]);
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);
const nextDay =
  "create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = '' as $$ select pg_catalog.clock_timestamp() + interval '25 hours' $$";

/** Opens with that ring from the second store alone. */
async function opens({ second }: Pair, key: string, ring: KeyRing): Promise<boolean> {
  const repository = await readRepository(second);
  const source = epochSource(second, ring, repository?.id ?? "");
  return await source(key.slice("v1/keys/".length, -".jwe.json".length)).then(() => true, () => false);
}

interface KeyFile {
  tag: string;
  ciphertext: string;
  recipients: { encrypted_key: string; header: { kid: string } }[];
}

describe("a key file of the first store that is not what it was", () => {
  const turned = (value: string) => (value.startsWith("A") ? "B" : "A") + value.slice(1);
  const forged: readonly (readonly [string, (file: KeyFile) => void])[] = [
    ["has a changed bit in its wrapped key", ({ recipients: [one] }) => {
      if (one !== undefined) one.encrypted_key = turned(one.encrypted_key);
    }],
    ["has a changed bit in its secret", (file) => {
      file.ciphertext = turned(file.ciphertext);
    }],
    ["names a key that nobody has", ({ recipients: [one] }) => {
      if (one !== undefined) one.header.kid = "nobody";
    }],
  ];

  let told: Told;
  beforeAll(async () => {
    told = await project();
  }, pageMs);

  /** Copies with that file in the first store, and then once more with the right one. */
  async function tryToCopy(file: Uint8Array): Promise<void> {
    const { pair, key } = told;
    const [right, good] = [pair.store.objects.get(key) ?? new Uint8Array(), pair.second.objects.get(key)];
    pair.store.objects.set(key, file);
    expect(await copies(pair)).toMatchObject({ status: "failed", errorCode: "key_wrong" });
    expect(pair.second.objects.get(key)).toEqual(good);
    expect(await opens(pair, key, pair.deps.ring)).toBe(true);
    expect([await alerts(pair), await lag(pair)]).toEqual([["copies_failed"], 1]);
    pair.store.objects.set(key, right);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    expect([await alerts(pair), await lag(pair)]).toEqual([[], 0]);
  }

  it.each(forged)("%s: the good one of the second store stays, and it is told", async (_, change) => {
    const { pair, key } = told;
    const file = JSON.parse(text(pair.store.objects.get(key))) as KeyFile;
    change(file);
    await tryToCopy(bytes(JSON.stringify(file)));
  }, pageMs);

  it("was made anew by a thief, for keys of their own", async () => {
    const { pair, key } = told;
    const repositoryId = (await readRepository(pair.store))?.id ?? "";
    const id = key.slice("v1/keys/".length, -".jwe.json".length);
    const whole = pair.store.objects.get(key) ?? new Uint8Array();
    const { facts } = await decodeEpochFile(whole, { id, repositoryId }, pair.deps.ring);
    await tryToCopy(await encodeEpochFile(facts, new Uint8Array(32), parseKeyRing(foreignKeys)));
  }, pageMs);

  it("lacks the recovery key: that one goes on to open the second store", async () => {
    const { publicEntry, privateEntry } = await generateRecoveryKey(webCryptoRandom);
    const { pair, key } = await project({ ring: parseKeyRing(`${testKeys},${publicEntry}`) });
    const recovery = parseKeyRing(privateEntry);
    expect(await opens(pair, key, recovery)).toBe(true);
    const whole = pair.store.objects.get(key) ?? new Uint8Array();
    const file = JSON.parse(text(whole)) as KeyFile;
    file.recipients = file.recipients.filter(({ header }) => header.kid === "test");
    pair.store.objects.set(key, bytes(JSON.stringify(file)));
    expect(await copies(pair)).toMatchObject({ status: "failed", errorCode: "object_conflict" });
    expect(await opens(pair, key, recovery)).toBe(true);
    pair.store.objects.set(key, whole);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
  }, pageMs);

  it("was rotated: the second store follows, when keys come and when they go", async () => {
    const { pair, key } = await project();
    const repository = await readRepository(pair.store);
    for (const keys of [`new:${"D".repeat(42)}E,${testKeys}`, `new:${"D".repeat(42)}E`]) {
      const ring = parseKeyRing(keys);
      await rewrap({ ...pair.deps, ring }, repository?.id ?? "");
      expect(await copies({ ...pair, deps: { ...pair.deps, ring } })).toMatchObject({ status: "succeeded" });
      expect(pair.second.objects.get(key)).toEqual(pair.store.objects.get(key));
      expect(await opens(pair, key, ring)).toBe(true);
    }
    expect(await opens(pair, key, parseKeyRing(testKeys)), "the key that was taken out").toBe(false);
  }, pageMs);
});

describe("complete", () => {
  it("is nothing whose key file is not in the second store, however whole the rest is", async () => {
    const { pair, key } = await project({ copied: false });
    await query(pair.url, "select backup.seal_incrementals(true)");
    // Read once when the store is listed, then to be copied, then to open what it opens.
    const first = faulty(pair.store, [{ call: "read", prefix: key, nth: 2, kind: "flip" }]);
    expect(await copies(pair, { first: { ...first, label: pair.store.label } })).toMatchObject({ status: "failed" });
    first.assertAllFired();
    expect(pair.second.objects.has(key)).toBe(false);
    expect([...pair.second.objects.keys()].filter((name) => name.endsWith("/manifest"))).toEqual([]);
    expect(await complete(pair)).toEqual(["full false", "incremental false"]);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    expect(await complete(pair)).toEqual(["full true", "incremental true"]);
  }, pageMs);

  it(
    "ends where the second store's key file is another one, of the same size: that is found within a day",
    async () => {
      const { pair, key } = await project();
      await query(pair.url, "select backup.seal_incrementals(true)");
      expect(await copies(pair)).toMatchObject({ status: "succeeded" });
      const good = pair.second.objects.get(key) ?? new Uint8Array();
      pair.second.objects.set(key, Buffer.alloc(good.byteLength, "x"));
      await query(pair.url, nextDay);
      const seen: string[] = [];
      const second = {
        ...pair.second,
        replace: async (name: string, content: Uint8Array) => {
          if (name === key) seen.push(...await complete(pair), ...(await alerts(pair)).map(String));
          await pair.second.replace(name, content);
        },
      };
      expect(await copies(pair, { second })).toMatchObject({ status: "succeeded" });
      expect(seen).toEqual(["full false", "incremental false", "copies_lost"]);
      expect(pair.second.objects.get(key)).toEqual(good);
      expect(await complete(pair)).toEqual(["full true", "incremental true"]);
    },
    pageMs,
  );
});

describe("a worker that dies when it has replaced an age file of which nothing is known", () => {
  it("leaves one that the next one takes for its own", async () => {
    const { pair } = await project();
    await query(pair.url, "delete from backup.copies");
    pair.killer.arm("step:copy.replaced", 2);
    await expect(copies(pair, { database: pair.killer.mortal(pair.deps.database) })).rejects.toThrow();
    expect(pair.killer.fired).toBe(1);
    pair.killer.disarm();
    await query(pair.url, "update backup.tasks set lease_until = now() - interval '1 second' where status = 'leased'");
    const before = new Map(pair.second.objects);
    const known = (await query(
      pair.url,
      `select name from backup.copy_intents where (name, hash) not in (
         select name, second_hash from backup.copies where second_hash is not null)`,
    ))
      .map(({ name }) => String(name));
    expect(known).toHaveLength(1);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    for (const name of known) expect(pair.second.objects.get(name), name).toEqual(before.get(name));
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
  }, pageMs);
});

describe("a first store that lost what was not copied yet", () => {
  it.each(
    [
      ["a segment", "v1/changes/", "select count(*)::int as n from backup.segments"],
      ["an anchor", "v1/anchors/", "select count(*)::int as n from backup.audit_anchors"],
      ["a backup", "v1/backups/", "select 1 as n"],
    ] as const,
  )("%s: no run succeeds, and the lag stays until it is back", async (_, prefix, recorded) => {
    const { pair } = await project();
    await query(pair.url, "update public.notes set t = 'again' where id < 9");
    await drainNow(pair.deps);
    await backup(pair.deps);
    await query(pair.url, "update backup.runs set origin = 'schedule' where kind = 'full'");
    expect(Number((await query(pair.url, recorded))[0]?.["n"])).toBeGreaterThan(0);
    const before = await query(pair.url, "select caught_up_at from backup.second_store");
    const lost = [...pair.store.objects].filter(([name]) => name.startsWith(prefix) && !pair.second.objects.has(name));
    expect(lost.length).toBeGreaterThan(0);
    for (const [name] of lost) pair.store.objects.delete(name);
    for (let times = 0; times < 2; times++) {
      expect(await copies(pair)).toMatchObject({ status: "failed", errorCode: "object_missing" });
      expect(await lag(pair)).toBe(lost.length);
      expect(await alerts(pair)).toEqual(["copies_failed"]);
    }
    expect(await query(pair.url, "select caught_up_at from backup.second_store")).toEqual(before);
    for (const [name, content] of lost) pair.store.objects.set(name, content);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    expect([await lag(pair), await alerts(pair)]).toEqual([0, []]);
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
  }, pageMs);

  it("a segment whose loss the drain has told: the chain behind the gap goes on to be copied", async () => {
    const { pair } = await project();
    await query(pair.url, "update public.notes set t = 'again' where id < 9");
    await drainNow(pair.deps);
    const lost = [...pair.store.objects.keys()].filter((name) =>
      name.startsWith("v1/changes/") && !pair.second.objects.has(name)
    );
    expect(lost.length).toBeGreaterThan(0);
    for (const name of lost) pair.store.objects.delete(name);
    await query(pair.url, "update backup.drain set looked_at = null");
    await drainNow(pair.deps);
    expect(await query(pair.url, "select from backup.gaps")).toHaveLength(1);
    await backup(pair.deps);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    expect([await lag(pair), await alerts(pair)]).toEqual([0, []]);
  }, pageMs);
});
