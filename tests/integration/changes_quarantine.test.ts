/** Restores to moments pass over full backups in quarantine: their snapshots show what nobody has looked at. */
import { beforeAll, describe, expect, it } from "vitest";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, query, until, world } from "./backup_fixture.ts";
import { drainNow, emptyTarget, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;
let whole: string;
let suspicious: string;
let onNewChain: string;

/** A full of a database that lost most of its rows, and the counters that would have told why. */
async function quarantinedBackup(table: string): Promise<string> {
  await query(w.url, `delete from ${table} where i > 10`);
  await until("the deletes are counted", async () => {
    const found = await query(w.url, "select from pg_stat_user_tables where relid = $1::regclass and n_tup_del > 0", [
      table,
    ]);
    return found.length > 0 ? true : null;
  });
  await query(cluster().plainUrl(cluster().superuser, new URL(w.url).pathname.slice(1)), "select pg_stat_reset()");
  const run = await backup(w.deps);
  expect(run.status).toBe("quarantined");
  return run.id;
}

async function now(): Promise<Point> {
  const [row] = await query(w.url, "select pg_current_wal_insert_lsn()::text as lsn");
  return { by: "lsn", lsn: parseLsn(String(row?.["lsn"])) };
}

const plan = (point: Point, accepted: readonly string[] = []) =>
  planPoint({ ...w.deps, target: { label: "none", connect: () => Promise.reject(new Error("not asked")) } }, point, {
    accepted,
  });

let before: Point;
let onOldChain: Point;
let onNewest: Point;
let hashes: Record<string, string>;

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `create schema app;
     create table app.entries as select i, md5(i::text) as t from generate_series(1, 3000) as i;
     alter table app.entries add primary key (i);
     create table app.others (like app.entries including all);
     insert into app.others select * from app.entries`,
  );
  await drainNow(w.deps);
  whole = (await backup(w.deps)).id;
  await query(w.url, "update app.entries set t = 'x' where i % 5 = 0");
  before = await now();
  suspicious = await quarantinedBackup("app.entries");
  await query(w.url, "update app.entries set t = 'y' where i % 3 = 0");
  onOldChain = await now();
  hashes = await tableHashes(w.url);
  await query(w.url, "insert into app.entries values (5000, 'more')");
  await drainNow(w.deps);
  await query(
    w.url,
    "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
  );
  await drainNow(w.deps);
  onNewChain = await quarantinedBackup("app.others");
  await query(w.url, "insert into app.entries values (5001, 'more')");
  onNewest = await now();
  await drainNow(w.deps);
}, 240_000);

describe("a restore to a moment", () => {
  it("begins with the newest full that is in no quarantine, and gives the same", async () => {
    expect((await plan(before)).full.manifest.id).toBe(whole);
    const { target, url } = await emptyTarget(cluster());
    const found = await planPoint({ ...w.deps, target }, onOldChain);
    expect(found.full.manifest.id).toBe(whole);
    await restorePoint({ ...w.deps, target }, found);
    expect(await tableHashes(url)).toEqual(hashes);
  }, 60_000);

  it("begins with one in quarantine where somebody has accepted it", async () => {
    const { target, url } = await emptyTarget(cluster());
    const found = await planPoint({ ...w.deps, target }, onOldChain, { accepted: [suspicious] });
    expect(found.full.manifest.id).toBe(suspicious);
    await restorePoint({ ...w.deps, target }, found);
    expect(await tableHashes(url)).toEqual(hashes);
  }, 60_000);

  it("is refused where only a full in quarantine covers it, which is named with how to accept it", async () => {
    for (const point of [{ by: "end" }, onNewest] satisfies Point[]) {
      await expect(plan(point), point.by).rejects.toMatchObject({
        code: "backup_quarantined",
        message: expect.stringMatching(new RegExp(`${onNewChain} only, .*app.others went from 3000 to 10 rows`)),
        hint: expect.stringContaining(`--accepted ${onNewChain}`),
      });
    }
    // No full at all covers what comes after it.
    await expect(plan({ by: "lsn", lsn: 2n ** 40n })).rejects.toMatchObject({ code: "point_uncovered" });
    expect((await plan({ by: "end" }, [onNewChain])).full.manifest.id).toBe(onNewChain);
    expect((await plan({ by: "end" }, [onNewChain.slice(0, 8)])).full.manifest.id).toBe(onNewChain);
  }, 60_000);

  it("takes nothing that is not one backup's id for accepted", async () => {
    for (const id of ["", onNewChain.slice(0, 1), "latest", "ffffffff"]) {
      await expect(plan({ by: "end" }, [id]), id).rejects.toMatchObject({ code: "backup_not_found" });
    }
  }, 60_000);
});
