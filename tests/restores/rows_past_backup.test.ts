/** Rows out of a full backup, against SQL on the live source at the time of the backup. */
import { Buffer } from "node:buffer";
import { randomInt } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openBackupRows } from "../../src/shared/rows/past/backup_rows.ts";
import type { PastPiece, PastRows, PastTable, RowFilter } from "../../src/shared/rows/past/past.ts";
import { textForm } from "../../src/shared/rows/past/row_filter_types.ts";
import { quoteIdent, quoteQualified } from "../../src/shared/schema/quote.ts";
import { openSession } from "../../src/shared/backup/session.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { loadCorpus } from "../corpus/load.ts";
import { type Cluster, clusterMs, startTestCluster } from "../support/cluster.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "../integration/restore_fixture.ts";

let source: Cluster;
let live: Connection;
let backup: WrittenBackup;
let past: PastRows;
const store = createMemoryStore();

const deps = () => restoreDeps(store, backup.ring, databaseOf(source));

beforeAll(async () => {
  source = await startTestCluster();
  const postgres = await databaseOf(source).connect("corpus");
  const superuser = await databaseOf(source, source.superuser).connect("corpus");
  await loadCorpus({ postgres, superuser });
  await loadSampleApp({
    owner: { connectionString: source.plainUrl() },
    admin: { connectionString: source.plainUrl(source.superuser) },
  }, { scale: 0.02 });
  await postgres.execute(`
    create schema "Odd, names.";
    create collation "Odd, names.".loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table "Odd, names."."a ""quoted"" table" (
      "select" text, "a b" varchar(40), "c,d" uuid default gen_random_uuid(), e bytea, f boolean,
      g timestamptz default now(), h text collate "Odd, names.".loose, i numeric, "generated" int generated always as (1) stored,
      primary key ("a b", "select"));
    insert into "Odd, names."."a ""quoted"" table" ("select", "a b", e, f, h, i)
      select s, md5(s) || chr(9) , convert_to(s, 'UTF8'), length(s) % 2 = 0, case when length(s) % 2 = 0 then 'Ab' else 'aB' end, length(s) / 2.0
        from unnest(array['', E'\\\\N', E'\\\\.', E'a\\tb', E'a\\nb', E'\\b\\f\\v\\r', 'é日本🙂', 'N', E'\\\\', repeat('x', 5000)]) as s;
    create table "Odd, names.".nothing ();
    insert into "Odd, names.".nothing default values;
    insert into "Odd, names.".nothing default values;
    create table "Odd, names."."P" (id bigint, "default" text default 'a, b (not null', k int, n numeric(10,2) not null,
      t timestamp(3) without time zone, g int generated always as (k * 2) stored, primary key (id, k)) partition by list (k);
    create table "Odd, names."."P 1" partition of "Odd, names."."P" for values in (1);
    create table "Odd, names.".other_order (t timestamp(3), gone int, n numeric(10,2) not null, g int generated always as (k * 2) stored,
      k int not null, "default" text, id bigint not null);
    alter table "Odd, names.".other_order drop column gone;
    alter table "Odd, names."."P" attach partition "Odd, names.".other_order for values in (2);
    create table "Odd, names."."P 3" partition of "Odd, names."."P" for values in (3, 4) partition by range (id);
    create table "Odd, names."."P 3.1" partition of "Odd, names."."P 3" for values from (0) to (500);
    create table "Odd, names."."P 3.2" (k int not null, id bigint not null, n numeric(10,2) not null, t timestamp(3), "default" text,
      g int generated always as (k * 2) stored);
    alter table "Odd, names."."P 3" attach partition "Odd, names."."P 3.2" for values from (500) to (1000);
    insert into "Odd, names."."P" (id, "default", k, n, t)
      select i, case when i % 5 > 0 then repeat('d' || i || E'\\t', i % 40) end, 1 + i % 4, i / 100.0, '2024-01-01'::timestamp + i * interval '1 ms'
        from generate_series(0, 999) as i;
    create table "Odd, names.".parent (id int primary key);
    create table "Odd, names.".child (more text) inherits ("Odd, names.".parent);
    insert into "Odd, names.".parent select generate_series(1, 5);
    insert into "Odd, names.".child select i, 'c' || i from generate_series(6, 9) as i;`);
  await postgres.close();
  await superuser.close();
  backup = await writeBackup(databaseOf(source, source.superuser), store);
  past = await openBackupRows(await deps(), backup.id);
  live = await openSession(databaseOf(source, source.superuser), "witness");
}, clusterMs);

afterAll(async () => {
  await live?.close();
  await source?.destroy();
}, clusterMs);

