/** A drainer or a replay that dies anywhere, and what the next one makes of it. */
import { beforeAll, describe, expect, it } from "vitest";
import type { DrainOptions } from "../../src/shared/changes/drain/drain.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { backup } from "../integration/backup_fixture.ts";
import {
  drainNow,
  emptyTarget,
  insertedInto,
  leaseRunsOut,
  mortalSource,
  query,
  restored,
  type Source,
  storedChain,
  tableHashes,
} from "../integration/changes_stream_fixture.ts";
import { type Cluster, clusterMs, useCluster, withCluster } from "../support/cluster.ts";

/** So small that a transaction of a thousand rows is spooled and cut. */
const small = { segmentBytes: 16 * 1024, peekChanges: 200 };
/** Another drainer's. */
const other = { segmentBytes: 48 * 1024, peekChanges: 5000 };

async function source(cluster: Cluster) {
  const made = await mortalSource(cluster);
  await query(
    made.url,
    `create schema app;
     create table app.seen (id int primary key, t text);
     create table app.whole (id int, t text);
     alter table app.whole replica identity full;
     insert into app.seen select -i, 'before' from generate_series(1, 50) as i;
     insert into app.whole select i % 3, 'w' from generate_series(1, 30) as i;`,
  );
  const { chain } = await drainNow(made.deps);
  await backup(made.deps);
  return { ...made, chain: chain ?? "" };
}

