/** Clusters copied byte for byte, beside their original: who may write where, whatever the order and whoever dies. */
import { spawnSync } from "node:child_process";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { giveNewIdentity } from "../../src/local/identity.ts";
import { type Cluster, startCluster } from "../../src/local/postgres.ts";
import { isOriginal } from "../../src/shared/identity/identity_queries.ts";
import { settlePlace } from "../../src/shared/identity/settle_place.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { below } from "../../src/shared/store/below.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { backup } from "../integration/backup_fixture.ts";
import {
  drainNow,
  leaseRunsOut,
  mortalSource,
  query,
  restored,
  type Source,
} from "../integration/changes_stream_fixture.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";

const ours = "abcdefghijklmnopqrst";
const theirs = "zyxwvutsrqponmlkjihg";
const settings = { max_replication_slots: "30", max_wal_senders: "30" };
const cluster = useCluster({ settings });
let other: Cluster | undefined;
afterAll(async () => {
  await other?.destroy();
}, clusterMs);

interface One extends Source {
  /** Where its functions run; null: nobody knows. */
  readonly ref: string | null;
  readonly chain: string;
}

const rows = async (url: string) => (await query(url, "select id from app.notes order by id")).map(({ id }) => id);
const insert = (to: One, id: number) => query(to.url, "insert into app.notes values ($1, 'x')", [id]);
const drain = (one: One) => drainNow(one.deps, { projectRef: one.ref });
const at = (one: One, prefix: string) => ({ ...one.deps, store: below(one.store, prefix) });
const restoredRows = async (one: One, prefix: string) => await rows((await restored(cluster(), at(one, prefix))).url);
const originalOf = async ({ deps }: One) => {
  const session = await deps.database.connect("holdfast:test");
  try {
    return await isOriginal(session);
  } finally {
    await session.close();
  }
};
const prefixOf = async ({ url }: One) => {
  const [row] = await query(url, "select store_prefix from backup.identity");
  return String(row?.["store_prefix"]);
};
const alerts = ({ url }: One) =>
  query(
    url,
    "select subject, severity from backup.alerts where kind = 'identity_changed' and status <> 'resolved' order by 1",
  );

/** With a chain, a full backup on it, and one row since. */
async function source(ref: string | null): Promise<One> {
  const made = await mortalSource(cluster());
  await query(made.url, "create schema app; create table app.notes (id int primary key, t text)");
  const { chain } = await drainNow(made.deps, { projectRef: ref });
  await backup(made.deps);
  const one = { ...made, ref, chain: chain ?? "" };
  await insert(one, 1);
  await drain(one);
  return one;
}

/** As it is in a cluster now: a restart may give it another port. */
function within(one: One, where: Cluster, ref = one.ref): One {
  const url = where.plainUrl("postgres", new URL(one.url).pathname.slice(1));
  return { ...one, url, ref, deps: { ...one.deps, database: one.killer.mortal(openDatabase({ url })) } };
}

/** The rows that `one` has now, in a full backup and the stream behind it. */
async function write(one: One, ...ids: readonly number[]): Promise<void> {
  const [first, ...rest] = ids;
  if (first !== undefined) await insert(one, first);
  await drain(one);
  await backup(one.deps);
  for (const id of rest) await insert(one, id);
  await drain(one);
}