async function textOf(pieces: AsyncIterable<PastPiece>): Promise<string[]> {
  const parts: Uint8Array[] = [];
  for await (const { rows } of pieces) parts.push(rows.slice());
  const rows = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts))
    .split("\n");
  expect(rows.pop()).toBe("");
  return rows.sort();
}

/** Rows of the live table, those of its partitions too, but not of tables that inherit from it. */
async function liveRows({ schema, name, columns }: PastTable, condition = "true"): Promise<string[]> {
  const [found] = await live.query("select relkind from pg_class where oid = to_regclass($1)", [
    quoteQualified(schema, name),
  ]);
  const only = found?.["relkind"] === "p" ? "" : "only ";
  const parts: Uint8Array[] = [];
  await live.copyOut(
    `copy (select ${columns.map((column) => quoteIdent(column.name)).join(", ")} from ${only}${
      quoteQualified(schema, name)
    } as t where ${condition}) to stdout`,
    (bytes) => parts.push(bytes.slice()),
  );
  const rows = new TextDecoder().decode(Buffer.concat(parts)).split("\n");
  rows.pop();
  return rows.sort();
}

const read = (table: PastTable, filter: RowFilter) => textOf(past.read(table, filter));
const tableOf = (schema: string, name: string): PastTable => {
  const found = past.tables.find((one) => one.schema === schema && one.name === name);
  if (found === undefined) throw new Error(`${schema}.${name} is not listed`);
  return found;
};
const odd = (name: string) => tableOf("Odd, names.", name);

describe("reading goes on", () => {
  it("behind the end of any piece, with or without reading ahead: no row is missed, none comes twice", async () => {
    const careful = await openBackupRows(await deps(), backup.id, { ahead: false });
    let resumed = 0;
    const small = past.tables.filter(({ rows, rawBytes }) => rows > 0 && rawBytes < 500_000);
    for (const source of [past, careful]) {
      for (const table of small) {
        const pieces: PastPiece[] = [];
        for await (const piece of source.read(table, null)) pieces.push(piece);
        const at = Math.floor(pieces.length / 2);
        const rest: Uint8Array[] = [];
        for await (const { rows } of source.read(table, null, pieces[at]?.end)) rest.push(rows);
        const wanted = Buffer.concat(pieces.slice(at + 1).map(({ rows }) => rows));
        expect(Buffer.concat(rest).equals(wanted), table.name).toBe(true);
        if (at + 1 < pieces.length) resumed++;
      }
    }
    expect(resumed).toBeGreaterThan(4);
  });
});

describe("the tables of a full backup", () => {
  it("are the user's and those of auth and storage, partitioned ones and their leaves, with columns and keys of the catalog", async () => {
    const rows = await live.query(
      `select n.nspname as schema, c.relname as name, case when c.relkind = 'p' then '0' else c.oid::text end as oid,
              (select coalesce(json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod),
                  case when c.relkind = 'p' then coalesce((
                    select f.attnum from pg_partition_tree(c.oid) as t join pg_attribute as f on f.attrelid = t.relid and f.attname = a.attname
                     where t.isleaf and t.relid::oid::text = l.leaf and not f.attisdropped
                  ), 0) else a.attnum end) order by a.attnum), '[]')
                 from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns,
              (select json_agg(a.attname order by u.place) from pg_constraint as k
                 cross join unnest(k.conkey) with ordinality as u (attnum, place)
                 join pg_attribute as a on a.attrelid = c.oid and a.attnum = u.attnum
                where k.conrelid = c.oid and k.contype = 'p') as key
         from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
         left join jsonb_to_recordset($1::jsonb) as l (schema name, name name, leaf text) on l.schema = n.nspname and l.name = c.relname
        where c.relkind in ('r', 'p') and c.oid >= 16384 and n.nspname !~ '^(pg_|backup$|information_schema$)'
          and (c.relkind = 'r' or not c.relispartition)
          and n.nspname not in ('cron', 'net', 'vault', 'realtime', '_realtime', 'supabase_functions', 'graphql', 'pgsodium')
          and (n.nspname, c.relname) not in (('auth', 'schema_migrations'), ('storage', 'migrations'))
          and not exists (select from pg_depend as d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'e')`,
      // Their columns are numbered as in one partition, which says which column of now each of them is.
      [JSON.stringify(past.tables.map(({ schema, name, leaf }) => ({ schema, name, leaf: leaf ?? null })))],
    );
    const wanted = rows.map((row) => ({
      schema: row["schema"],
      name: row["name"],
      oid: row["oid"],
      columns: (JSON.parse(row["columns"] ?? "") as [string, string, number][]).map(([name, type, attnum]) => ({
        name,
        type,
        attnum,
      })),
      key: JSON.parse(row["key"] ?? "null") as string[] | null,
    }));
    const sorted = <T extends { schema: string | null | undefined; name: string | null | undefined }>(tables: T[]) =>
      tables.sort((a, b) => JSON.stringify([a.schema, a.name]) < JSON.stringify([b.schema, b.name]) ? -1 : 1);
    const listed = past.tables.map(({ schema, name, oid, columns, key }) => ({ schema, name, oid, columns, key }));
    expect(sorted(listed)).toEqual(sorted(wanted));
    expect(past.backupId).toBe(backup.id);
    expect(past.at).toBe(backup.manifest.consistentAt);
  });
});

