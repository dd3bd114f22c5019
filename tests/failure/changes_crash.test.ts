/** A server that loses its counters in a crash, and a replay that dies inside of a group. */
import { beforeAll, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { planPoint, type PointChoices, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { backup } from "../integration/backup_fixture.ts";
import {
  drainNow,
  emptyTarget,
  mortalSource,
  query,
  restored,
  type Source,
  tableHashes,
} from "../integration/changes_stream_fixture.ts";
import { type Cluster, clusterMs, useCluster, withClient, withCluster } from "../support/cluster.ts";
import { sampled } from "../support/sampled.ts";

/** `bare` has no identity: only the server's counters tell of its updates and deletes. */
const tables = `
  create schema app;
  create table app.bare (id int, t text);
  create table app.kept (id int primary key, t text);
  create table app.whole (id int, t text);
  alter table app.whole replica identity full;
  insert into app.bare select i, 'b' from generate_series(1, 40) as i;
  insert into app.kept select i, 'k' from generate_series(1, 40) as i;
  insert into app.whole select i % 4, 'w' from generate_series(1, 40) as i;
`;

async function source(cluster: Cluster): Promise<Source> {
  const made = await mortalSource(cluster);
  await query(made.url, tables);
  await drainNow(made.deps);
  await backup(made.deps);
  await drainNow(made.deps);
  return made;
}

/** The same source after its server was started again: the port may be another one. */
function reopened<T extends Source>(from: T, cluster: Cluster): T {
  const url = cluster.plainUrl("postgres", new URL(from.url).pathname.slice(1));
  return { ...from, url, deps: { ...from.deps, database: from.killer.mortal(openDatabase({ url })) } };
}

async function position(url: string): Promise<Point> {
  const [row] = await query(url, "select pg_current_wal_insert_lsn() as at");
  return { by: "lsn", lsn: parseLsn(String(row?.["at"])) };
}

const updates =
  "select coalesce(sum(n_tup_upd + n_tup_del), 0)::int as n from pg_stat_all_tables where relname = 'bare'";

describe.each([15, 17] as const)("a server that crashes right after an unseen update, PostgreSQL %i", (version) => {
  const ends = ["kill", "immediate"] as const;
  it.each(sampled(`on ${version}`, ends, 1))(
    "by %s: a table without identity is refused behind the crash, whatever its counters say",
    async (how) => {
      await withCluster({ version }, async (cluster) => {
        const first = await source(cluster);
        await query(first.url, "update app.kept set t = 'early' where id = 1");
        const early = await position(first.url);
        const asOfEarly = await tableHashes(first.url);
        await query(first.url, "update app.kept set t = 'later' where id = 2");
        await drainNow(first.deps);
        expect(await query(first.url, updates), "nothing was counted before").toEqual([{ n: 0 }]);

        await query(
          first.url,
          `update app.bare set t = 'unseen' where id <= 3;
         update app.kept set t = 'seen' where id <= 3; delete from app.kept where id = 40;
         update app.whole set t = 'seen' where id = 1; delete from app.whole where ctid = '(0,2)'`,
        );
        if (how === "kill") await cluster.kill();
        else await cluster.stop("immediate");
        await cluster.start();
        const from = reopened(first, cluster);
        expect(await query(from.url, updates), "the crash took the count").toEqual([{ n: 0 }]);
        expect(await query(from.url, "select count(*)::int as n from app.bare where t = 'unseen'")).toEqual([{ n: 3 }]);
        expect(await drainNow(from.deps)).toMatchObject({ outcome: "caught_up", begun: false });
        await query(from.url, "insert into app.kept values (100, 'after')");
        await drainNow(from.deps);

        const expected = await tableHashes(from.url);
        const refusal = { code: "tables_uncovered", message: expect.stringMatching(/app\.bare/) as string };
        const withoutBare: PointChoices = { withoutTables: ["app.bare"] };
        await expect(restored(cluster, from.deps)).rejects.toMatchObject(refusal);
        await expect(restored(cluster, from.deps, { by: "end" }, { withoutTables: ["app.kept"] }))
          .rejects.toMatchObject(refusal);
        const copy = await restored(cluster, from.deps, { by: "end" }, withoutBare);
        expect(await query(copy.url, "select from app.bare"), "it was left out").toEqual([]);
        const { "app.bare": _, ...exact } = expected;
        expect(await tableHashes(copy.url)).toMatchObject(exact);
        // A moment that has a segment of its own before the crash does not suffer from it.
        expect(await tableHashes((await restored(cluster, from.deps, early)).url)).toEqual(asOfEarly);

        // A full behind the crash holds what the stream does not.
        await backup(from.deps);
        await query(
          from.url,
          "insert into app.bare values (200, 'behind'); update app.kept set t = 'z' where id = 100",
        );
        await drainNow(from.deps);
        expect(await tableHashes((await restored(cluster, from.deps)).url)).toEqual(await tableHashes(from.url));
      });
    },
    240_000,
  );
});

describe("a replay that dies inside of a group", () => {
  const cluster = useCluster();
  let from: Source;
  let expected: Record<string, string>;

  beforeAll(async () => {
    from = await source(cluster());
    await query(
      from.url,
      `insert into app.whole select 1, 'same' from generate_series(1, 6);
       insert into app.whole values (null, null), (null, null), (7, null);
       update app.kept set t = t || '!' where id <= 10;
       insert into app.bare select 1000, 'twin' from generate_series(1, 5)`,
    );
    await query(
      from.url,
      `delete from app.whole where ctid in (select ctid from app.whole where t = 'same' limit 2);
       update app.whole set t = 'moved' where ctid = (select min(ctid) from app.whole where t = 'w' and id = 1);
       update app.kept set id = id + 500 where id > 30; delete from app.kept where id between 11 and 15;
       insert into app.bare values (1000, 'twin'), (null, null)`,
    );
    await drainNow(from.deps);
    // Another group: what comes before a change of definitions is committed with it.
    await query(from.url, "alter table app.kept add column c int");
    await query(
      from.url,
      `insert into app.whole select 1, 'same' from generate_series(1, 3);
       insert into app.bare values (1000, 'twin');
       truncate app.kept; insert into app.kept select i, 'new', i from generate_series(1, 20) as i`,
    );
    await drainNow(from.deps);
    expected = await tableHashes(from.url);
    const twins = await query(from.url, "select count(*)::int as n from app.bare where id = 1000");
    expect(twins, "rows that only their number tells apart").toEqual([{ n: 7 }]);
  }, clusterMs);

  it("between any two of its tables, goes on and has every row once", async () => {
    const copy = await emptyTarget(cluster());
    const deps = { ...from.deps, target: from.killer.mortal(copy.target) };
    const plan = await planPoint(deps, { by: "end" });
    let kills = 0;
    // The first group has three, and so has the second, in which the fourth call dies first.
    for (const nth of [1, 2, 3, 4, 2, 3]) {
      from.killer.arm("step:replay.table", nth);
      await expect(restorePoint(deps, plan), `table ${nth}`).rejects.toThrow(/killed at step:replay\.table/);
      kills += from.killer.fired;
      from.killer.disarm();
      await sessionsGone(copy.url);
    }
    expect(kills).toBe(6);
    expect(await restorePoint(deps, plan)).toMatchObject({ ok: true, resumed: true });
    expect(await tableHashes(copy.url)).toEqual(expected);
  }, 240_000);

  it("by its session's end while a statement of it waits, goes on and has every row once", async () => {
    const copy = await emptyTarget(cluster());
    const deps = { ...from.deps, target: copy.target };
    const plan = await planPoint(deps, { by: "end" });
    // The full is there, the replay not begun.
    from.killer.arm("step:replay.table", 1);
    const mortal = { ...deps, target: from.killer.mortal(copy.target) };
    await expect(restorePoint(mortal, plan)).rejects.toThrow(/killed/);
    from.killer.disarm();
    for (const table of ["app.whole", "app.kept", "app.bare"]) {
      await withClient(copy.url, async (blocker) => {
        await blocker.query(`begin; lock table ${table} in access exclusive mode`);
        const broken = restorePoint(deps, plan).then(() => null, (error: unknown) => error);
        await terminateWaiting(copy.url);
        expect(await broken, table).toMatchObject({ retry: "backoff" });
        await blocker.query("rollback");
      });
    }
    expect(await restorePoint(deps, plan)).toMatchObject({ ok: true, resumed: true });
    expect(await tableHashes(copy.url)).toEqual(expected);
  }, 240_000);
});

/** A server notices a moment later that a client is gone; until then its sessions hold the lock of the restore. */
async function sessionsGone(url: string): Promise<void> {
  await expect.poll(
    async () =>
      (await query(
        url,
        `select count(*)::int as n from pg_stat_activity
          where datname = current_database() and application_name ~ '^holdfast:(restore|replay)'`,
      ))[0]?.["n"],
    { timeout: 30_000, interval: 20 },
  ).toBe(0);
}

/** Ends the replay's session once it waits for a lock. */
async function terminateWaiting(url: string): Promise<void> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const [row] = await query(
      url,
      `select count(pg_terminate_backend(pid))::int as n from pg_stat_activity
        where datname = current_database() and application_name = 'holdfast:replay'
          and cardinality(pg_blocking_pids(pid)) > 0 and xact_start is not null`,
    );
    if (row?.["n"] === 1) return;
    if (performance.now() > deadline) throw new Error("the replay never waited");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