describe("a cluster that was copied byte for byte", () => {
  type Name = "elsewhere" | "original" | "copy" | "unknown" | "atOnce" | "midFull" | "midDrain" | "kept" | "further";
  const first = {} as Record<Name, One>;
  const second = {} as Record<Name, One>;

  beforeAll(async () => {
    const names: Name[] = [
      "elsewhere",
      "original",
      "copy",
      "unknown",
      "atOnce",
      "midFull",
      "midDrain",
      "kept",
      "further",
    ];
    for (const name of names) first[name] = await source(name === "unknown" ? null : ours);
    await cluster().stop("fast");
    const directory = join(dirname(cluster().directory), `${basename(cluster().directory)}-copy`);
    expect(spawnSync("cp", ["-a", cluster().directory, directory]).status).toBe(0);
    await cluster().start();
    other = await startCluster({ version: 15, platform: true, directory, durable: false, settings });
    for (const name of names) {
      second[name] = within(first[name], other, name === "elsewhere" || name === "kept" ? theirs : first[name].ref);
      first[name] = within(first[name], cluster());
    }
  }, 300_000);

  it("and runs under another ref: it leaves the original's place alone, even where it writes first", async () => {
    const [original, copy] = [first.elsewhere, second.elsewhere];
    const before = new Set(original.store.objects.keys());
    await write(copy, 20, 21);
    const prefix = await prefixOf(copy);
    expect(prefix).toMatch(/^clone-[0-9a-f]{8}$/);
    const added = [...original.store.objects.keys()].filter((name) => !before.has(name));
    expect(added.filter((name) => !name.startsWith(`${prefix}/v1/`))).toEqual([]);
    expect(await alerts(copy)).toEqual([{ subject: "store", severity: "critical" }]);
    await insert(original, 10);
    expect(await drain(original)).toMatchObject({ begun: false, chain: original.chain });
    expect([await prefixOf(original), await alerts(original)]).toEqual(["", []]);
    expect([await originalOf(original), await originalOf(copy)]).toEqual([true, false]);
    expect(await query(copy.url, "select backup.may_tell('run_missed') as a, backup.may_tell('identity_changed') as b"))
      .toEqual([{ a: false, b: true }]);
    expect([await restoredRows(original, ""), await restoredRows(copy, prefix)]).toEqual([[1, 10], [1, 20, 21]]);
  }, 120_000);

  it.each([["the original", "original"], ["the copy", "copy"], ["the original, without a ref,", "unknown"]] as const)(
    "and runs beside it under the same ref: %s writes first and keeps the place, the second gets one of its own",
    async (_who, name) => {
      const [early, late] = name === "copy" ? [second[name], first[name]] : [first[name], second[name]];
      await insert(early, 10);
      expect(await drain(early)).toMatchObject({ begun: false, chain: early.chain });
      const before = new Set(early.store.objects.keys());
      await write(late, 20, 21);
      await write(early, 11, 12);
      const prefix = await prefixOf(late);
      expect(prefix).toMatch(/^clone-/);
      expect(await prefixOf(early)).toBe("");
      const added = [...early.store.objects.keys()].filter((one) => !before.has(one));
      expect(added.filter((one) => one.startsWith(`v1/changes/`)).length).toBeGreaterThan(0);
      expect(await alerts(late)).toEqual([{ subject: "store", severity: "critical" }]);
      expect(await alerts(early)).toEqual([]);
      expect([await originalOf(early), await originalOf(late)]).toEqual([true, false]);
      expect([await restoredRows(early, ""), await restoredRows(late, prefix)]).toEqual([[1, 10, 11, 12], [1, 20, 21]]);
    },
    120_000,
  );

  it("and is adopted: it takes the place, and the other one, which is alive, gets one of its own", async () => {
    const [winner, loser] = [second.copy, first.copy];
    const prefix = await prefixOf(loser);
    await expect(query(loser.url, "select backup.adopt('clone-00000000')")).rejects.toMatchObject({ code: "HF513" });
    await expect(query(winner.url, "select backup.adopt('')")).rejects.toMatchObject({ code: "HF415" });
    await query(loser.url, "select backup.adopt($1)", [prefix]);
    expect(await originalOf(loser), "not before it holds the claim").toBe(false);
    await write(loser, 30, 31);
    expect([await prefixOf(loser), await alerts(loser), await originalOf(loser)]).toEqual(["", [], true]);
    await write(winner, 40, 41);
    const theirPlace = await prefixOf(winner);
    expect(theirPlace).toMatch(/^clone-/);
    expect(theirPlace).not.toBe(prefix);
    expect([await restoredRows(loser, ""), await restoredRows(winner, theirPlace)]).toEqual([
      [1, 20, 21, 30, 31],
      [1, 10, 11, 12, 40, 41],
    ]);
    const audited = await query(
      loser.url,
      "select action from backup.audit_log where action like 'install.%' and action !~ '(guarded|recorded)$' order by id",
    );
    expect(audited.map(({ action }) => action)).toEqual([
      "install.recognised",
      "install.copied",
      "install.adopting",
      "install.adopted",
    ]);
  }, 120_000);

  it("and is adopted: what the other one had claimed in a further store goes over as well", async () => {
    const [original, copy] = [first.further, second.further];
    const further = { ...createMemoryStore(), label: "further" };
    const settled = async (one: One) => {
      const session = await one.deps.database.connect("holdfast:test");
      try {
        return await settlePlace({ ...one.deps, store: further }, session);
      } finally {
        await session.close();
      }
    };
    await drain(original);
    expect(await settled(original)).toMatchObject({ prefix: "", claim: 1 });
    await drain(copy);
    expect(await settled(copy), "below the same prefix everywhere").toMatchObject({
      prefix: await prefixOf(copy),
      claim: 1,
    });
    await query(copy.url, "select backup.adopt($1)", [await prefixOf(copy)]);
    await drain(copy);
    expect(await settled(copy)).toMatchObject({ prefix: "", claim: 2 });
    expect(await settled(original)).toMatchObject({ prefix: expect.stringMatching(/^clone-/) as string });
    expect(await settled(copy)).toMatchObject({ prefix: "", claim: 2 });
  }, 60_000);

  it("and keeps its prefix for good: it is an original of its own, and nobody else is touched", async () => {
    const [original, copy] = [first.kept, second.kept];
    await drain(copy);
    const prefix = await prefixOf(copy);
    await query(copy.url, "select backup.adopt($1, true)", [prefix]);
    expect([await alerts(copy), await originalOf(copy)]).toEqual([[], true]);
    await write(copy, 20, 21);
    await write(original, 10);
    expect([await prefixOf(copy), await prefixOf(original)]).toEqual([prefix, ""]);
    expect([await restoredRows(original, ""), await restoredRows(copy, prefix)]).toEqual([[1, 10], [1, 20, 21]]);
    expect(await query(copy.url, "select project_ref, present_ref from backup.identity"))
      .toEqual([{ project_ref: theirs, present_ref: null }]);
  }, 120_000);

  it("and both write at once: one keeps the place, and neither has rows of the other", async () => {
    const both = [first.atOnce, second.atOnce];
    await Promise.all(both.map((one, index) => insert(one, 10 + index)));
    await Promise.allSettled(both.map(drain));
    for (const [index, one] of both.entries()) await write(one, 20 + index, 30 + index);
    const prefixes = await Promise.all(both.map(prefixOf));
    expect(prefixes.filter((prefix) => prefix === ""), "one has the top").toHaveLength(1);
    expect(await Promise.all(both.map((one, index) => restoredRows(one, prefixes[index] ?? "")))).toEqual([
      [1, 10, 20, 30],
      [1, 11, 21, 31],
    ]);
  }, 120_000);

  /** The first object with that beginning is put only after `before` is through: nobody could have noticed yet. */
  function meanwhile(
    store: Store,
    prefix: string,
    before: () => Promise<unknown>,
  ): { store: Store; fired: () => number } {
    let fired = 0;
    const create = async (name: string, bytes: Uint8Array) => {
      if (name.startsWith(prefix) && fired++ === 0) await before();
      return await store.create(name, bytes);
    };
    return { store: { ...store, create }, fired: () => fired };
  }

  it(
    "and takes the place while the original's manifest is on its way: that backup starts over, elsewhere",
    async () => {
      const [original, copy] = [first.midFull, second.midFull];
      await drain(original);
      // The newest claim is the one that the copy knows: only its own is not due, and it has the place at once.
      const racing = meanwhile(original.store, "v1/backups/", () => stolen(original, copy));
      await insert(original, 10);
      const run = await backup({ ...original.deps, store: racing.store });
      expect(racing.fired()).toBe(1);
      const prefix = await prefixOf(original);
      expect(prefix).toMatch(/^clone-/);
      expect(run).toMatchObject({ status: "succeeded", attempt: 2, storePrefix: prefix });
      expect(
        [...original.store.objects.keys()].filter((name) => name.startsWith("v1/backups/") && name.includes(run.id)),
      )
        .toEqual([]);
      await write(original, 11);
      await write(copy, 20);
      expect([await restoredRows(original, prefix), await restoredRows(copy, "")]).toEqual([[1, 10, 11], [1, 20]]);
    },
    120_000,
  );

  it(
    "and takes the place while a segment of the original is on its way: that segment goes, and stands elsewhere",
    async () => {
      const [original, copy] = [first.midDrain, second.midDrain];
      await drain(original);
      const racing = meanwhile(original.store, "v1/changes/", () => stolen(original, copy));
      await insert(original, 10);
      const drained = drainNow({ ...original.deps, store: racing.store }, { projectRef: ours });
      await expect(drained).rejects.toMatchObject({ code: "place_changed" });
      expect(racing.fired()).toBe(1);
      await write(original, 11);
      await write(copy, 20);
      expect([await restoredRows(original, await prefixOf(original)), await restoredRows(copy, "")]).toEqual([
        [1, 10, 11],
        [1, 20],
      ]);
    },
    120_000,
  );

  /** The copy takes the original's place, as after `adopt`, and drains. */
  async function stolen(original: One, copy: One): Promise<void> {
    await drain(copy);
    expect(await prefixOf(original)).toBe("");
    await query(copy.url, "select backup.adopt($1)", [await prefixOf(copy)]);
    await drain(copy);
    expect(await prefixOf(copy)).toBe("");
  }
});