describe("rows out of a full backup", () => {
  it("are those that the source had, of every table, in the order of its columns", async () => {
    for (const table of past.tables) {
      const rows = await read(table, null);
      expect(rows, quoteQualified(table.schema, table.name)).toEqual(await liveRows(table));
      expect(table.rows).toBe(rows.length);
    }
    expect(odd("P").rows).toBe(1000);
    expect(odd("other_order").rows).toBe(250);
    expect(odd("parent").rows).toBe(5);
    expect(odd("nothing").rows).toBe(2);
  });

  it("are found by values of any column: all that fit, and no others where the type's text tells", async () => {
    const seed = randomInt(1e9);
    let state = seed;
    const below = (limit: number) => (state = (state * 1103515245 + 12345) % 2147483648) % limit;
    let compared = 0;
    const loose = await live.query(
      `select n.nspname as schema, c.relname as name, a.attname as column from pg_attribute as a
         join pg_collation as x on x.oid = a.attcollation and not x.collisdeterministic
         join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace`,
    );
    for (const table of past.tables) {
      const rows = await read(table, null);
      if (rows.length === 0) continue;
      for (const [at, column] of table.columns.entries()) {
        const fields = Array.from({ length: 1 + below(3) }, () => rows[below(rows.length)]?.split("\t")[at] ?? "");
        const condition = { columns: [column.name], values: new Set(fields) };
        const fitting = rows.filter((row) =>
          row.split("\t")[at] !== "\\N" && condition.values.has(row.split("\t")[at] ?? "")
        );
        const found = await read(table, [condition]);
        const where = `seed ${seed}, ${quoteQualified(table.schema, table.name, column.name)}`;
        const isLoose = loose.some((one) =>
          one["schema"] === table.schema && one["name"] === table.name && one["column"] === column.name
        ) || textForm(column.type) === null ||
          fields.some((field) =>
            / $/.test(field)
          );
        if (isLoose) expect(found.length, where).toBeGreaterThanOrEqual(fitting.length);
        else {
          expect(found, where).toEqual(fitting);
          compared++;
        }
      }
    }
    expect(compared).toBeGreaterThan(100);
  });

  it("are found by the server's own equality under a collation that calls different texts equal", async () => {
    const table = odd('a "quoted" table');
    const found = await read(table, [{ columns: ["h"], values: new Set(["AB"]) }]);
    const fitting = await liveRows(table, "h = 'AB'");
    expect(fitting).toHaveLength(10);
    expect(found).toEqual(expect.arrayContaining(fitting));
  });

  it("are found by several columns, in any order, in leaves whose own fields stand in another order", async () => {
    const table = odd("P");
    const filter = [
      { columns: ["k", "id"], values: new Set(["2\t1", "3\t502", "3\t503", "1\t\\N"]) },
      { columns: ["id"], values: new Set(["7"]) },
    ];
    expect(await read(table, filter)).toEqual(await liveRows(table, "(k, id) in ((2, 1), (3, 502)) or id = 7"));
    expect(await read(odd("P 3.2"), filter)).toEqual(await liveRows(odd("P 3.2"), "(k, id) = (3, 502)"));
    expect(await read(table, [])).toEqual([]);
  });
});

describe("a backup that is damaged", () => {
  it("is told as object_missing and object_damaged at the table, and other tables are read", async () => {
    const table = backup.manifest.tables.find(({ name }) => name === "P 1");
    const [first, second] = table?.chunks ?? [];
    if (first === undefined || second === undefined) throw new Error("the table has not two chunks");
    const bytes = await store.read(second.object);
    const turned = bytes.slice();
    turned[turned.length - 20] = (turned[turned.length - 20] ?? 0) ^ 1;
    await store.replace(second.object, turned);
    await expect(read(odd("P"), null)).rejects.toMatchObject({ code: "object_damaged" });
    await store.remove([second.object]);
    await expect(read(odd("P 1"), null)).rejects.toMatchObject({ code: "object_missing" });
    expect(await read(odd("other_order"), null)).toHaveLength(250);
    await store.create(second.object, bytes);
    expect(await read(odd("P"), null)).toHaveLength(1000);
  });

  it("is not found under another id", async () => {
    await expect(openBackupRows(await deps(), "00000000")).rejects.toMatchObject({ code: "backup_not_found" });
  });
});
