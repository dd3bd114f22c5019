/** A server whose clock is moved while its changes are drained: back by an hour, later forward by two. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { ChangeHistory, type Timeline } from "../../src/shared/changes/segments/timeline.ts";
import { listsOf, segmentsOf, verifyIncremental } from "../../src/shared/changes/segments/verify_incremental.ts";
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
import { type Cluster, clusterMs, startTestCluster } from "../support/cluster.ts";
import { movableClock } from "../support/movable_clock.ts";

const asError = (error: unknown): Error => error instanceof Error ? error : new Error(String(error));

const hour = 3600;

interface Mark {
  readonly at: bigint;
  readonly lsn: bigint;
  readonly hashes: Record<string, string>;
}

describe("a clock that is moved in the middle of a stream", () => {
  const clock = movableClock();
  let cluster: Cluster;
  let from: Source;
  let chain = "";
  /** Committed states in the order in which they came to be, with the moments that the server gave them. */
  const marks: Mark[] = [];
  const written: string[] = [];
  /** After each move. */
  const timelines: Timeline[] = [];

  beforeAll(async () => {
    cluster = await startTestCluster({ environment: clock.environment });
    from = await mortalSource(cluster);
    await query(
      from.url,
      `create schema app; create table app.notes (id int primary key, t text); create table app.twins (t text);
       alter table app.twins replica identity full; create table app.bare (n int); insert into app.bare values (0)`,
    );
    chain = (await drainNow(from.deps)).chain ?? "";
    await work();
    await backup(from.deps);
    for (const seconds of [0, -hour, hour, 2 * hour, 0]) {
      clock.move(seconds);
      for (let round = 0; round < 3; round++) {
        await work();
        if (round !== 1) expect(await drainNow(from.deps)).toMatchObject({ outcome: "caught_up", begun: false, chain });
      }
      timelines.push((await ChangeHistory.read(from.deps)).timeline());
    }
  }, clusterMs);

  afterAll(async () => {
    await cluster?.destroy();
    clock.remove();
  }, clusterMs);

  /** One transaction, and what it left. */
  async function work(): Promise<void> {
    const id = written.length + 1;
    await query(
      from.url,
      `insert into app.notes values (${id}, 'n'); insert into app.twins values ('t'), ('t');
       update app.notes set t = t || '${id}' where id % 2 = 0; delete from app.twins where ctid = (select min(ctid) from app.twins)`,
    );
    written.push(String(id));
    const [now] = await query(
      from.url,
      `select (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as at, pg_current_wal_insert_lsn() as lsn`,
    );
    marks.push({
      at: BigInt(String(now?.["at"])),
      lsn: parseLsn(String(now?.["lsn"])),
      hashes: await tableHashes(from.url),
    });
  }

  const stateAt = async (point: Point) => await tableHashes((await restored(cluster, from.deps, point)).url);

  it("really was moved", () => {
    const steps = marks.slice(1).map((mark, index) => Number((mark.at - (marks[index]?.at ?? 0n)) / 1_000_000n));
    const jumps = steps.filter((seconds) => Math.abs(seconds) > 600).map((seconds) => Math.round(seconds / hour));
    expect(jumps).toEqual([-1, 2, 1, -2]);
  });

  it("costs no change, and stores none twice", async () => {
    expect(insertedInto(await storedChain(from.deps, chain), "app.notes")).toEqual(written);
  });

  it("does not matter for the end and for positions in the log", async () => {
    expect(await stateAt({ by: "end" })).toEqual(marks.at(-1)?.hashes);
    for (const nth of [1, 4, 6, 8, 11, 13]) {
      const mark = marks[nth];
      if (mark === undefined) throw new Error("there are fewer marks");
      expect(await stateAt({ by: "lsn", lsn: mark.lsn }), `mark ${nth}`).toEqual(mark.hashes);
    }
  }, 240_000);

  it("a moment means the last commit before the first one that is later, or is refused", async () => {
    // To a reader whose own clock is behind, some of these moments would be in the future, and refused as such.
    const deps = { ...from.deps, clock: { ...systemClock, now: () => new Date(Date.now() + 4 * hour * 1000) } };
    const refused: number[] = [];
    for (const [nth, { at }] of marks.entries()) {
      // The mark's own clock was read after its commit.
      const past = marks.findIndex((one, index) => index > 0 && one.at > at);
      const expected = marks[(past < 0 ? marks.length : past) - 1]?.hashes;
      const found = await restored(cluster, deps, { by: "time", at }).then(({ url }) => tableHashes(url), asError);
      if (found instanceof Error) {
        expect(found, `mark ${nth}`).toMatchObject({ code: "point_uncovered" });
        refused.push(nth);
      } else expect(found, `mark ${nth}`).toEqual(expected);
    }
    // Before the full by the clock; and the last one of all, behind which nothing says that nothing came.
    expect(refused).toEqual([0, 4, 5, 6, 12]);
  }, 240_000);

  it("shows no window whose end is before its beginning, and none beyond what is stored", async () => {
    for (const one of timelines.flatMap(({ windows, gaps }) => [...windows, ...gaps])) {
      expect(Date.parse(one.to)).toBeGreaterThan(Date.parse(one.from));
    }
    const [windows = []] = timelines.slice(-1).map((timeline) => timeline.windows);
    expect(windows).toHaveLength(1);
    const segments = await storedChain(from.deps, chain);
    expect(Date.parse(windows[0]?.to ?? "")).toBe(Date.parse(segments.at(-1)?.header.takenAt ?? ""));
    const [row] = await query(from.url, "select bool_and(to_at is null or to_at >= from_at) as sane from backup.gaps");
    expect(row?.["sane"] ?? true).toBe(true);
  });

  it("leaves incrementals whose segments follow each other, and that verify", async () => {
    const runs = await query(
      from.url,
      `select r.id, min(s.end_lsn) as first, max(s.end_lsn) as last, r.wal_lsn = max(s.end_lsn) as ends_there,
              r.consistent_at >= max(s.taken_at) as sane, r.finished_at is null or r.finished_at >= r.started_at as over
         from backup.runs as r join backup.segments as s on s.run_id = r.id group by r.id order by min(s.end_lsn)`,
    );
    expect(runs.length).toBeGreaterThan(1);
    const connection = await from.deps.database.connect("test");
    try {
      for (const [index, run] of runs.entries()) {
        expect(run).toMatchObject({ ends_there: true, sane: true, over: true });
        const before = runs[index - 1];
        if (before !== undefined) {
          expect(parseLsn(String(run["first"]))).toBeGreaterThan(parseLsn(String(before["last"])));
        }
        const id = String(run["id"]);
        expect(
          await verifyIncremental(from.deps, id, {
            segments: await segmentsOf(connection, id),
            lists: await listsOf(connection, id),
          }),
        ).toMatchObject({ ok: true });
      }
    } finally {
      await connection.close();
    }
  });

  it(
    "keeps a table without identity refused that changed behind the full, though the clock says before it",
    async () => {
      await withMovedSource(async (moved) => {
        clock.move(0);
        await drainNow(moved.deps);
        await backup(moved.deps);
        clock.move(-hour);
        await query(moved.url, "update app.bare set n = n + 1");
        await query(moved.url, "insert into app.notes values (1, 'x')");
        await drainNow(moved.deps);
        await expect(restored(cluster, moved.deps)).rejects.toMatchObject({
          code: "tables_uncovered",
          message: expect.stringMatching(/app\.bare/) as string,
        });
      });
    },
    120_000,
  );

  it("keeps nobody from draining whose predecessor died with a lease of the earlier clock", async () => {
    await withMovedSource(async (moved) => {
      clock.move(2 * hour);
      await query(moved.url, "insert into app.notes values (1, 'x')");
      moved.killer.arm("step:drain.sealed");
      await expect(drainNow(moved.deps)).rejects.toThrow();
      expect(moved.killer.fired).toBe(1);
      moved.killer.disarm();
      expect(await query(moved.url, "select worker from backup.drain")).toEqual([{ worker: "test" }]);
      clock.move(0);
      expect(await drainNow(moved.deps)).toMatchObject({ outcome: "caught_up" });
    });
  }, 60_000);

  it("does not keep the guard from giving a slot up, nor its hour's run from ending", async () => {
    await withMovedSource(async (moved) => {
      clock.move(2 * hour);
      await query(moved.url, "insert into app.notes values (1, 'x')");
      await drainNow(moved.deps);
      clock.move(0);
      await query(moved.url, "update backup.settings set value = '1' where name = 'slot_limit_mb'");
      await query(moved.url, "insert into app.twins select repeat('x', 300) from generate_series(1, 10000)");
      expect(await query(moved.url, "select backup.guard_slot() as what")).toEqual([{ what: "over the limit" }]);
      expect(await drainNow(moved.deps)).toMatchObject({ outcome: "caught_up", begun: true });
      expect(await query(moved.url, "select to_at >= from_at as sane, to_lsn > from_lsn as forward from backup.gaps"))
        .toEqual([{ sane: true, forward: true }]);
      const ended = await query(
        moved.url,
        "select finished_at >= started_at as sane from backup.runs where kind = 'incremental' and status = 'succeeded'",
      );
      expect(ended).toEqual([{ sane: true }]);
    });
  }, 60_000);

  /** Another database of the cluster, with the same tables. */
  async function withMovedSource(use: (moved: Source) => Promise<void>): Promise<void> {
    try {
      const moved = await mortalSource(cluster);
      await query(
        moved.url,
        `create schema app; create table app.notes (id int primary key, t text); create table app.twins (t text);
         create table app.bare (n int); insert into app.bare values (0)`,
      );
      await use(moved);
    } finally {
      clock.move(0);
    }
  }
});