describe("a drainer that is killed", () => {
  const cluster = useCluster();
  let from: Awaited<ReturnType<typeof source>>;
  let next = 1;
  const written: string[] = [];

  beforeAll(async () => {
    from = await source(cluster());
  }, clusterMs);

  /** Rows of one transaction; their ids are expected once each, in this order. */
  async function write(rows: number) {
    await query(
      from.url,
      `insert into app.seen select i, repeat('x', 40) from generate_series(${next}, ${next + rows - 1}) as i`,
    );
    for (let id = next; id < next + rows; id++) written.push(String(id));
    next += rows;
    await query(from.url, "update app.whole set t = t || 'u' where ctid = (select min(ctid) from app.whole)");
  }

  async function killed(event: string, nth: number, more: Partial<DrainOptions>) {
    from.killer.arm(event, nth);
    await expect(drainNow(from.deps, more)).rejects.toThrow();
    expect(from.killer.fired, `${event} was reached ${nth} times`).toBe(1);
    from.killer.disarm();
    expect(await query(from.url, "select worker is not null as held from backup.drain")).toEqual([{ held: true }]);
    await leaseRunsOut(from.url);
  }

  const steps = ["drain.peeked", "drain.sealed", "drain.put", "drain.recorded", "drain.advanced"];
  for (const step of steps) {
    it(`at ${step}: the next one stores every change once`, async () => {
      await write(5);
      await killed(`step:${step}`, 1, {});
      await write(5);
      expect(await drainNow(from.deps)).toMatchObject({ outcome: "caught_up", begun: false, chain: from.chain });
      expect(insertedInto(await storedChain(from.deps, from.chain), "app.seen")).toEqual(written);
    });
  }

  it("between its put and the reading back: the next one finds what is there, and stores every change once", async () => {
    await write(5);
    let puts = 0;
    const create = async (name: string, bytes: Uint8Array): Promise<never> => {
      puts++;
      await from.deps.store.create(name, bytes);
      throw new Error("killed behind the put");
    };
    await expect(drainNow({ ...from.deps, store: { ...from.deps.store, create } })).rejects.toThrow();
    expect(puts).toBe(1);
    expect(await drainNow(from.deps)).toMatchObject({ outcome: "caught_up", begun: false, chain: from.chain });
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.seen")).toEqual(written);
  });

  it("records nothing and moves no slot where the store gives back other bytes than were put", async () => {
    await write(5);
    const standing = () =>
      query(
        from.url,
        `select (select count(*) from backup.segments) as segments, confirmed_flush_lsn::text as at
           from pg_replication_slots where database = current_database()`,
      );
    const before = await standing();
    const read = async (name: string) => {
      const bytes = (await from.deps.store.read(name)).slice();
      if (name.startsWith("v1/changes/")) bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
      return bytes;
    };
    await expect(drainNow({ ...from.deps, store: { ...from.deps.store, read } }))
      .rejects.toMatchObject({ code: "store_lied" });
    expect(await standing()).toEqual(before);
    expect(await drainNow(from.deps)).toMatchObject({ outcome: "caught_up", begun: false, chain: from.chain });
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.seen")).toEqual(written);
  });

  const inSpool: [string, number][] = [
    ["drain.spooling", 1],
    ["step:drain.spooled", 1],
    ["step:drain.put", 2],
    ["step:drain.recorded", 2],
    ["step:drain.put", 4],
    ["step:drain.recorded", 3],
    ["step:drain.advanced", 2],
  ];
  for (const [event, nth] of inSpool) {
    it(`inside a transaction of many segments, at ${event} (${nth}): the next one goes on in it`, async () => {
      await write(3);
      await write(1000);
      await write(3);
      await killed(event, nth, { limits: small });
      expect(await drainNow(from.deps, { limits: small })).toMatchObject({ outcome: "caught_up", begun: false });
      const segments = await storedChain(from.deps, from.chain);
      expect(insertedInto(segments, "app.seen")).toEqual(written);
      expect(segments.at(-1)?.header.endsInTransaction).toBe(false);
    });
  }

  it("between its put and its record, and followed by one with other limits", async () => {
    await write(3);
    await write(1000);
    await killed("step:drain.put", 2, { limits: small });
    expect(await drainNow(from.deps, { limits: other })).toMatchObject({ outcome: "caught_up", begun: false });
    await write(3);
    await write(1000);
    await killed("step:drain.put", 3, { limits: other });
    expect(await drainNow(from.deps, { limits: small })).toMatchObject({ outcome: "caught_up", begun: false });
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.seen")).toEqual(written);
  });

  it("after it had put a long segment that another cuts into shorter ones with the same end", async () => {
    for (let part = 0; part < 4; part++) await write(100);
    await write(2000);
    // The long one ends before the transaction that no segment holds, and so does the last of the short ones.
    await killed("step:drain.put", 1, { limits: { segmentBytes: 64 * 1024, peekChanges: 100_000 } });
    expect(await drainNow(from.deps, { limits: { segmentBytes: 16 * 1024, peekChanges: 150 } }))
      .toMatchObject({ outcome: "caught_up", begun: false });
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.seen")).toEqual(written);
  });

  it("and after all of that a restore has every row once", async () => {
    const copy = await restored(cluster(), from.deps);
    expect(await tableHashes(copy.url)).toEqual(await tableHashes(from.url));
  }, 120_000);
});

