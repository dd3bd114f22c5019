/** Prunes that are killed at each step, and stores that fail under them: afterwards it is as if they had not been. */
import { beforeAll, describe, expect, it } from "vitest";
import { useCluster } from "../support/cluster.ts";
import { faulty } from "../support/faulty_store.ts";
import { query } from "../integration/backup_fixture.ts";
import { copies, type Pair } from "../integration/replicate_fixture.ts";
import {
  age,
  damage,
  fiveBackups,
  type Fulls,
  namedIn,
  objectsIn,
  oneMore,
  passGrace,
  prune,
} from "../integration/retention_fixture.ts";
import { sampled } from "../support/sampled.ts";

const cluster = useCluster();
const statusOf = async (pair: Pair, run: string) =>
  (await query(pair.url, "select status from backup.runs where id = $1", [run]))[0]?.["status"];

/** What a prune that nothing disturbed leaves: exactly what the manifests name, in both stores, and no work. */
async function expectClean(pair: Pair, { old, kept }: Fulls): Promise<void> {
  expect(await statusOf(pair, old.id)).toBe("pruned");
  for (const store of [pair.store, pair.second]) {
    const { manifests, objects } = await namedIn(pair, store);
    expect(manifests).toEqual(kept.map(({ manifestName }) => manifestName).sort());
    expect(await objectsIn(store)).toEqual(objects);
  }
  expect(await query(pair.url, "select from backup.removals where removed_at is null")).toEqual([]);
}

describe("a prune that is killed", () => {
  let pair: Pair;
  let fulls: Fulls;
  beforeAll(async () => ({ pair, fulls } = await fiveBackups(cluster())), 180_000);

  async function killedAt(event: string): Promise<void> {
    pair.killer.arm(`step:${event}`);
    await expect(prune(pair, { database: pair.killer.mortal(pair.deps.database) })).rejects.toThrow();
    expect(pair.killer.fired).toBe(1);
    pair.killer.disarm();
    await query(pair.url, "update backup.tasks set lease_until = now() - interval '1 second' where status = 'leased'");
    expect(await damage(pair)).toEqual([]);
  }

  const points = ["prune.claimed", "prune.planned", "prune.ordered", "prune.removed", "prune.recorded", "prune.opened"];
  // Until something is ordered, a prune that is killed leaves nothing but its lease.
  const leaves = (point: string) => [points.indexOf(point) < 2 ? "nothing" : point];
  it.each(sampled("points", points, 5, leaves))(
    "at %s goes on",
    async (event) => {
      await killedAt(event);
      await prune(pair);
      await passGrace(pair);
      await prune(pair);
      await expectClean(pair, fulls);
      fulls = await oneMore(pair, fulls);
    },
    180_000,
  );

  it.each(["prune.sweeping", "prune.swept"])(
    "at %s goes on, also beside the next backup",
    async (event) => {
      await prune(pair);
      await passGrace(pair);
      await killedAt(event);
      expect(await query(pair.url, "select from backup.condemned where status = 'deleting'")).not.toEqual([]);
      // A backup that has begun meanwhile keeps nobody from ending what is under way.
      await query(pair.url, "select backup.request_run('full', '{manual}', 'http', null)");
      await prune(pair);
      expect(await query(pair.url, "select from backup.condemned where status = 'deleting'")).toEqual([]);
      await query(pair.url, "select backup.cancel_run(id) from backup.runs where kind = 'full' and status = 'queued'");
      await passGrace(pair);
      await prune(pair);
      await expectClean(pair, fulls);
      fulls = await oneMore(pair, fulls);
    },
    180_000,
  );
});

describe("a store that fails under a prune", () => {
  let pair: Pair;
  let fulls: Fulls;
  beforeAll(async () => ({ pair, fulls } = await fiveBackups(cluster())), 180_000);
  const untouched = async () => {
    expect(await statusOf(pair, fulls.old.id)).toBe("succeeded");
    expect((await namedIn(pair, pair.store)).manifests.length).toBe(5);
    expect((await namedIn(pair, pair.second)).manifests.length).toBe(5);
  };

  it.each([["v1/backups/"], ["v1/changes/"]])(
    "with a listing of %s that is cut short in silence: nothing is removed",
    async (prefix) => {
      for (const which of ["first", "second"] as const) {
        const bad = faulty(which === "first" ? pair.store : pair.second, [
          { call: "list", prefix, kind: "short_listing", times: Infinity },
        ]);
        const labelled = { ...bad, label: which === "first" ? pair.store.label : pair.second.label };
        const run = await prune(pair, { [which]: labelled });
        bad.assertAllFired();
        expect(run.warnings).toMatchObject([{ code: "nothing_removed" }]);
        await untouched();
      }
    },
    120_000,
  );

  it("with a listing that fails: the run fails, and nothing is removed", async () => {
    const bad = faulty(pair.second, [{ call: "list", prefix: "v1/backups/", kind: "store_denied", times: Infinity }]);
    expect(await prune(pair, { second: { ...bad, label: pair.second.label } })).toMatchObject({ status: "failed" });
    bad.assertAllFired();
    await untouched();
  }, 120_000);

  it("midway: what was ordered goes with the next prune", async () => {
    const bad = faulty(pair.store, [{ call: "remove", kind: "store_unreachable", times: Infinity }]);
    expect(await prune(pair, { first: { ...bad, label: pair.store.label } })).toMatchObject({
      status: "failed",
      errorCode: "store_unreachable",
    });
    bad.assertAllFired();
    expect(await statusOf(pair, fulls.old.id)).toBe("pruned");
    expect(await damage(pair)).toEqual([]);
    await prune(pair);
    await passGrace(pair);
    await prune(pair);
    await expectClean(pair, fulls);
    expect(await query(pair.url, "select from backup.alerts where kind = 'prune_failed' and status <> 'resolved'"))
      .toEqual([]);
  }, 120_000);

  it("with a lock on what is to go: it is named, and goes once the lock is over", async () => {
    const victim = fulls.kept[0];
    await age(pair, victim?.id ?? "", 200);
    await age(pair, fulls.kept[1]?.id ?? "", 20);
    const bad = faulty(pair.second, [{ call: "remove", prefix: "v1/backups/", kind: "store_denied", times: Infinity }]);
    const run = await prune(pair, { second: { ...bad, label: pair.second.label } });
    bad.assertAllFired();
    expect(run).toMatchObject({ status: "succeeded", warnings: [{ code: "removal_refused" }] });
    expect((await query(pair.url, "select name from backup.removals where refusal is not null"))[0]?.["name"])
      .toBe(victim?.manifestName);
    // Its manifest lies there, so its objects do.
    await passGrace(pair);
    await prune(pair, { second: { ...bad, label: pair.second.label } });
    expect(await damage(pair)).toEqual([]);
    expect(await prune(pair)).toMatchObject({ warnings: [] });
    await passGrace(pair);
    await prune(pair);
    await expectClean(pair, { old: fulls.old, kept: fulls.kept.slice(1) });
    await copies(pair);
  }, 120_000);
});
