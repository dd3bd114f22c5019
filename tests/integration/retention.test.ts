/** A prune removes what it planned, from both stores, and what nobody names any more; and meets what goes on beside it. */
import { beforeAll, describe, expect, it } from "vitest";
import { planPoint } from "../../src/shared/changes/plan/plan_point.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, manifestOf, query } from "./backup_fixture.ts";
import { copies, type Pair, smallBudget } from "./replicate_fixture.ts";
import {
  age,
  damage,
  fiveBackups,
  type Fulls,
  namedIn,
  objectsIn,
  passGrace,
  prune,
  verified,
} from "./retention_fixture.ts";

const cluster = useCluster();
const statusOf = async (pair: Pair, run: string) =>
  (await query(pair.url, "select status from backup.runs where id = $1", [run]))[0]?.["status"];

describe("a prune", () => {
  let pair: Pair;
  let fulls: Fulls;
  beforeAll(async () => ({ pair, fulls } = await fiveBackups(cluster())), 180_000);

  it("takes the old backup out of both stores, its objects two days later, and nothing else", async () => {
    const before = await objectsIn(pair.store);
    const run = await prune(pair, { budget: () => smallBudget(150) });
    expect(run).toMatchObject({ status: "succeeded", warnings: [] });
    expect(await statusOf(pair, fulls.old.id)).toBe("pruned");
    const names = fulls.kept.map(({ manifestName }) => manifestName).sort();
    for (const store of [pair.store, pair.second]) expect((await namedIn(pair, store)).manifests).toEqual(names);
    // Condemned, and still there.
    expect(await objectsIn(pair.store)).toEqual(before);
    const [condemned] = await query(pair.url, "select count(*)::int as n from backup.condemned");
    expect(condemned?.["n"]).toBeGreaterThan(2);
    await passGrace(pair);
    expect(await prune(pair)).toMatchObject({ status: "succeeded", warnings: [] });
    for (const store of [pair.store, pair.second]) {
      expect(await objectsIn(store)).toEqual((await namedIn(pair, store)).objects);
    }
    expect((await objectsIn(pair.store)).length).toBeLessThan(before.length);
    expect(await damage(pair)).toEqual([]);
    expect(await query(pair.url, "select from backup.condemned")).toEqual([]);
    const audited = await query(pair.url, "select subject from backup.audit_log where action = 'backup.pruned'");
    expect(audited).toEqual([{ subject: `run:${fulls.old.id}` }]);
  }, 180_000);

  it("takes the segments that no moment within the window needs, and leaves every such moment restorable", async () => {
    const gone = await query(
      pair.url,
      "select name from backup.removals where kind = 'segment' and removed_at is not null",
    );
    expect(gone.length).toBeGreaterThan(0);
    for (const { name } of gone as { name: string }[]) {
      for (const store of [pair.store, pair.second]) expect(await store.size(name)).toBeNull();
    }
    for (const full of fulls.kept) {
      // As the store tells it: from its own moment on.
      const { consistentAt } = await manifestOf(pair.deps, full);
      const at = (BigInt(new Date(consistentAt).getTime()) + 2n) * 1000n;
      const plan = await planPoint({ ...pair.deps, target: pair.deps.database }, { by: "time", at });
      expect(plan.full.manifest.id).toBe(full.id);
    }
  });

  it("leaves the change stream and the replication as they were: both go on", async () => {
    await query(pair.url, "insert into public.notes values (5000, 'after')");
    const next = await backup(pair.deps);
    expect(await copies(pair)).toMatchObject({ status: "succeeded" });
    expect(await damage(pair)).toEqual([]);
    expect(await statusOf(pair, next.id)).toBe("succeeded");
    expect(await query(pair.url, "select from backup.gaps")).toEqual([]);
  }, 120_000);

  it("removes nothing while the newest backup is not verified, and says so", async () => {
    await age(pair, fulls.kept[0]?.id ?? "", 200);
    const run = await prune(pair);
    expect(run.warnings).toMatchObject([{ code: "nothing_removed" }]);
    expect(await statusOf(pair, fulls.kept[0]?.id ?? "")).toBe("succeeded");
  });
});