describe("a server that crashes", () => {
  it("with its slot behind, and inside a transaction of 200,000 rows: no change is lost or stored twice", async () => {
    await withCluster({}, async (cluster) => {
      const from = await source(cluster);
      const limits = { segmentBytes: 1024 * 1024, peekChanges: 50_000 };
      const expected: string[] = [];
      for (let round = 0; round < 3; round++) {
        await query(from.url, `insert into app.seen values (${round + 1}, 'small')`);
        expected.push(String(round + 1));
        await drainNow(from.deps);
      }
      const [before] = await query(from.url, "select confirmed_flush_lsn as at from pg_replication_slots");
      await cluster.stop("immediate");
      await cluster.start();
      const source2 = reopened(from, cluster);
      const [after] = await query(
        source2.url,
        "select confirmed_flush_lsn < $1::pg_lsn as behind from pg_replication_slots",
        [
          before?.["at"],
        ],
      );
      expect(after, "the crash put the slot back").toEqual({ behind: true });
      await query(source2.url, "insert into app.seen select i, md5(i::text) from generate_series(1001, 201000) as i");
      for (let id = 1001; id <= 201_000; id++) expected.push(String(id));

      source2.killer.arm("step:drain.recorded", 4);
      await expect(drainNow(source2.deps, { limits })).rejects.toThrow();
      expect(source2.killer.fired).toBe(1);
      source2.killer.disarm();
      await leaseRunsOut(source2.url);
      const [spooled] = await query(source2.url, "select count(*)::int as rows from backup.spool");
      expect(spooled?.["rows"]).toBeGreaterThan(200_000);
      await cluster.stop("immediate");
      await cluster.start();
      const source3 = reopened(source2, cluster);
      expect(await query(source3.url, "select count(*)::int as rows from backup.spool")).toEqual([{ rows: 0 }]);
      expect(await drainNow(source3.deps, { limits })).toMatchObject({ outcome: "caught_up", begun: false });
      const segments = await storedChain(source3.deps, from.chain);
      expect(segments.filter((one) => one.header.part > 0).length).toBeGreaterThan(5);
      expect(segments.every((one) => one.records.length <= 1024 * 1024 + 64)).toBe(true);
      expect(insertedInto(segments, "app.seen")).toEqual(expected);
      const copy = await restored(cluster, source3.deps);
      expect(await tableHashes(copy.url)).toEqual(await tableHashes(source3.url));
      // A full behind the parts: its restore begins in the middle of the chain.
      await backup(source3.deps);
      await query(source3.url, "update app.seen set t = 'late' where id < 10");
      await drainNow(source3.deps);
      const later = await restored(cluster, source3.deps);
      expect(await tableHashes(later.url)).toEqual(await tableHashes(source3.url));
    });
  }, 300_000);
});

/** The same source after its server was started again: the port may be another one. */
function reopened<T extends Source>(from: T, cluster: Cluster): T {
  const name = new URL(from.url).pathname.slice(1);
  const url = cluster.plainUrl("postgres", name);
  return { ...from, url, deps: { ...from.deps, database: from.killer.mortal(openDatabase({ url })) } };
}

describe("a replay that is killed", () => {
  const cluster = useCluster();
  it("after any of its transactions, goes on and applies every change once, also to rows without a key", async () => {
    const from = await source(cluster());
    for (let round = 1; round <= 6; round++) {
      await query(
        from.url,
        `insert into app.whole values (1, 'w'), (1, 'w'), (2, null);
         delete from app.whole where ctid = (select min(ctid) from app.whole where id = 1 and t = 'w');
         update app.whole set t = 'r${round}' where ctid = (select min(ctid) from app.whole where id = 2);`,
      );
      await query(from.url, `insert into app.seen select ${round * 100} + i, 'n' from generate_series(1, 20) as i`);
      // Each change of definitions ends a group.
      await query(from.url, `alter table app.seen add column c${round} int default ${round}`);
      await query(from.url, `update app.seen set c${round} = id where id % 5 = 0`);
      await drainNow(from.deps);
    }
    const expected = await tableHashes(from.url);
    const copy = await emptyTarget(cluster());
    const deps = { ...from.deps, target: from.killer.mortal(copy.target) };
    const plan = await planPoint(deps, { by: "end" });
    let kills = 0;
    for (
      const [event, nth] of [["step:replay.group", 1], ["step:replay.ddl", 1], ["step:replay.group", 2], [
        "step:replay.ddl",
        2,
      ]] as const
    ) {
      from.killer.arm(event, nth);
      await expect(restorePoint(deps, plan)).rejects.toThrow();
      kills += from.killer.fired;
      from.killer.disarm();
    }
    expect(kills).toBe(4);
    expect(await restorePoint(deps, plan)).toMatchObject({ ok: true, resumed: true });
    expect(await tableHashes(copy.url)).toEqual(expected);
  }, 240_000);
});
