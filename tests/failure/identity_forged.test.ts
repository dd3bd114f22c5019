/** A thief of the store, who has no key, puts claims there: the database keeps what it has, tells, and comes back by `adopt`. */
import { describe, expect, it } from "vitest";
import { claimName } from "../../src/shared/format/layout.ts";
import { query } from "../integration/backup_fixture.ts";
import { drainNow, mortalSource, restored, type Source } from "../integration/changes_stream_fixture.ts";
import { backup } from "../integration/backup_fixture.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster({ settings: { max_replication_slots: "30", max_wal_senders: "30" } });
const testMs = 120_000;
const drain = (one: Source) => drainNow(one.deps, { projectRef: "abcdefghijklmnopqrst" });
const rows = async (url: string) => (await query(url, "select id from public.notes order by id")).map(({ id }) => id);
const insert = (one: Source, id: number) => query(one.url, "insert into public.notes values ($1)", [id]);
const prefixOf = async (one: Source) =>
  String((await query(one.url, "select store_prefix from backup.identity"))[0]?.["store_prefix"]);
const alerts = (one: Source) =>
  query(
    one.url,
    "select subject, severity from backup.alerts where kind = 'identity_changed' and status <> 'resolved' order by 1",
  );
const claimsOf = (one: Source) => [...one.store.objects.keys()].filter((name) => name.startsWith("v1/claims/")).sort();

async function source(): Promise<Source> {
  const one = await mortalSource(cluster());
  await query(one.url, "create table public.notes (id int primary key)");
  await drain(one);
  await backup(one.deps);
  await insert(one, 1);
  await drain(one);
  return one;
}

type Forge = (one: Source, newest: Uint8Array) => readonly [name: string, bytes: Uint8Array];
const next = (one: Source, more = 1) => claimName(Number(claimsOf(one).at(-1)?.slice("v1/claims/".length)) + more);
const forged: readonly (readonly [string, Forge])[] = [
  ["nothing at all", (one) => [next(one), new Uint8Array()]],
  ["noise, some numbers on", (one) => [next(one, 40), new Uint8Array(400).fill(7)]],
  ["the last claim of ours once more, under the next number", (one, newest) => [next(one), newest]],
];

describe("a claim that a thief of the store has put there", () => {
  it.each(forged)(
    "%s: backups go on apart, with an alert, and at their place again after adopt",
    async (_, forge) => {
      const one = await source();
      const before = new Map(one.store.objects);
      const [name, bytes] = forge(one, one.store.objects.get(claimsOf(one).at(-1) ?? "") ?? new Uint8Array());
      one.store.objects.set(name, bytes);
      await insert(one, 2);
      await drain(one);
      await backup(one.deps);
      const prefix = await prefixOf(one);
      expect(prefix).toMatch(/^clone-[0-9a-f]{8}$/);
      expect(await alerts(one)).toEqual([{ subject: "store", severity: "critical" }]);
      for (const [known, content] of before) expect(one.store.objects.get(known), known).toEqual(content);
      await query(one.url, "select backup.adopt($1)", [prefix]);
      await insert(one, 3);
      await drain(one);
      await backup(one.deps);
      expect([await prefixOf(one), await alerts(one)]).toEqual(["", []]);
      expect(await rows((await restored(cluster(), one.deps)).url)).toEqual([1, 2, 3]);
    },
    testMs,
  );

  it("under the last number that there is: adopt says what is in its way, and does it once that is gone", async () => {
    const one = await source();
    const last = claimName(999_999_999_999_999);
    one.store.objects.set(last, new Uint8Array(400));
    await drain(one);
    const prefix = await prefixOf(one);
    expect(prefix).toMatch(/^clone-/);
    await query(one.url, "select backup.adopt($1)", [prefix]);
    await drain(one);
    expect(await prefixOf(one)).toBe(prefix);
    const [told] = await query(one.url, "select message from backup.alerts where subject = 'adoption'");
    expect(told?.["message"]).toContain(last);
    one.store.objects.delete(last);
    await query(one.url, "select backup.adopt($1)", [prefix]);
    await insert(one, 2);
    await drain(one);
    await backup(one.deps);
    expect([await prefixOf(one), await alerts(one)]).toEqual(["", []]);
    expect(await rows((await restored(cluster(), one.deps)).url)).toEqual([1, 2]);
  }, testMs);

  it("of a key that nobody has: each run fails by name, and nothing is written, until it is gone", async () => {
    const one = await source();
    const newest = one.store.objects.get(claimsOf(one).at(-1) ?? "")?.slice() ?? new Uint8Array();
    newest.set(new TextEncoder().encode("e20200101T000000Z-00000000"), 12);
    const name = next(one);
    one.store.objects.set(name, newest);
    const before = [...one.store.objects.keys()];
    await insert(one, 2);
    await expect(drain(one)).rejects.toMatchObject({ code: "key_wrong" });
    await expect(backup(one.deps)).rejects.toMatchObject({ code: "key_wrong" });
    expect([...one.store.objects.keys()]).toEqual(before);
    one.store.objects.delete(name);
    await drain(one);
    expect(await prefixOf(one)).toBe("");
    expect(await rows((await restored(cluster(), one.deps)).url)).toEqual([1, 2]);
  }, testMs);

  it("gone, all of them, with everything else: it begins anew at its place, without another one's leave", async () => {
    const one = await source();
    one.store.objects.clear();
    // Each hour the drain looks whether its segments are there.
    await query(one.url, "update backup.drain set looked_at = null");
    await insert(one, 2);
    await drain(one);
    await backup(one.deps);
    expect(await prefixOf(one)).toBe("");
    expect(await rows((await restored(cluster(), one.deps)).url)).toEqual([1, 2]);
    expect(claimsOf(one).length).toBeGreaterThan(0);
  }, testMs);
});
