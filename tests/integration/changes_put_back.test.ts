/** A database that is put back to an earlier state with its slot, and copies of one that write into the same store. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { below } from "../../src/shared/store/below.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, manifestOf } from "./backup_fixture.ts";
import { drainNow, leaseRunsOut, mortalSource, query, restored, type Source } from "./changes_stream_fixture.ts";

const cluster = useCluster({ settings: { max_replication_slots: "20", max_wal_senders: "20" } });
const rows = async (url: string) => (await query(url, "select id from app.notes order by id")).map(({ id }) => id);
const randomText = (length: number) => randomBytes(length / 2).toString("hex");
const insert = (source: Source, id: number, note = randomText(3000)) =>
  query(source.url, "insert into app.notes values ($1, $2)", [id, note]);
const gaps = (source: Source) =>
  query(source.url, "select chain_id, reason, to_lsn is not null as closed from backup.gaps order by id");
const now = async (source: Source) => {
  const [row] = await query(
    source.url,
    "select (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as now",
  );
  return BigInt(String(row?.["now"]));
};

type Chained = Source & { readonly chain: string };

/** With a chain, a full backup on it and one row since. */
async function source(): Promise<Chained> {
  const made = await mortalSource(cluster());
  await query(made.url, "create schema app; create table app.notes (id int primary key, t text)");
  const { chain } = await drainNow(made.deps);
  await backup(made.deps);
  await insert(made, 1);
  await drainNow(made.deps);
  return { ...made, chain: chain ?? "" };
}

/** The server is started anew, perhaps with other files: sessions of before are gone, and its port may be another. */
function started<T extends Source>(source: T): T {
  const url = cluster().plainUrl("postgres", new URL(source.url).pathname.slice(1));
  return { ...source, url, deps: { ...source.deps, database: source.killer.mortal(openDatabase({ url })) } };
}

describe("a database that was put back to an earlier state", () => {
  let short: Chained;
  let long: Chained;
  let alive: Chained;
  let silent: Chained;
  /** In the life that was lost. */
  let lost = 0n;

  beforeAll(async () => {
    [short, long, alive, silent] = [await source(), await source(), await source(), await source()];
    await insert(alive, 2);
    alive.killer.arm("step:drain.put");
    await expect(drainNow(alive.deps)).rejects.toThrow();
    expect(alive.killer.fired).toBe(1);
    alive.killer.disarm();
    await leaseRunsOut(alive.url);
    const snapshot = `${cluster().dataDirectory}.snap`;
    await cluster().stop("fast");
    expect(spawnSync("cp", ["-a", cluster().dataDirectory, snapshot]).status).toBe(0);
    await cluster().start();
    [short, long, silent] = [started(short), started(long), started(silent)];
    // As on a machine that is put back with its memory, within the hour of its last claim: the lost life has made none.
    for (const { url } of [short, long, silent]) {
      await query(url, "update backup.claims set held_while = pg_postmaster_start_time(), held_at = now()");
    }
    for (const round of [0, 1, 2, 3]) {
      for (const each of round === 0 ? [short, long, silent] : [long]) {
        await insert(each, 10 + round);
        await drainNow(each.deps);
      }
    }
    lost = await now(long);
    await insert(long, 19);
    await drainNow(long.deps);
    await cluster().stop("fast");
    rmSync(cluster().dataDirectory, { recursive: true });
    expect(spawnSync("mv", [snapshot, cluster().dataDirectory]).status).toBe(0);
    await cluster().start();
    [short, long, alive, silent] = [started(short), started(long), started(alive), started(silent)];
  }, 180_000);

  for (const which of ["one drain", "several drains"] as const) {
    it(`begins another chain, with a gap and an alert, whatever ${which} had stored since`, async () => {
      const from = which === "one drain" ? short : long;
      // As long as what was lost, or so much longer that the log comes past its end.
      await insert(from, 100, randomText(which === "one drain" ? 20_000 : 3000));
      const first = await drainNow(from.deps).catch((error: { code: string }) => error);
      if ("code" in first) expect(first.code).toBe("stream_busy");
      await insert(from, 101);
      const { chain } = await drainNow(from.deps);
      expect(chain).not.toBe(from.chain);
      expect(await gaps(from)).toEqual([
        { chain_id: from.chain, reason: expect.stringMatching(/put back/) as string, closed: true },
      ]);
      expect(
        await query(
          from.url,
          "select kind from backup.alerts where status <> 'resolved' and severity <> 'information'",
        ),
      )
        .toEqual([{ kind: "stream_gap" }]);
      expect(await query(from.url, "select backup.chain_lacks_full() as lacks"), "a full is ordered at once")
        .toEqual([{ lacks: true }]);
      await backup(from.deps);
      await insert(from, 102);
      await drainNow(from.deps);
      expect(await rows((await restored(cluster(), from.deps)).url)).toEqual([1, 100, 101, 102]);
      expect(
        await query(
          from.url,
          "select kind from backup.alerts where status <> 'resolved' and severity <> 'information'",
        ),
      ).toEqual([]);
    }, 60_000);
  }

  it("can still be restored to a moment of the life that was lost", async () => {
    const copy = await restored(cluster(), long.deps, { by: "time", at: lost });
    expect(await rows(copy.url)).toEqual([1, 10, 11, 12, 13]);
  }, 60_000);

  it("is on no chain in a full backup that was taken before any drain could notice", async () => {
    const full = await backup(silent.deps);
    expect((await manifestOf(silent.deps, full)).chain).toBeNull();
    expect(await query(silent.url, "select chain_id from backup.runs where id = $1", [full.id]))
      .toEqual([{ chain_id: null }]);
  }, 60_000);

  it("goes on where the store has only what a drainer had put and not recorded", async () => {
    await insert(alive, 3);
    expect(await drainNow(alive.deps)).toMatchObject({ begun: false, gap: null, chain: alive.chain });
    expect(await gaps(alive)).toEqual([]);
    expect(await rows((await restored(cluster(), alive.deps)).url)).toEqual([1, 2, 3]);
    expect(await query(alive.url, "select backup.look_is_due() as due")).toEqual([{ due: false }]);
  }, 60_000);
});

