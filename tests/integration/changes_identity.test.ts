/** Tables whose rows got an identity while the stream went on: what was updated or deleted before it is in no segment. */
import { describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import { readCountedUntil } from "../../src/shared/changes/drain/header_queries.ts";
import { planPoint, type PointPlan } from "../../src/shared/changes/replay/restore_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { useCluster, withClient } from "../support/cluster.ts";
import { backup } from "./backup_fixture.ts";
import { drainNow, mortalSource, query, restored, type Source, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster({ settings: { max_replication_slots: "20" } });

/** With a full backup, and then these transactions between two drains, of one session. */
async function after(transactions: readonly string[]): Promise<Source> {
  const from = await mortalSource(cluster());
  await query(
    from.url,
    `create schema app; create table app.other (id int primary key);
     create table app.loose (id int not null, t text); insert into app.loose select i, 'old' from generate_series(1, 20) as i;
     create table app.keyed (id int primary key, t text); insert into app.keyed select i, 'old' from generate_series(1, 20) as i`,
  );
  await drainNow(from.deps);
  await backup(from.deps);
  await query(from.url, "insert into app.other values (1)");
  await drainNow(from.deps);
  await withClient(from.url, async (client) => {
    for (const transaction of transactions) await client.query(transaction);
  });
  await query(from.url, "insert into app.other values (2)");
  await drainNow(from.deps);
  return from;
}

const planned = (from: Source, point: Point): Promise<PointPlan> =>
  planPoint(
    { ...from.deps, target: { label: "none", connect: () => Promise.reject(new Error("not asked")) } },
    point,
    {},
  );

const uncovered = (from: Source, point: Point): Promise<string> =>
  planned(from, point).then(() => "", (error: Error) => error.message);

describe("a table that gets an identity between two drains", () => {
  it.each([
    ["that was made without one", "app.made", [
      "create table app.made as select i as id, 'old' as t from generate_series(1, 20) as i",
      "update app.made set t = 'unseen' where id < 5",
      "alter table app.made add primary key (id)",
    ]],
    ["that had none", "app.loose", [
      "delete from app.loose where id < 5",
      "alter table app.loose add primary key (id)",
    ]],
    ["that had lost it", "app.keyed", [
      "alter table app.keyed drop constraint keyed_pkey",
      "update app.keyed set t = 'unseen'",
      "alter table app.keyed add primary key (id)",
    ]],
    ["that was without for one transaction", "app.keyed", [
      "begin; alter table app.keyed drop constraint keyed_pkey; update app.keyed set t = 'unseen'; alter table app.keyed add primary key (id); commit",
    ]],
    // The counters do not tell what was rolled back: better refused than wrong.
    ["of which an update was rolled back", "app.loose", [
      "begin; update app.loose set t = 'unseen'; rollback",
      "alter table app.loose add primary key (id)",
    ]],
    ["that is known by whole rows since", "app.loose", [
      "update app.loose set t = 'unseen'",
      "alter table app.loose replica identity full",
    ]],
  ])("and %s is refused, also at a moment before it got it", async (_what, table, transactions) => {
    const from = await after([
      ...transactions.slice(0, -1),
      "create table app.moment as select clock_timestamp() as at",
      ...transactions.slice(-1),
    ]);
    const [moment] = await query(from.url, "select extract(epoch from at) * 1000000 as at from app.moment");
    const at = BigInt(Math.round(Number(moment?.["at"])));
    expect(await uncovered(from, { by: "end" })).toContain(`${table} (ALTER TABLE`);
    // In one transaction there is no moment between.
    if (transactions.length > 1) expect(await uncovered(from, { by: "time", at })).toContain(table);
  }, 60_000);

  it(
    "and whose key was rolled back, together with an update, is refused: the counters do not tell what was rolled back",
    async () => {
      const from = await after([
        "begin; alter table app.loose add primary key (id); update app.loose set t = 'undone'; rollback",
      ]);
      expect(await uncovered(from, { by: "end" })).toContain("app.loose (it has no usable replica identity)");
    },
    60_000,
  );

  it("and was filled only, comes back as it was, with what happened to it since", async () => {
    const from = await after([
      "create table app.made (id int, t text)",
      "insert into app.made select i, 'old' from generate_series(1, 20) as i",
      "alter table app.made add primary key (id)",
      "update app.made set t = 'seen' where id < 5; delete from app.made where id > 15",
      "begin; create table app.once as select 1 as id; alter table app.once add primary key (id); update app.once set id = 2; commit",
      "alter table app.loose add primary key (id)",
      "update app.loose set t = 'seen'",
    ]);
    expect(await uncovered(from, { by: "end" })).toBe("");
    const { url } = await restored(cluster(), from.deps);
    expect(await tableHashes(url, ["app"])).toEqual(await tableHashes(from.url, ["app"]));
  }, 60_000);

  /** `before`: what another session does that stays connected, and then this session. The warning's names. */
  async function doubted(before: readonly string[], own: readonly string[]): Promise<readonly string[]> {
    const from = await after([]);
    return await withClient(from.url, async (other) => {
      for (const statement of before) await other.query(statement);
      for (const statement of own) await query(from.url, statement);
      await drainNow(from.deps);
      await query(from.url, "insert into app.other values (3)");
      await drainNow(from.deps);
      const plan = await planned(from, { by: "end" });
      expect(plan.survey.uncovered).toEqual([]);
      return plan.survey.unsettled.filter(({ before }) => before === "identity")
        .map(({ schema, name }) => `${schema}.${name}`);
    });
  }

  it("and was updated by a session that the server has not heard of yet, is in doubt", async () => {
    const busy = ["insert into app.keyed values (100)", "update app.loose set t = 'unseen' where id < 5"];
    const key = ["alter table app.loose add primary key (id)"];
    expect(await doubted(busy, key)).toEqual(["app.loose"]);
    expect(await doubted([...busy, "begin"], [...key, "alter table app.loose rename to tight"])).toEqual(["app.tight"]);
    expect(await doubted([], ["create table app.late (id int)", "alter table app.late add primary key (id)"]))
      .toEqual(["app.late"]);
  }, 90_000);

  it("and was made by the same transaction, or is dropped, is in no doubt", async () => {
    expect(
      await doubted([], [
        "begin; create table app.at_once (id int not null); alter table app.at_once add primary key (id); commit",
        "create table app.keyed_too (id int primary key)",
        "begin; create table app.one (id int); savepoint s; alter table app.one replica identity full; commit",
        "alter table app.keyed add column more int",
        "alter table app.loose add primary key (id)",
        "drop table app.loose",
      ]),
    ).toEqual([]);
  }, 60_000);

  it("by the drain's own hand, since no event trigger could, is in doubt as well", async () => {
    expect(
      await doubted(["insert into app.keyed values (100)", "update app.loose set t = 'unseen' where id < 5"], [
        'alter event trigger "!holdfast_after_ddl" disable',
        "alter table app.loose add primary key (id)",
        'alter event trigger "!holdfast_after_ddl" enable always',
      ]),
    ).toEqual(["app.loose"]);
  }, 60_000);
});

describe("how far the counters can be trusted", () => {
  const countedUntil = async (from: Source) => {
    await drainNow(from.deps);
    const { chains } = await ChangeHistory.read(from.deps);
    return [...chains.values()].at(-1)?.last?.countedUntil;
  };

  it("is a minute before the start of the oldest transaction, or statement, that goes on", async () => {
    const from = await after([]);
    await withClient(from.url, async (other) => {
      await other.query("begin");
      const [begun] = await query(
        from.url,
        `select to_char((xact_start - interval '60 seconds') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as until
           from pg_stat_activity where state = 'idle in transaction'`,
      );
      expect(await countedUntil(from)).toBe(begun?.["until"]);
      await other.query("commit");
      const since = await countedUntil(from) ?? "";
      expect(since > (begun?.["until"] ?? "")).toBe(true);
      expect(Date.now() - Date.parse(since)).toBeGreaterThanOrEqual(60_000);
      // A procedure that commits begins its transactions anew, and tells nothing until it is over.
      await query(
        from.url,
        `create procedure app.commits() language plpgsql as
           'begin commit; perform pg_catalog.pg_sleep(0.2); commit; perform pg_catalog.pg_sleep(60); end'`,
      );
      const running = other.query("call app.commits()").catch(() => undefined);
      await expect.poll(() =>
        query(
          from.url,
          "select query_start from pg_stat_activity where xact_start > query_start + interval '0.1 seconds'",
        )
      ).toHaveLength(1);
      const [called] = await query(
        from.url,
        `select to_char((query_start - interval '60 seconds') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as until
           from pg_stat_activity where query = 'call app.commits()'`,
      );
      expect(await countedUntil(from)).toBe(called?.["until"]);
      await query(from.url, "select pg_cancel_backend(pid) from pg_stat_activity where query = 'call app.commits()'");
      await running;
    });
  }, 60_000);

  it("is not known to a role that may not see what others do", async () => {
    const from = await after([]);
    await query(from.url, "create role onlooker; grant onlooker to postgres");
    await withClient(from.url, async () => {
      const session = await openSession(from.deps.database, "holdfast:test");
      try {
        expect(await readCountedUntil(session)).not.toBeNull();
        await session.execute("set role onlooker");
        expect(await readCountedUntil(session)).toBeNull();
      } finally {
        await session.close();
      }
    });
  }, 60_000);
});
