/** Tables whose rows got an identity while the stream went on: what was updated or deleted before it is in no segment. */
import { describe, expect, it } from "vitest";
import { planPoint } from "../../src/shared/changes/replay/restore_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
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

const uncovered = async (from: Source, point: Point): Promise<string> =>
  await planPoint(
    { ...from.deps, target: { label: "none", connect: () => Promise.reject(new Error("not asked")) } },
    point,
    {},
  ).then(() => "", (error: Error) => error.message);

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
});
