/** What the second store lacks comes there: in an order in which it can be restored at every moment, within the egress of a day. */
import { beforeAll, describe, expect, it } from "vitest";
import { objectsOf } from "../../src/shared/format/manifest.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, manifestOf, query } from "./backup_fixture.ts";
import { drainNow } from "./changes_stream_fixture.ts";
import { copies, differences, type Pair, pairOfStores, smallBudget } from "./replicate_fixture.ts";

const cluster = useCluster();

async function withRows(): Promise<Pair> {
  const pair = await pairOfStores(cluster());
  await query(pair.url, "create table public.notes (id int primary key, t text not null)");
  await query(
    pair.url,
    "insert into public.notes select i, repeat(md5(i::text), 8) from generate_series(1, 4000) as i",
  );
  return pair;
}

const one = async (pair: Pair, text: string, values: unknown[] = []) => (await query(pair.url, text, values))[0];
const complete = async (pair: Pair, run: string) =>
  (await one(pair, "select complete_at is not null as c from backup.runs where id = $1", [run]))?.["c"];
const alerts = async (pair: Pair) =>
  await query(
    pair.url,
    "select kind, message from backup.alerts where status <> 'resolved' and kind ~ '^cop' order by kind",
  );

describe("a run that copies", () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await withRows();
  }, 180_000);

  it("brings everything that the first store holds, in legs, and only then is a backup complete", async () => {
    await copies(pair);
    await drainNow(pair.deps);
    const full = await backup(pair.deps);
    await query(pair.url, "update public.notes set t = 'changed' where id < 50");
    await drainNow(pair.deps);
    expect(await complete(pair, full.id)).toBe(false);
    let legs = 0;
    const run = await copies(pair, {
      budget: () => {
        legs++;
        return smallBudget();
      },
    });
    expect(run).toMatchObject({ kind: "replicate", status: "succeeded", warnings: [] });
    expect(legs).toBeGreaterThan(3);
    expect([...pair.store.objects.keys()].filter((name) => name.startsWith("v1/changes/")).length).toBeGreaterThan(1);
    expect([...pair.store.objects.keys()].filter((name) => name.startsWith("v1/anchors/")).length).toBeGreaterThan(0);
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
    expect(await complete(pair, full.id)).toBe(true);
    const copied = await query(
      pair.url,
      "select name, second_bytes::int as bytes from backup.copies where status = 'stored'",
    );
    expect(new Map(copied.map((row) => [row["name"], row["bytes"]])))
      .toEqual(new Map([...pair.second.objects].map(([name, bytes]) => [name, bytes.byteLength])));
    expect(await query(pair.url, "select from backup.copy_needs union all select from backup.copy_intents")).toEqual(
      [],
    );
  });

  it("finds nothing to do the second time, and writes nothing", async () => {
    const before = new Map(pair.second.objects);
    const run = await copies(pair);
    expect(run).toMatchObject({ status: "succeeded", rows: 0 });
    for (const [name, bytes] of pair.second.objects) expect(bytes, name).toBe(before.get(name));
  });

  it("ends the hours of the stream as complete once their segments are there", async () => {
    await query(pair.url, "select backup.seal_incrementals(true)");
    const runs = "select complete_at is not null as c from backup.runs where kind = 'incremental'";
    expect(await query(pair.url, runs)).toEqual([{ c: true }]);
    await drainNow(pair.deps);
    await query(pair.url, "select backup.seal_incrementals(true)");
    expect(await query(pair.url, runs)).toContainEqual({ c: false });
    await copies(pair);
    expect(await query(pair.url, runs)).not.toContainEqual({ c: false });
  });

  it("follows keys that were rewritten", async () => {
    const key = [...pair.store.objects.keys()].find((name) => name.startsWith("v1/keys/")) ?? "";
    const text = new TextDecoder().decode(pair.store.objects.get(key));
    pair.store.objects.set(key, new TextEncoder().encode(` ${text}`));
    await copies(pair);
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
  });
});

describe("the order of copies", () => {
  it("never leaves a manifest without its objects, nor a segment without those before it", async () => {
    const pair = await withRows();
    await drainNow(pair.deps);
    const first = await backup(pair.deps);
    await query(pair.url, "insert into public.notes select i, 'more ' || i from generate_series(5001, 6000) as i");
    await drainNow(pair.deps);
    const second = await backup(pair.deps);
    const needs = new Map<string, string[]>();
    for (const run of [first, second]) {
      needs.set(run.manifestName ?? "", objectsOf(await manifestOf(pair.deps, run)).map(({ name }) => name));
    }
    const segments = [...pair.store.objects.keys()].filter((name) => name.startsWith("v1/changes/")).sort();
    const order: string[] = [];
    const watched: Store = {
      ...pair.second,
      create: async (name, bytes) => {
        if (name.endsWith("/manifest")) {
          expect(needs.get(name)?.filter((object) => !pair.second.objects.has(object))).toEqual([]);
        }
        if (name.startsWith("v1/changes/")) {
          expect(segments.filter((one) => one < name && !pair.second.objects.has(one))).toEqual([]);
        }
        order.push(name);
        return await pair.second.create(name, bytes);
      },
    };
    expect(await copies(pair, { second: watched, budget: () => smallBudget(60) })).toMatchObject({
      status: "succeeded",
    });
    expect(order.filter((name) => name.endsWith("/manifest"))).toEqual([second.manifestName, first.manifestName]);
    expect(order.findIndex((name) => name.startsWith("v1/keys/"))).toBeLessThan(
      order.findIndex((name) => name.startsWith("v1/objects/")),
    );
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
  });
});

