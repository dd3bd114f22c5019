/** Disks that fill up while a change stream is kept: the one of the log, and the one of the store. */
import { renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { functionLimits } from "../../src/shared/backup/limits.ts";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { backup } from "../integration/backup_fixture.ts";
import {
  drainNow,
  insertedInto,
  mortalSource,
  query,
  restored,
  type Source,
  storedChain,
  tableHashes,
} from "../integration/changes_stream_fixture.ts";
import { type Cluster, clusterMs, startTestCluster, useCluster } from "../support/cluster.ts";
import { makeSmallDisk, type SmallDisk } from "./small_disk.ts";

const mib = 1 << 20;
const diskBytes = 128 * mib;
/** Of the slot, far below what the disk has. */
const limitMb = 48;
/** Rows of one minute, some 9 MB of log. */
const minuteRows = 8_000;

describe("the log on a small disk", () => {
  let cluster: Cluster;
  let disk: SmallDisk;
  let from: Source;

  beforeAll(async () => {
    disk = makeSmallDisk(diskBytes);
    // Small enough to leave room: what the server keeps of its own accord is not what fills the disk.
    cluster = await startTestCluster({ settings: { max_wal_size: "32MB", min_wal_size: "32MB" } });
    await cluster.stop("fast");
    moveLog(cluster, disk);
    await cluster.start();
    from = await mortalSource(cluster);
    await query(
      from.url,
      `create schema app; create table app.log (id int primary key, t text); create table app.total (n bigint);
       alter table app.total replica identity full; insert into app.total values (0);
       update backup.settings set value = '${limitMb}' where name = 'slot_limit_mb'`,
    );
    await drainNow(from.deps);
    await backup(from.deps);
    await drainNow(from.deps);
  }, clusterMs);

  afterAll(async () => {
    try {
      await cluster?.stop("immediate");
    } finally {
      disk?.remove();
      await cluster?.destroy();
    }
  }, clusterMs);

  let next = 1;

  /** What an application does in a minute, and the checkpoint that gives old log back where nobody holds it. */
  async function minute(): Promise<void> {
    const to = next + minuteRows - 1;
    await query(
      from.url,
      `insert into app.log select i, repeat(md5(i::text), 32) from generate_series(${next}, ${to}) as i`,
    );
    await query(from.url, `update app.total set n = n + ${minuteRows}`);
    next = to + 1;
    await checkpoint();
  }

  const checkpoint = () => query(cluster.plainUrl(cluster.superuser), "checkpoint");
  const guard = async () => (await query(from.url, "select backup.guard_slot() as what"))[0]?.["what"];
  const slots = () => query(from.url, "select slot_name from pg_replication_slots where database = current_database()");

  it("fills while nobody drains, until the guard gives the slot up: the database writes on", async () => {
    const { chain } = await drainNow(from.deps);
    const said = new Set<unknown>();
    for (let minutes = 0; !said.has("over the limit"); minutes++) {
      expect(minutes * minuteRows * 1024, "the guard let the disk fill up").toBeLessThan(diskBytes);
      await minute();
      said.add(await guard());
    }
    expect([...said], "it warned before").toEqual(["well", "behind", "over the limit"]);
    expect(await slots()).toEqual([]);
    expect(disk.usedBytes()).toBeGreaterThan(limitMb * mib);
    await checkpoint();
    expect(disk.usedBytes(), "the log was given back").toBeLessThan(limitMb * mib);

    // More than the whole disk has room for.
    for (let written = 0; written < diskBytes * 1.2; written += minuteRows * 1024) {
      await minute();
      expect(await guard()).toBeNull();
    }
    expect(await query(from.url, "select count(*)::int = max(n) as all from app.log, app.total")).toEqual([{
      all: true,
    }]);

    // What the disk is to show is shown; a restore on the same server writes log as well.
    await query(from.url, "delete from app.log where id > 500");
    const open = "select reason, to_lsn is null as open, from_lsn > '0/0' as known from backup.gaps";
    const reason = expect.stringMatching(/^the slot held back \d+ MB of WAL, more than 48 MB$/) as string;
    expect(await query(from.url, open)).toEqual([{ reason, open: true, known: true }]);
    const later = await drainNow(from.deps);
    expect(later).toMatchObject({ outcome: "caught_up", begun: true });
    expect(later.chain).not.toBe(chain);
    expect(await query(from.url, "select backup.chain_lacks_full() as lacks")).toEqual([{ lacks: true }]);
    // The table has 30,000 pages still: by chunks of 64 KiB that would be thousands of tasks.
    await backup(from.deps, { limits: functionLimits });
    await query(from.url, "update app.total set n = n + 1; delete from app.log where id % 3 = 0");
    await drainNow(from.deps);
    expect(await query(from.url, "select to_lsn > from_lsn as forward, to_at >= from_at as later from backup.gaps"))
      .toEqual([{ forward: true, later: true }]);
    const { windows, gaps } = (await ChangeHistory.read(from.deps)).timeline();
    expect([windows.map((window) => window.chain), gaps.length]).toEqual([[chain, later.chain], 1]);
    expect(await tableHashes((await restored(cluster, from.deps)).url)).toEqual(await tableHashes(from.url));
  }, 240_000);

  it("that is really full stops the server, and once there is room every change is stored once", async () => {
    await query(from.url, "truncate app.log");
    next = 1;
    const { chain } = await drainNow(from.deps);
    await backup(from.deps);
    const before = (await storedChain(from.deps, chain ?? "")).length;
    const failure = await fillUp();
    expect(failure, "the disk was never full").not.toBeNull();
    const deadline = performance.now() + 60_000;
    while (cluster.running && await isAlive()) {
      if (performance.now() > deadline) throw new Error("a server without log goes on");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    disk.resize(4 * diskBytes);
    await cluster.stop("immediate");
    await cluster.start();
    const url = cluster.plainUrl("postgres", new URL(from.url).pathname.slice(1));
    from = { ...from, url, deps: { ...from.deps, database: from.killer.mortal(openDatabase({ url })) } };

    expect(await drainNow(from.deps)).toMatchObject({ outcome: "caught_up", begun: false, chain });
    const segments = (await storedChain(from.deps, chain ?? "")).slice(before);
    const ids = await query(from.url, "select l.id from app.log as l order by l.id");
    expect(ids.length).toBeGreaterThan(3 * minuteRows);
    expect(insertedInto(segments, "app.log").map(Number).sort((a, b) => a - b)).toEqual(
      ids.map(({ id }) => Number(id)),
    );
    expect(await tableHashes((await restored(cluster, from.deps)).url)).toEqual(await tableHashes(from.url));
  }, 240_000);

  /** Nobody drains and nobody guards: the error that ends it, or null. */
  async function fillUp(): Promise<unknown> {
    for (let written = 0; written < 2 * diskBytes; written += minuteRows * 1024) {
      try {
        await minute();
      } catch (error) {
        return error;
      }
    }
    return null;
  }

  async function isAlive(): Promise<boolean> {
    return await query(from.url, "create temporary table alive ()").then(() => true, () => false);
  }
});

describe("a store that is full while the stream is drained", () => {
  const cluster = useCluster();
  let disk: SmallDisk;

  beforeAll(() => {
    disk = makeSmallDisk(64 * mib);
  });
  afterAll(() => disk?.remove());

  const large = { segmentBytes: 32 * mib, peekChanges: 400_000 };
  const small = { segmentBytes: 256 * 1024, peekChanges: 1000 };
  it.each([
    { name: "from its first segment on", limits: large, room: 64 * 1024, some: false, parts: 40 },
    { name: "after some segments", limits: small, room: mib, some: true, parts: 40 },
    { name: "inside a transaction of many", limits: small, room: mib, some: true, parts: 1 },
  ])("$name: the drain fails by name, the slot waits, and with room all of it is stored once", async (given) => {
    disk.resize(64 * mib);
    const made = await mortalSource(cluster());
    const from = { ...made, deps: { ...made.deps, store: createFileStore(disk.directory) } };
    rmSync(join(disk.directory, "v1"), { recursive: true, force: true });
    await query(from.url, "create schema app; create table app.log (id int primary key, t text)");
    const { chain } = await drainNow(from.deps);
    await backup(from.deps);
    const rows = 8000 / given.parts;
    for (let part = 0; part < given.parts; part++) {
      await query(
        from.url,
        `insert into app.log select i, (select string_agg(md5(i || ':' || g), '') from generate_series(1, 16) as g)
           from generate_series(${part * rows + 1}, ${(part + 1) * rows}) as i`,
      );
    }
    const slot =
      "select restart_lsn, confirmed_flush_lsn from pg_replication_slots where database = current_database()";
    const before = await query(from.url, slot);
    const segments = async () => Number((await query(from.url, "select count(*) as n from backup.segments"))[0]?.["n"]);
    const storedBefore = await segments();
    disk.resize(disk.usedBytes() + given.room);

    for (const attempt of ["first", "second"]) {
      const failed = drainNow(from.deps, { limits: given.limits });
      await expect(failed, attempt).rejects.toMatchObject({ code: "store_full", retry: "after_fix" });
      const [state] = await query(from.url, "select failure, worker, lease_until from backup.drain");
      expect(state).toEqual({
        failure: expect.stringMatching(/^store_full: /) as string,
        worker: null,
        lease_until: null,
      });
      const recorded = await query(
        from.url,
        `select bool_and(s.end_lsn >= p.confirmed_flush_lsn or s.ends_in_transaction) as behind
           from pg_replication_slots as p, lateral (
             select g.* from backup.segments as g where g.chain_id = $1 order by g.end_lsn desc, g.part desc limit 1
           ) as s where p.database = current_database()`,
        [chain],
      );
      expect(recorded, "the slot is never ahead of what is stored").toEqual([{ behind: true }]);
    }
    const stored = await segments();
    if (given.some) expect(stored).toBeGreaterThan(storedBefore);
    else {
      expect(stored).toBe(storedBefore);
      expect(await query(from.url, slot)).toEqual(before);
    }
    // Neither do others lose: the database writes on.
    await query(from.url, "insert into app.log values (9001, 'while it was full')");

    disk.resize(64 * mib);
    expect(await drainNow(from.deps, { limits: given.limits }))
      .toMatchObject({ outcome: "caught_up", begun: false, chain });
    expect(await query(from.url, "select failure from backup.drain")).toEqual([{ failure: null }]);
    const expected = [...Array.from({ length: 8000 }, (_, at) => String(at + 1)), "9001"];
    expect(insertedInto(await storedChain(from.deps, chain ?? ""), "app.log")).toEqual(expected);
    expect(await tableHashes((await restored(cluster(), from.deps)).url)).toEqual(await tableHashes(from.url));
  }, 120_000);
});

/** The log's folder, to the small disk; the server is stopped. */
function moveLog(cluster: Cluster, disk: SmallDisk): void {
  const log = join(cluster.dataDirectory, "pg_wal");
  const there = join(disk.directory, "pg_wal");
  const copied = spawnSync("cp", ["-a", log, there], { encoding: "utf8" });
  if (copied.status !== 0) throw new Error(`the log was not moved: ${copied.stderr}`);
  renameSync(log, `${log}.before`);
  rmSync(`${log}.before`, { recursive: true });
  symlinkSync(there, log);
}