describe("beside a running backup", () => {
  it("an object that the backup finds again is not swept under its hands", async () => {
    const { pair, fulls } = await fiveBackups(cluster());
    // A table whose rows come back as they were: the same object under the same name, which nobody names by then.
    await query(pair.url, "create table public.again as select i, md5(i::text) as t from generate_series(1, 500) as i");
    const first = await backup(pair.deps);
    await query(pair.url, "drop table public.again");
    for (let n = 0; n < 4; n++) {
      const { id } = await backup(pair.deps);
      await verified(pair, id);
    }
    await copies(pair);
    for (const [index, { id }] of [first, ...fulls.kept].entries()) await age(pair, id, 210 - index);
    await prune(pair);
    await passGrace(pair);
    const condemned = new Set(
      (await query(pair.url, "select name from backup.condemned")).map((row) => String(row["name"])),
    );
    expect(await statusOf(pair, first.id)).toBe("pruned");
    await query(pair.url, "create table public.again as select i, md5(i::text) as t from generate_series(1, 500) as i");
    let swept = 0;
    const busy: Store = {
      ...pair.store,
      read: async (name) => {
        const bytes = await pair.store.read(name);
        // Read back, and not yet recorded: the sharpest moment.
        if (condemned.has(name) && swept++ === 0) await prune(pair);
        return bytes;
      },
    };
    const again = await backup({ ...pair.deps, store: busy });
    expect(again.status).toBe("succeeded");
    expect(swept).toBeGreaterThan(0);
    await verified(pair, again.id);
    await passGrace(pair);
    await prune(pair);
    await copies(pair);
    await prune(pair);
    expect(await damage(pair)).toEqual([]);
    expect((await namedIn(pair, pair.store)).objects.some((name) => condemned.has(name))).toBe(true);
  }, 240_000);

  it("a condemned object is not taken over unread", async () => {
    const { pair, fulls } = await fiveBackups(cluster());
    const plain = await backup(pair.deps);
    const taken = "select count(*)::int as n from backup.chunks where run_id = $1 and taken_from is not null";
    expect((await query(pair.url, taken, [plain.id]))[0]?.["n"]).toBeGreaterThan(0);
    await query(
      pair.url,
      `insert into backup.condemned (store, name, run_id) select 'memory', c.object, c.run_id from backup.chunks as c where c.run_id = $1
       on conflict do nothing`,
      [plain.id],
    );
    const next = await backup(pair.deps);
    expect((await query(pair.url, taken, [next.id]))[0]?.["n"]).toBe(0);
    // What it named is condemned no more.
    expect(await query(pair.url, "select from backup.condemned")).toEqual([]);
    expect(fulls.kept.length).toBe(4);
  }, 180_000);
});

describe("beside a restore", () => {
  it("a backup that a restore begins with between plan and order stays, until the restore has ended", async () => {
    const { pair, fulls } = await fiveBackups(cluster());
    let begun = 0;
    const busy: Store = {
      ...pair.store,
      async *list(prefix) {
        // The facts are read, the store is being listed.
        if (prefix === "v1/backups/" && begun++ === 0) {
          await query(pair.url, "select backup.begin_restore($1)", [
            JSON.stringify({ scope: "full", mode: "beside", source_backup: fulls.old.id, target_label: "copy" }),
          ]);
        }
        yield* pair.store.list(prefix);
      },
    };
    expect(await prune(pair, { first: busy })).toMatchObject({ status: "succeeded", warnings: [] });
    expect(begun).toBeGreaterThan(1);
    expect(await statusOf(pair, fulls.old.id)).toBe("succeeded");
    await query(pair.url, "update backup.restores set lease_until = now() - interval '1 minute'");
    await query(pair.url, "select backup.cancel_restore(id) from backup.restores");
    await prune(pair);
    expect(await statusOf(pair, fulls.old.id)).toBe("pruned");
    // And one that begins afterwards is told.
    await expect(query(pair.url, "select backup.begin_restore($1)", [
      JSON.stringify({ scope: "full", mode: "beside", source_backup: fulls.old.id, target_label: "copy" }),
    ])).rejects.toThrow("was removed by retention");
  }, 180_000);
});
