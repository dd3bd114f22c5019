import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { proveCopy } from "../../src/shared/restore/prove.ts";
import { prepareRestore, restoreBackup, type RestoreDeps, type RestoreProgress } from "../../src/shared/restore/run.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "../integration/restore_fixture.ts";
import { type Cluster, clusterMs, freshDatabase, query, startTestCluster, withClient } from "../support/cluster.ts";

const sourceSql = `
  create table places (id integer primary key, name text not null);
  create table visits (place integer references places, note text);
  insert into places select i, 'place ' || i from generate_series(1, 400) i;
  insert into visits select 1 + i % 400, repeat('note ' || i || ' ', 20) from generate_series(1, 800) i;
`;

describe("a restore that cannot go on", () => {
  let cluster: Cluster;
  let source = "";
  let backup: WrittenBackup;
  const store = createMemoryStore();

  beforeAll(async () => {
    cluster = await startTestCluster({ platform: false });
    source = await freshDatabase(cluster);
    await withClient(cluster.plainUrl("postgres", source), (client) => client.query(sourceSql));
    backup = await writeBackup(databaseOf(cluster, "postgres", source), store);
  }, clusterMs);

  afterAll(async () => {
    await cluster?.destroy();
  }, clusterMs);

  const depsFor = async (target: string, rest: Partial<RestoreDeps> = {}): Promise<RestoreDeps> => ({
    ...(await restoreDeps(store, backup.ring, databaseOf(cluster, "postgres", target))),
    ...rest,
  });

  /** Once what was wrong is put right, the same call ends the restore. */
  async function endsWell(target: string): Promise<void> {
    const result = await restoreBackup(await depsFor(target), backup.id);
    expect(result.inserted).toBe(1200);
    const from = await databaseOf(cluster, "postgres", source).connect("prove");
    const to = await databaseOf(cluster, "postgres", target).connect("prove");
    try {
      expect(await proveCopy(from, to, result)).toEqual([]);
    } finally {
      await from.close();
      await to.close();
    }
  }

  const isUntouched = async (target: string) => {
    const rows = await query(
      cluster.plainUrl("postgres", target),
      "select relname from pg_class where relkind = 'r' and oid >= 16384 and relnamespace::regnamespace::text !~ '^pg_|^information'",
    );
    expect(rows).toEqual([]);
  };

  it("refuses every damaged object, whichever it is, and goes on once it is sound again", async () => {
    let target = "";
    const chunks = backup.manifest.tables.flatMap((table) => table.chunks.map((chunk) => chunk.object));
    expect(chunks.length).toBeGreaterThan(5);
    const manifest = [...store.objects.keys()].find((name) => name.endsWith("/manifest")) ?? "";
    for (const name of [manifest, backup.manifest.schemaObject.name, ...chunks]) {
      const sound = store.objects.get(name) ?? new Uint8Array();
      // What was loaded once is not read again, so each object gets a target of its own.
      target = await freshDatabase(cluster);
      for (const at of [0, 8, 20, 45, 55, 60, sound.byteLength >> 1, sound.byteLength - 1]) {
        const flipped = sound.slice();
        flipped[at] = (flipped[at] ?? 0) ^ 0x10;
        store.objects.set(name, flipped);
        const failure = await restoreBackup(await depsFor(target), backup.id).catch((error) => error);
        expect([name, at, failure.code]).toEqual([
          name,
          at,
          expect.stringMatching(/^(object_damaged|manifest_damaged|format_newer|key_wrong)$/),
        ]);
      }
      store.objects.delete(name);
      const failure = await restoreBackup(await depsFor(target), backup.id).catch((error) => error);
      expect([name, failure.code]).toEqual([name, name === manifest ? "backup_not_found" : "object_missing"]);
      store.objects.set(name, sound);
    }
    await endsWell(target);
  });

  it("does nothing to the target while the manifest or the key is not in order", async () => {
    const target = await freshDatabase(cluster);
    const other = await writeBackup(databaseOf(cluster, "postgres", source), createMemoryStore());
    await expect(restoreBackup(await depsFor(target, { ring: other.ring }), backup.id)).rejects.toMatchObject({
      code: "key_wrong",
    });
    await isUntouched(target);
    expect(await query(cluster.plainUrl("postgres", target), "select 1 from pg_namespace where nspname = 'holdfast'"))
      .toEqual([]);
  });

  it("goes on after the store was away", async () => {
    const target = await freshDatabase(cluster);
    let reads = 0;
    const away: Store = {
      ...store,
      read: async (name) => {
        if (name.startsWith("v1/objects/") && ++reads > 5) throw new HoldfastError("store_unreachable", "away");
        return await store.read(name);
      },
    };
    await expect(restoreBackup(await depsFor(target, { store: away }), backup.id)).rejects.toMatchObject({
      code: "store_unreachable",
    });
    expect(reads).toBeGreaterThan(5);
    await endsWell(target);
  });

  it("says database_denied to a role that may not create, and changes nothing", async () => {
    const target = await freshDatabase(cluster);
    await withClient(cluster.plainUrl(), (client) => client.query("create role nobody_much login password 'x'"));
    const url = cluster.url("postgres", target).replace(/\/\/[^@]*@/, "//nobody_much:x@");
    const denied = openDatabase({ url, caPem: readFileSync(cluster.caFile, "utf8") });
    await expect(restoreBackup(await depsFor(target, { target: denied }), backup.id)).rejects.toMatchObject({
      code: "database_denied",
    });
    await isUntouched(target);
  });

  it("names the definition that the target refuses, and keeps nothing of its group", async () => {
    const target = await freshDatabase(cluster);
    const refusing = wrapped(databaseOf(cluster, "postgres", target), (connection) => ({
      ...connection,
      execute: (text) =>
        connection.execute(text.replace("create table public.visits (", "create table public.visits (x nowhere, ")),
    }));
    await expect(restoreBackup(await depsFor(target, { target: refusing }), backup.id)).rejects.toMatchObject({
      code: "database_failed",
      message: expect.stringMatching(/^table public\.visits: type "nowhere" does not exist/),
    });
    const tables = await query(
      cluster.plainUrl("postgres", target),
      "select 1 from pg_tables where schemaname = 'public'",
    );
    expect(tables).toEqual([]);
    await endsWell(target);
  });

  it("finds rows that somebody else wrote meanwhile, by the count at the end", async () => {
    const target = await freshDatabase(cluster);
    let added = false;
    const busy = wrapped(databaseOf(cluster, "postgres", target), (connection) => ({
      ...connection,
      query: async (text, values) => {
        if (/count\(\*\)::text as rows from only public\.visits/.test(text) && !added) {
          added = true;
          await query(cluster.plainUrl("postgres", target), "insert into visits (note) values ('mine')");
        }
        return await connection.query(text, values);
      },
    }));
    await expect(restoreBackup(await depsFor(target, { target: busy }), backup.id)).rejects.toMatchObject({
      code: "counts_differ",
      message: "table public.visits holds 801 of 800 rows",
    });
    expect(added).toBe(true);
  });

  it("counts each table once, also where it is broken off between two of them", async () => {
    const target = await freshDatabase(cluster);
    const counted: string[] = [];
    const watched = wrapped(databaseOf(cluster, "postgres", target), (connection) => ({
      ...connection,
      query: async (text, values) => {
        counted.push(.../count\(\*\)::text as rows from only (\S+)/.exec(text)?.slice(1) ?? []);
        return await connection.query(text, values);
      },
    }));
    const deps = await depsFor(target, { target: watched });
    const brokenOff = new AbortController();
    const onProgress = ({ phase, steps, stepsTotal }: RestoreProgress) => {
      if (phase === "counts" && steps === stepsTotal - 1) brokenOff.abort();
    };
    await expect(restoreBackup(deps, backup.id, { parallel: 1, signal: brokenOff.signal, onProgress }))
      .rejects.toMatchObject({ code: "cancelled" });
    expect(counted).toHaveLength(1);
    await restoreBackup(deps, backup.id, { parallel: 1 });
    expect(counted).toHaveLength(2);
    expect(new Set(counted).size).toBe(2);
  });

  it("plans without touching the target", async () => {
    const target = await freshDatabase(cluster);
    const prepared = await prepareRestore(await depsFor(target), backup.id);
    expect(prepared.plan.loads.map((load) => load.rows)).toEqual([800, 400]);
    await isUntouched(target);
  });
});

/** The database with every connection changed by `change`. */
function wrapped(database: Database, change: (connection: Connection) => Connection): Database {
  return {
    label: database.label,
    connect: async (name) => {
      const connection = await database.connect(name);
      return change({
        processId: connection.processId,
        serverVersion: connection.serverVersion,
        query: (text, values) => connection.query(text, values),
        execute: (text) => connection.execute(text),
        copyOut: (text, onData) => connection.copyOut(text, onData),
        copyIn: (text, rows) => connection.copyIn(text, rows),
        close: () => connection.close(),
      });
    },
  };
}