/** Another database of the server, with all that the first has. */
async function copied({ url: from, deps }: Source) {
  const was = new URL(from).pathname.slice(1);
  const name = `copy_${was}`;
  const admin = cluster().plainUrl(cluster().superuser);
  await query(admin, `create database ${name} template "${was}"`);
  await query(admin, `alter database ${name} owner to postgres`);
  const url = cluster().plainUrl("postgres", name);
  return { name, url, deps: { ...deps, database: openDatabase({ url }) } };
}

describe("two databases with the same store", () => {
  it("whose backups came to lie beside each other: whoever restores has to say which of the two", async () => {
    const from = await source();
    const { objects } = from.store;
    const hidden = [...objects].filter(([object]) => /^v1\/(backups|claims)\//.test(object));
    for (const [object] of hidden) objects.delete(object);
    const { url, deps } = await mortalSource(cluster(), { store: from.store });
    const name = new URL(url).pathname.slice(1);
    await query(url, "create schema app; create table app.notes (id int primary key, t text)");
    await query(url, "insert into app.notes values (500, 'another')");
    await drainNow(deps);
    await backup(deps);
    await drainNow(deps);
    for (const [object, bytes] of hidden) objects.set(object, bytes);
    await insert(from, 2);
    await query(from.url, "update backup.drain set looked_at = null");
    expect(await drainNow(from.deps), "the original goes on").toMatchObject({ begun: false, chain: from.chain });
    const error = await restored(cluster(), from.deps).then(() => null, (thrown: unknown) => thrown as Error);
    expect(error).toMatchObject({ code: "backup_ambiguous", message: expect.stringContaining(`${name}@`) as string });
    const own = new RegExp(`(${new URL(from.url).pathname.slice(1)}@\\d+)`).exec(
      error?.message.replaceAll(name, "other") ?? "",
    )?.[1] ?? "";
    const copy = await restored(cluster(), from.deps, { by: "end" }, { source: own });
    expect(await rows(copy.url)).toEqual([1, 2]);
    expect((await ChangeHistory.read(from.deps)).of(own).timeline().windows).toMatchObject([{ chain: from.chain }]);
  }, 90_000);

  it("one of them a copy: it writes below a prefix of its own, says why, and both give their own rows", async () => {
    const from = await source();
    const { name, url, deps } = await copied(from);
    await query(url, "insert into app.notes values (500, 'copy')");
    const before = new Set(from.store.objects.keys());
    await drainNow(deps);
    await backup(deps);
    await drainNow(deps);
    const [told] = await query(
      url,
      "select message from backup.alerts where kind = 'identity_changed' and subject = 'store'",
    );
    expect(told?.["message"]).toMatch(`is ${name} now: a copy`);
    const prefix = /clone-[0-9a-f]{8}/.exec(String(told?.["message"]))?.[0] ?? "";
    const added = [...from.store.objects.keys()].filter((object) => !before.has(object));
    expect(added.filter((object) => !object.startsWith(`${prefix}/v1/`))).toEqual([]);
    expect(await rows((await restored(cluster(), { ...deps, store: below(from.store, prefix) })).url)).toEqual([
      1,
      500,
    ]);
    await insert(from, 2);
    await drainNow(from.deps);
    for (const point of [{ by: "end" }, { by: "time", at: await now(from) }] as const) {
      if (point.by === "time") await drainNow(from.deps);
      expect(await rows((await restored(cluster(), from.deps, point)).url)).toEqual([1, 2]);
    }
    const { windows, gaps: between } = (await ChangeHistory.read(from.deps)).timeline();
    expect([windows.length, between]).toEqual([1, []]);
  }, 90_000);
});
