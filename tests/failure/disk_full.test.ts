import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HoldfastError } from "../../src/shared/errors.ts";
import { chunkKey } from "../../src/shared/restore/load.ts";
import { proveCopy } from "../../src/shared/restore/prove.ts";
import { prepareRestore, restoreBackup, type RestoreOptions } from "../../src/shared/restore/run.ts";
import { errno } from "../../src/shared/store/file_errors.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { cli } from "../integration/cli_fixture.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "../integration/restore_fixture.ts";
import { type Cluster, clusterMs, freshDatabase, query, startTestCluster, withClient } from "../support/cluster.ts";
import { sampled } from "../support/sampled.ts";
import { makeSmallDisk, type SmallDisk } from "./small_disk.ts";

/** Several chunks a table, and indexes that need room of their own. */
const sourceSql = `
  create table places (id integer primary key, name text not null);
  create table visits (id bigint primary key, place integer references places, note text);
  create index on visits (note);
  create view busy as select place, count(*) from visits group by 1;
  insert into places select i, 'place ' || i from generate_series(1, 8000) i;
  insert into visits select i, 1 + i % 400, md5(i::text) || repeat(' note ' || i, 3) from generate_series(1, 12000) i;
`;
const rows = 20_000;
const chunkBytes = 100_000;
const mib = 1 << 20;

type Outcome = { readonly error: HoldfastError } | Awaited<ReturnType<typeof restoreBackup>>;