describe("a server that was upgraded", () => {
  it("goes on where it wrote, and tells, if its project is known; without one it counts as a copy", async () => {
    let [known, unknown] = [await source(ours), await source(null)];
    await cluster().stop("fast");
    giveNewIdentity(cluster().dataDirectory);
    await cluster().start();
    [known, unknown] = [within(known, cluster()), within(unknown, cluster())];
    expect(await originalOf(known), "in doubt until the store was looked at").toBe(false);
    await write(known, 10, 11);
    await write(unknown, 20);
    expect([await prefixOf(known), await originalOf(known), await alerts(known)]).toEqual([
      "",
      true,
      [{ subject: "server", severity: "warning" }],
    ]);
    expect(await query(known.url, "select count(*)::int as n from backup.audit_log where action = 'install.moved'"))
      .toEqual([{ n: 1 }]);
    const prefix = await prefixOf(unknown);
    expect([prefix.startsWith("clone-"), await originalOf(unknown)]).toEqual([true, false]);
    expect([await restoredRows(known, ""), await restoredRows(unknown, prefix)]).toEqual([[1, 10, 11], [1, 20]]);
  }, 120_000);

  it("and was copied before: the copy has written since, so it is none of an upgrade", async () => {
    let [known] = [await source(ours)];
    await query(known.url, "delete from backup.claims where number = (select max(number) from backup.claims)");
    await cluster().stop("fast");
    giveNewIdentity(cluster().dataDirectory);
    await cluster().start();
    known = within(known, cluster());
    await write(known, 10);
    expect(await prefixOf(known)).toMatch(/^clone-/);
  }, 120_000);
});

