/** A full restore into the very database in every mode, over damaged rows of every table, against plain SQL over copies of them. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadCorpus } from "../corpus/load.ts";
import { cli } from "../integration/cli_fixture.ts";
import { databaseOf } from "../integration/restore_fixture.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { damage, growTables, quietly, readTables, reset, type ScopedTable } from "./rows_scopes_damage.ts";
import {
  type Counts,
  expectedCounts,
  expectedRows,
  isValid,
  type Mode,
  prepareRows,
  rowsOf,
} from "./rows_scopes_oracle.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-full-scopes-"));
let settings: Record<string, string> = {};
let client: pg.Client;
let tables: ScopedTable[] = [];
let backup = "";
let definitions = "";
/** Fingerprints of the rows by table, as the backup has them. */
const then = new Map<string, string[]>();

const selected = async (sql: string): Promise<string[]> =>
  (await client.query<{ r: string }>(sql)).rows.map(({ r }) => r).sort();

function dumped(): string {
  const text = execFileSync(join(cluster().bin, "pg_dump"), [
    "--schema-only",
    "--schema=public",
    "--schema=corpus_*",
    "--schema=Odd *",
  ], {
    env: { ...process.env, ...cluster().environment(cluster().superuser) },
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  return text.replace(/^\\(un)?restrict .*$/gm, "");
}

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  const postgres = await databaseOf(cluster(), "postgres", "postgres").connect("corpus");
  const superuser = await databaseOf(cluster(), cluster().superuser, "postgres").connect("corpus");
  // What only a superuser may write is refused as a whole, which tests of its own say.
  await loadCorpus({ postgres, superuser }, (name) => name !== "95_superuser.sql");
  await superuser.execute(`create publication corpus_schema for tables in schema corpus_tables;
    create publication corpus_list for table corpus_constraints.parent, only corpus_views.people`);
  await postgres.close();
  await superuser.close();
  await loadSampleApp({
    owner: { connectionString: cluster().plainUrl("postgres") },
    admin: { connectionString: cluster().plainUrl(cluster().superuser) },
  }, { scale: 0.005 });
  client = new pg.Client({ connectionString: cluster().plainUrl(cluster().superuser) });
  await client.connect();
  await client.query(
    `set search_path = pg_catalog, extensions; set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set lc_monetary = 'C';
     set intervalstyle = 'postgres'; set jit = off; set client_min_messages = warning; set row_security = off`,
  );
  // The owner's own rights, without which the whole is refused, and said so in the tests of refusals.
  await client.query("grant all on corpus_privileges.all_revoked to postgres");
  const { rows: parts } = await client.query<{ oid: string }>("select oid::text from pg_class where relispartition");
  const partitions = new Set(parts.map(({ oid }) => oid));
  // Partitions are looked at with the table that they are of. A check that reads another table holds in no order of rows.
  tables = (await readTables(client)).filter(({ oid, name }) => !partitions.has(oid) && name !== "aaa_checked");
  await growTables(client, tables);
  for (const table of tables) then.set(table.oid, await selected(rowsOf(table)));
  for (const args of [["init"], ["create"]]) {
    const done = await cli([...args, "--json"], settings);
    expect(done.exit, done.stdout + done.stderr).toBe(0);
    backup = String((done.document as { readonly id?: unknown }).id);
  }
  definitions = dumped();
}, clusterMs + 60_000);

afterAll(async () => {
  await client?.end();
  rmSync(folder, { recursive: true, force: true });
});

interface Expected {
  readonly rows: ReadonlyMap<string, string[]>;
  readonly counts: Counts;
}

/** Every table is damaged; what `mode` is to make of it. Where rows without a key could not be put beside each other: as before. */
async function damageAll(mode: Mode): Promise<Expected> {
  const rows = new Map<string, string[]>();
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  for (const table of tables) {
    await damage(client, table);
    if (table.key === null && !await fits(table, mode)) await reset(client, table, "then_rows");
    await prepare(table);
    rows.set(table.oid, await selected(expectedRows(table, mode)));
    const here = await expectedCounts(client, table, mode);
    for (const what of ["inserted", "updated", "deleted"] as const) counts[what] += here[what];
  }
  await client.query("drop schema o cascade");
  return { rows, counts };
}

async function fits(table: ScopedTable, mode: Mode): Promise<boolean> {
  await prepare(table);
  return await isValid(client, table, "now_rows", mode);
}

const prepare = (table: ScopedTable) =>
  prepareRows(client, table.key, {
    was: "select * from o.then_rows",
    now: `select * from ${table.rows}`,
    meant: "true",
  });

async function restored(mode: Mode): Promise<Record<string, unknown>> {
  const done = await cli([
    "restore-full",
    backup,
    "--apply",
    mode,
    "--fire-triggers",
    "--skip-safety-backup",
    "postgres",
    "--yes",
    "--json",
  ], settings);
  expect(done.exit, done.stdout + done.stderr).toBe(0);
  return done.document as Record<string, unknown>;
}

/** Tables whose rows are others than these. */
async function wrongTables(rows: ReadonlyMap<string, string[]>): Promise<string[]> {
  const wrong: string[] = [];
  for (const table of tables) {
    const found = await selected(rowsOf(table));
    if (JSON.stringify(found) !== JSON.stringify(rows.get(table.oid))) wrong.push(table.sql);
  }
  return wrong;
}

describe("a full restore into the very database", () => {
  it("in mode `missing` brings back what is gone in every table, and touches no other row", async () => {
    const expected = await damageAll("missing");
    expect(expected.counts.inserted).toBeGreaterThan(tables.length);
    const done = await restored("missing");
    expect(await wrongTables(expected.rows)).toEqual([]);
    expect(done).toMatchObject(expected.counts);
    expect(dumped()).toBe(definitions);
  }, 240_000);

  it("in mode `replace` makes every table what it was, whatever was changed, added and deleted", async () => {
    for (const table of tables) {
      await quietly(
        client,
        table,
        () =>
          client.query(
            `with picked as (select tableoid as t, ctid as c, row_number() over (order by whole_row::text collate "C") as n from ${table.rows} as whole_row)
             delete from ${table.rows} as x using picked as p where x.tableoid = p.t and x.ctid = p.c and p.n % 3 = 1`,
          ),
      );
    }
    expect(await wrongTables(then)).toHaveLength(tables.filter(({ oid }) => then.get(oid)?.length !== 0).length);
    const done = await restored("replace");
    expect(done).toMatchObject({ ok: true, differences: [] });
    for (const what of ["inserted", "updated", "deleted"]) expect(done[what]).toBeGreaterThan(20);
    expect(await wrongTables(then)).toEqual([]);
    expect(dumped()).toBe(definitions);
  }, 240_000);

  it("in mode `merge` puts back what is gone and what was changed, and leaves what is new", async () => {
    const expected = await damageAll("merge");
    expect(expected.counts.updated).toBeGreaterThan(30);
    const done = await restored("merge");
    expect(await wrongTables(expected.rows)).toEqual([]);
    expect(done).toMatchObject(expected.counts);
    expect(dumped()).toBe(definitions);
  }, 240_000);
});
