import { diff, extract, FactBase } from "@supabase/pg-delta";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { proveCopy } from "../../src/shared/restore/prove.ts";
import { restoreBackup, type RestoreResult } from "../../src/shared/restore/run.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { corpusFiles, loadCorpus } from "../corpus/load.ts";
import { type Cluster, clusterMs, query, startTestCluster } from "../support/cluster.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "./restore_fixture.ts";
import { catalogRows } from "./schema_catalog_rows.ts";

const announced = [
  // Inherited columns become the table's own, so that their order stays.
  /corpus_inheritance_order/,
  // What the restore keeps to release later, and what it holds: logins, webhooks, the subscription.
  /holdfast/,
  /corpus_login/,
  /^pg_trigger.*corpus_webhooks/,
  /"kind":"trigger","schema":"corpus_webhooks".*"attr":"enabled".*"to":"D"/,
  /corpus_subscription/,
  // Credentials are in no backup.
  /corpus_server/,
];

/** No pg_dump 17 can be had: the catalog's own rows and pg-delta's facts are the witnesses, and every table's rows in the server's own text. */
describe("a backup of the corpus, restored on PostgreSQL 17", () => {
  let source: Cluster;
  let target: Cluster;
  let backup: WrittenBackup;
  let result: RestoreResult;
  const store = createMemoryStore();

  beforeAll(async () => {
    source = await startTestCluster({ version: 17, platform: false });
    target = await startTestCluster({ version: 17, platform: false });
    const postgres = await databaseOf(source).connect("corpus");
    const superuser = await databaseOf(source).connect("corpus");
    expect(await loadCorpus({ postgres, superuser })).toEqual(await corpusFiles());
    await postgres.close();
    await superuser.close();
    backup = await writeBackup(databaseOf(source), store);
    result = await restoreBackup(await restoreDeps(store, backup.ring, databaseOf(target)), "latest");
  }, clusterMs);

  afterAll(async () => {
    for (const cluster of [source, target]) await cluster?.destroy();
  }, clusterMs);

  it("has restored rows of many tables", () => {
    expect(backup.manifest.totals.tables).toBeGreaterThan(50);
    expect(result.inserted).toBe(backup.manifest.totals.rows);
    expect(result.inserted).toBeGreaterThan(300);
  });

  it("differs in nothing by our own comparison", async () => {
    const from = await databaseOf(source).connect("prove");
    const to = await databaseOf(target).connect("prove");
    try {
      expect(await proveCopy(from, to, result)).toEqual([]);
    } finally {
      await from.close();
      await to.close();
    }
  });

  it("has the same rows in the catalogs, but for what the restore announces", async () => {
    const rows = async (cluster: Cluster) =>
      await catalogRows((text, values = []) => query(cluster.plainUrl(), text, values));
    const [from, to] = [await rows(source), await rows(target)];
    const differing = [...from.filter((row) => !to.includes(row)), ...to.filter((row) => !from.includes(row))];
    expect(differing.filter((row) => !announced.some((pattern) => pattern.test(row)))).toEqual([]);
  });

  it("has the same facts for pg-delta, but for what the restore announces", async () => {
    const factsOf = async (cluster: Cluster) => {
      const pool = new pg.Pool({ connectionString: cluster.plainUrl() });
      try {
        return (await extract(pool)).factBase;
      } finally {
        await pool.end();
      }
    };
    const [from, to] = [await factsOf(source), await factsOf(target)];
    expect(diff(from, new FactBase([], [])).length).toBeGreaterThan(500);
    const differing = diff(from, to).map((delta) => JSON.stringify(delta));
    expect(differing.filter((delta) => !announced.some((pattern) => pattern.test(delta)))).toEqual([]);
  });

  it("holds the same text in every table, read by plain queries", async () => {
    const tables = await query(
      source.plainUrl(),
      `select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'm') and c.relispopulated and n.nspname !~ '^pg_|^information_schema'`,
    );
    expect(tables.length).toBeGreaterThan(50);
    for (const { name } of tables) {
      const text = `select whole_row::text as row from only ${String(name)} as whole_row order by 1`;
      expect([name, await query(target.plainUrl(), text)]).toEqual([name, await query(source.plainUrl(), text)]);
    }
  });
});