describe("the egress of a day", () => {
  it("holds across legs and runs, and goes on the day after", async () => {
    const pair = await withRows();
    await query(
      pair.url,
      `create table public.noise as select i, (select string_agg(md5(random()::text || i || n), '') from generate_series(1, 250) as n) as t
       from generate_series(1, 700) as i`,
    );
    await backup(pair.deps);
    const total = [...pair.store.objects.values()].reduce((sum, bytes) => sum + bytes.byteLength, 0);
    expect(total).toBeGreaterThan(2.5 * 1024 * 1024);
    await query(pair.url, "update backup.settings set value = '1' where name = 'egress_mb_per_day'");
    const sent = counted(pair);
    const setDay = async (day: number) =>
      await query(
        pair.url,
        `create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
         as $$ select pg_catalog.clock_timestamp() + interval '${day} days' $$`,
      );
    let days = 0;
    for (; days < 12; days++) {
      await setDay(days);
      const before = sent.bytes;
      const run = await copies(pair, { second: sent.store, budget: () => smallBudget(80) });
      expect(run.status).toBe("succeeded");
      // Again on the same day: not a byte more than the day has.
      const again = await copies(pair, { second: sent.store });
      expect(sent.bytes - before).toBeLessThanOrEqual(1024 * 1024);
      if (again.warnings.length === 0) break;
      expect(again.warnings).toMatchObject([{ code: "egress_spent" }]);
      expect(sent.bytes - before).toBeGreaterThan(512 * 1024);
    }
    expect(days).toBeGreaterThanOrEqual(2);
    expect(days).toBeLessThan(8);
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
    // The day's last moment and the next day's first are two days.
    const [used] = await query(
      pair.url,
      "select max(bytes)::int as most, count(*)::int as days from backup.copy_egress",
    );
    expect(used).toMatchObject({ days: days + 1 });
    expect(Number(used?.["most"])).toBeLessThanOrEqual(1024 * 1024);
  });
});

describe("what the watchdog says of the second store", () => {
  it("is an alert once something is missing for too long, which ends by itself", async () => {
    const pair = await withRows();
    await copies(pair);
    await backup(pair.deps);
    expect(await query(pair.url, "select backup.watch_copies() as n")).toEqual([{ n: 0 }]);
    await query(
      pair.url,
      "update backup.runs set finished_at = finished_at + interval '0', origin = 'schedule' where kind = 'full'",
    );
    const late =
      "create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = '' as $$ select pg_catalog.clock_timestamp() + interval '7 hours' $$";
    await query(pair.url, late);
    expect(await query(pair.url, "select backup.watch_copies() as n")).toEqual([{ n: 1 }]);
    expect(await alerts(pair)).toMatchObject([{ kind: "copies_late" }]);
    await copies(pair);
    expect(await alerts(pair)).toEqual([]);
    expect(await query(pair.url, "select backup.watch_copies() as n")).toEqual([{ n: 0 }]);
  });

  it("is nothing where there is no second store, and a backup is complete with the first", async () => {
    const pair = await withRows();
    const full = await backup(pair.deps);
    expect(await complete(pair, full.id)).toBe(true);
    expect(await query(pair.url, "select run from backup.request_copies('http', false)")).toEqual([{ run: null }]);
    expect(await query(pair.url, "select * from backup.copy_lag()")).toEqual([]);
    await query(pair.url, "select backup.tell_stores('first', 'second')");
    expect(await complete(pair, full.id)).toBe(false);
    await query(pair.url, "select backup.tell_stores('first', null)");
    expect(await complete(pair, full.id)).toBe(true);
    expect(await alerts(pair)).toEqual([]);
  });
});

describe("a copy that is gone again", () => {
  it("is noticed within a day, told, and made again with its backup open meanwhile", async () => {
    const pair = await withRows();
    const full = await backup(pair.deps);
    await copies(pair);
    expect(await complete(pair, full.id)).toBe(true);
    const object = [...pair.second.objects.keys()].find((name) => name.startsWith("v1/objects/")) ?? "";
    pair.second.objects.delete(object);
    const other = [...pair.second.objects.keys()].findLast((name) => name.startsWith("v1/objects/")) ?? "";
    pair.second.objects.set(other, (pair.second.objects.get(other) ?? new Uint8Array()).slice(1));
    await copies(pair);
    expect(pair.second.objects.has(object)).toBe(false);
    await query(
      pair.url,
      "create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = '' as $$ select pg_catalog.clock_timestamp() + interval '25 hours' $$",
    );
    const seen: unknown[] = [];
    const watched: Store = {
      ...pair.second,
      create: async (name, bytes) => {
        if (name === object) {
          seen.push(
            await complete(pair, full.id),
            ...(await alerts(pair)).map((row) => row["kind"]),
          );
        }
        return await pair.second.create(name, bytes);
      },
    };
    expect(await copies(pair, { second: watched })).toMatchObject({ status: "succeeded" });
    expect(seen).toEqual([false, "copies_lost"]);
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
    expect(await complete(pair, full.id)).toBe(true);
    expect(await alerts(pair)).toEqual([]);
  });
});

/** Bytes that were sent. */
function counted(pair: Pair): { readonly store: Store; bytes: number } {
  const counter = {
    bytes: 0,
    store: {
      ...pair.second,
      create: async (name: string, bytes: Uint8Array) => {
        counter.bytes += bytes.byteLength;
        return await pair.second.create(name, bytes);
      },
      replace: async (name: string, bytes: Uint8Array) => {
        counter.bytes += bytes.byteLength;
        await pair.second.replace(name, bytes);
      },
    } as Store,
  };
  return counter;
}