describe("a claim", () => {
  const claims = (one: One, prefix = "") =>
    [...one.store.objects.keys()].filter((name) => name.startsWith(`${prefix}v1/claims/`));

  it.each(["claim.intended", "claim.put"])(
    "whose writer dies at %s is known as its own by the next one",
    async (step) => {
      const one = await source(ours);
      await query(one.url, "update backup.claims set held_at = now() - interval '2 hours'");
      const before = claims(one).length;
      one.killer.arm(`step:${step}`);
      await expect(drain(one)).rejects.toThrow();
      expect([one.killer.fired, claims(one).length]).toEqual([1, before + (step === "claim.put" ? 1 : 0)]);
      one.killer.disarm();
      await leaseRunsOut(one.url);
      await insert(one, 2);
      expect(await drain(one)).toMatchObject({ begun: false, chain: one.chain });
      expect([await prefixOf(one), await alerts(one), await restoredRows(one, "")]).toEqual(["", [], [1, 2]]);
    },
    60_000,
  );

  it("is made once an hour, and by a run and a drain of one database beside each other without harm", async () => {
    const one = await source(ours);
    await drain(one);
    const before = claims(one).length;
    await drain(one);
    expect(claims(one)).toHaveLength(before);
    await query(one.url, "update backup.claims set held_at = now() - interval '2 hours'");
    await insert(one, 2);
    await Promise.all([drain(one), backup(one.deps)]);
    expect(claims(one).length).toBeGreaterThan(before);
    expect([await prefixOf(one), await alerts(one), await restoredRows(one, "")]).toEqual(["", [], [1, 2]]);
  }, 60_000);

  it("of another install is respected: whoever is given its store by mistake writes apart from it", async () => {
    const [one, stranger] = [await source(ours), await source(theirs)];
    const lost: One = { ...stranger, store: one.store, deps: { ...stranger.deps, store: one.store } };
    const before = [...one.store.objects.keys()];
    await write(lost, 20);
    const prefix = await prefixOf(lost);
    expect([...one.store.objects.keys()].filter((name) => !before.includes(name) && !name.startsWith(prefix))).toEqual(
      [],
    );
    await write(one, 10);
    expect([await restoredRows(one, ""), await restoredRows(lost, prefix)]).toEqual([[1, 10], [1, 20]]);
  }, 60_000);

  it("of another install refuses whoever writes elsewhere and was only pointed at the wrong store", async () => {
    const [one, stranger] = [await source(ours), await source(theirs)];
    const before = [...one.store.objects.keys()];
    const wrong = { ...stranger.deps, store: { ...one.store, label: "another" } };
    await expect(backup(wrong)).rejects.toMatchObject({ code: "object_conflict" });
    await expect(drainNow(wrong)).rejects.toMatchObject({ code: "object_conflict" });
    expect([...one.store.objects.keys()]).toEqual(before);
    expect([await prefixOf(stranger), await drain(stranger)]).toMatchObject(["", {
      begun: false,
      chain: stranger.chain,
    }]);
  }, 60_000);

  it("that a store does not list although it has it stops the drain, and nothing is taken for lost", async () => {
    const one = await source(ours);
    const silent: Store = {
      ...one.store,
      async *list(prefix) {
        if (!prefix.startsWith("v1/claims/")) yield* one.store.list(prefix);
      },
    };
    await expect(drainNow({ ...one.deps, store: silent }, { projectRef: ours })).rejects.toMatchObject({
      code: "store_lied",
    });
    expect([await prefixOf(one), await drain(one)]).toMatchObject(["", { begun: false, chain: one.chain }]);
  }, 60_000);

  it("that is damaged is nobody's: whoever comes next writes apart from it", async () => {
    const one = await source(ours);
    const [newest = ""] = claims(one).sort().reverse();
    const bytes = one.store.objects.get(newest)?.slice() ?? new Uint8Array();
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    one.store.objects.set(newest, bytes);
    await write(one, 10);
    const prefix = await prefixOf(one);
    expect(prefix).toMatch(/^clone-/);
    expect(await restoredRows(one, prefix)).toEqual([1, 10]);
  }, 60_000);
});