describe.each([15, 17] as const)("a restore onto a disk that is full, PostgreSQL %i", (version) => {
  let cluster: Cluster;
  let disk: SmallDisk;
  let backup: WrittenBackup;
  let source = "";
  let databases = 0;
  const folder = mkdtempSync(join(tmpdir(), "holdfast-full-"));
  const store = createFileStore(folder);

  beforeAll(async () => {
    disk = makeSmallDisk(256 * mib);
    cluster = await startTestCluster({ version, platform: false });
    await query(cluster.plainUrl(), `create tablespace small location '${disk.directory}'`);
    source = await freshDatabase(cluster);
    await withClient(cluster.plainUrl("postgres", source), (client) => client.query(sourceSql));
    backup = await writeBackup(databaseOf(cluster, "postgres", source), store, { chunkBytes });
  }, clusterMs);

  afterAll(async () => {
    try {
      await cluster?.stop("immediate");
    } finally {
      disk?.remove();
      rmSync(folder, { recursive: true, force: true });
      await cluster?.destroy();
    }
  }, clusterMs);

  /** An empty database on the small disk, which has `room` more bytes than that takes. */
  async function targetWithRoom(room: number): Promise<string> {
    disk.resize(256 * mib);
    const name = `target_${++databases}`;
    await query(cluster.plainUrl(), `create database ${name} template template0 tablespace small`);
    disk.resize(disk.usedBytes() + room);
    return name;
  }

  async function attempt(target: string, options: RestoreOptions = {}): Promise<Outcome> {
    const deps = await restoreDeps(store, backup.ring, databaseOf(cluster, "postgres", target));
    return await restoreBackup(deps, backup.id, options).catch((error) => ({ error }));
  }

  const sql = (target: string, text: string) => query(cluster.plainUrl("postgres", target), text);

  /** What was marked is there, row for row, and nothing else is; the restore is not marked as finished. */
  async function isHalfDoneAndSaysSo(target: string): Promise<void> {
    // Whoever wants to look needs a little room: a session writes the catalogs it has read into a file.
    disk.resize(disk.usedBytes() + mib / 2);
    const [record] = await sql(target, "select to_regclass('holdfast.restore') is not null as there");
    const marked = record?.["there"] === true ? await sql(target, "select step from holdfast.done") : [];
    if (record?.["there"] === true) {
      expect(await sql(target, "select finished_at from holdfast.restore")).toEqual([{ finished_at: null }]);
    }
    const steps = new Set(marked.map((row) => row["step"]));
    const deps = await restoreDeps(store, backup.ring, databaseOf(cluster, "postgres", target));
    const { plan } = await prepareRestore(deps, backup.id);
    for (const load of plan.loads) {
      const expected = load.chunks.filter((_, at) => steps.has(chunkKey(load, at))).reduce((n, one) => n + one.rows, 0);
      const [table] = await sql(target, `select to_regclass('${load.name}') is not null as there`);
      const counted = table?.["there"] === true ? await sql(target, `select count(*)::int as n from ${load.name}`) : [];
      expect([load.name, counted[0]?.["n"] ?? 0]).toEqual([load.name, expected]);
    }
  }

  /** A digest of every row by the server, and everything else by the product's own proof. */
  async function isWhole(target: string, outcome: Outcome): Promise<void> {
    if ("error" in outcome) throw outcome.error;
    expect(outcome.inserted).toBe(rows);
    for (const table of ["places", "visits"]) {
      const digest = `select count(*)::int as n, md5(string_agg(md5(t::text), '' order by id)) from ${table} t`;
      expect(await sql(target, digest)).toEqual(await sql(source, digest));
    }
    const from = await databaseOf(cluster, "postgres", source).connect("prove");
    const to = await databaseOf(cluster, "postgres", target).connect("prove");
    try {
      expect(await proveCopy(from, to, outcome)).toEqual([]);
    } finally {
      await from.close();
      await to.close();
    }
    expect(await sql(target, "select to_regclass('holdfast.restore') is null as gone")).toEqual([{ gone: true }]);
  }

  const full = { code: "target_full", exit: 1, hint: expect.stringMatching(/Make room .* the same command.* goes on/) };

  it("says so with its code and the way out, and the same command ends it once there is room", async () => {
    const target = await targetWithRoom(mib);
    const settings = {
      BACKUP_STORE: `file://${folder}`,
      BACKUP_KEYS: backup.keys,
      BACKUP_TARGET_DB_URL: cluster.url("postgres", target),
    };
    const line = ["restore-full", backup.id, "--yes"];
    const first = await cli([...line, "--json"], settings);
    const message = expect.stringMatching(/^the target's disk is full \(.*public/);
    const { code, hint } = full;
    expect([first.exit, first.document], first.stderr).toMatchObject([1, { error: { code, hint, message } }]);
    expect(readFileSync(cluster.logFile, "utf8")).toContain("No space left on device");
    await isHalfDoneAndSaysSo(target);

    const again = await cli(line, settings);
    expect([again.exit, again.stdout], again.stderr).toEqual([1, ""]);
    expect(again.stderr).toMatch(/target_full: the target's disk is full .*the same command/);
    await isHalfDoneAndSaysSo(target);

    disk.resize(256 * mib);
    const last = await cli([...line, "--json"], settings);
    expect(last.exit, last.stderr).toBe(0);
    expect(last.document).toMatchObject({ ok: true, resumed: true, inserted: rows });
    await isWhole(target, last.document as Awaited<ReturnType<typeof restoreBackup>>);
  });

  it("ends however little room is made each time, on a disk not much larger than the source needs", async () => {
    const before = disk.usedBytes();
    const target = await targetWithRoom(0);
    const [size] = await sql(source, "select pg_database_size(current_database())::int as bytes");
    const bound = before + 1.5 * Number(size?.["bytes"]);
    const places = new Set<string>();
    const step = () => places.has("table") ? 2.5 * chunkBytes : 4 * 8192;
    for (let at = disk.usedBytes();; at = Math.max(at, disk.usedBytes()) + step()) {
      expect(at, [...places].join()).toBeLessThan(bound);
      disk.resize(at);
      const outcome = await attempt(target);
      if (!("error" in outcome)) {
        await isWhole(target, outcome);
        break;
      }
      expect(outcome.error).toMatchObject(full);
      places.add(/\((.*?)( [\w.]+\.\w+)?\)$/.exec(outcome.error.message)?.[1] ?? "");
      await isHalfDoneAndSaysSo(target);
    }
    const seen = ["no session can begin", "the restore's own record", "table", "index"];
    expect([...places]).toEqual(expect.arrayContaining(seen));
  });

  const phases = ["definitions", "rows", "indexes", "privileges", "last", "counts"] as const;
  it.each(version === 15 ? phases : sampled(`phases on ${version}`, phases, 2))(
    "filled by somebody else before its %s: it ends well or says so, and then goes on",
    async (phase) => {
      const target = await targetWithRoom(64 * mib);
      const ballast = join(disk.directory, "ballast");
      let filled = false;
      const outcome = await attempt(target, {
        onProgress: (now) => {
          if (now.phase !== phase || filled) return;
          filled = true;
          fill(ballast, disk);
        },
      });
      expect(filled).toBe(true);
      rmSync(ballast);
      const needsRoom = phase === "definitions" || phase === "rows" || phase === "indexes";
      if (needsRoom) expect(outcome).toMatchObject({ error: full });
      if (!("error" in outcome)) return await isWhole(target, outcome);
      expect(outcome.error).toMatchObject(full);
      await isHalfDoneAndSaysSo(target);
      disk.resize(256 * mib);
      await isWhole(target, await attempt(target));
    },
  );
});

/** Until nothing is free; the server may take some of it meanwhile. */
function fill(file: string, disk: SmallDisk): void {
  for (let free = disk.freeBytes(); free > 0; free = disk.freeBytes()) {
    try {
      writeFileSync(file, new Uint8Array(free), { flag: "a" });
    } catch (error) {
      if (errno(error) !== "ENOSPC") throw error;
    }
  }
}
