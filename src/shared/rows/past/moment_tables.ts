/** The tables of a restored database, as sources of rows. */
import { z } from "zod";
import type { Connection } from "../../postgres/connection.ts";
import type { SchemaCapture, TableShape } from "../../schema/capture_format.ts";
import { dataOf } from "../../schema/platform.ts";
import { arrayText, quoteQualified } from "../../schema/quote.ts";
import { readRows } from "../../schema/read_rows.ts";
import { nameOf } from "./fold_partitions.ts";
import type { Graph } from "./graph.ts";
import type { PastTable } from "./past.ts";
import type { FilterColumn } from "./row_filter.ts";
import { textForm } from "./row_filter_types.ts";

/** A table with where its rows lie. */
export interface MomentTable {
  readonly table: PastTable;
  readonly columns: readonly FilterColumn[];
  /** Tables with storage, quoted: itself, or its leaves. */
  readonly heaps: readonly string[];
}

const format = z.object({
  schema: z.string(),
  name: z.string(),
  owner: z.string(),
  columns: z.array(
    z.object({
      name: z.string(),
      type: z.string(),
      attnum: z.number(),
      isLoose: z.boolean(),
      isGenerated: z.boolean(),
    }),
  ),
  key: z.array(z.string()).nullable(),
  heaps: z.array(z.object({ schema: z.string(), name: z.string() })),
  bytes: z.string(),
});

/**
 * Tables of the graph and their leaves, in the graph's order, but for what a restore of rows does not take. Oids, attnums
 * and owners of the data are the source's: `oids` by `schema.name`, the rest by the capture; `0` where neither knows.
 * `rawBytes` is what the table takes in the restored database. Counts every row.
 */
export async function readMomentTables(
  connection: Connection,
  graph: Graph,
  capture: SchemaCapture,
  oids: ReadonlyMap<string, string>,
  isWanted: (name: string) => boolean,
): Promise<MomentTable[]> {
  const wanted = graph.tables.flatMap((table) => [table, ...table.partitions]).filter((table) =>
    isWanted(nameOf(table))
  );
  if (wanted.length === 0) return [];
  const shapes = new Map(capture.tables.map((shape) => [shape.oid, shape]));
  const rows = await readRows(connection, "tables", format, tablesQuery, [
    arrayText(wanted.map(({ schema }) => schema)),
    arrayText(wanted.map(({ name }) => name)),
  ]);
  const found: MomentTable[] = [];
  for (const { schema, name, owner, columns, key, heaps, bytes } of rows) {
    const oid = oids.get(quoteQualified(schema, name)) ?? "0";
    const shape = shapes.get(oid);
    const { dataOwner, restoreData } = shape ?? dataOf(schema, name, owner);
    if (!restoreData || dataOwner.startsWith("extension ")) continue;
    const stored = columns.filter((column) => !column.isGenerated);
    const names = heaps.map((heap) => quoteQualified(heap.schema, heap.name));
    found.push({
      table: {
        schema,
        name,
        oid,
        columns: stored.map((column) => ({
          name: column.name,
          type: column.type,
          attnum: attnumOf(shape, column.attnum),
        })),
        key,
        dataOwner,
        rows: await countRows(connection, names),
        rawBytes: Number(bytes),
      },
      columns: stored.map((column) => ({ name: column.name, form: column.isLoose ? null : textForm(column.type) })),
      heaps: names,
    });
  }
  return found;
}

const tablesQuery = `
  select n.nspname as schema, c.relname as name, pg_catalog.pg_get_userbyid(c.relowner) as owner,
         coalesce((select pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname,
             'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'attnum', a.attnum,
             'isLoose', coalesce(not x.collisdeterministic, false), 'isGenerated', a.attgenerated <> '') order by a.attnum)
           from pg_catalog.pg_attribute as a left join pg_catalog.pg_collation as x on x.oid = a.attcollation
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as columns,
         (select pg_catalog.json_agg(a.attname order by u.place)
            from pg_catalog.pg_constraint as k
            cross join pg_catalog.unnest(k.conkey) with ordinality as u (attnum, place)
            join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = u.attnum
           where k.conrelid = c.oid and k.contype = 'p') as key,
         (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('schema', hn.nspname, 'name', h.relname)), '[]')
            from pg_catalog.pg_class as h join pg_catalog.pg_namespace as hn on hn.oid = h.relnamespace
           where h.oid = any (family.members) and h.relkind = 'r') as heaps,
         (select coalesce(sum(pg_catalog.pg_table_size(m)), 0)::text from pg_catalog.unnest(family.members) as m) as bytes
    from unnest($1::text[], $2::text[]) with ordinality as wanted (schema, name, place)
    join pg_catalog.pg_namespace as n on n.nspname = wanted.schema
    join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname = wanted.name and c.relkind in ('r', 'p')
    cross join lateral (
      select case c.relkind when 'r' then array[c.oid] else array(
        select relid::oid from pg_catalog.pg_partition_tree(c.oid) where isleaf) end as members
    ) as family
   order by wanted.place`;

/**
 * The restore made the columns of the full in their order, without gaps; what came later has the next numbers here, and one
 * that nobody logged in the source.
 */
function attnumOf(shape: TableShape | undefined, attnum: number): number {
  return shape?.columns[attnum - 1]?.attnum ?? 0;
}

async function countRows(connection: Connection, heaps: readonly string[]): Promise<number> {
  let rows = 0;
  for (const heap of heaps) {
    const [row] = await connection.query(`select pg_catalog.count(*)::text as rows from only ${heap}`);
    rows += Number(row?.["rows"]);
  }
  return rows;
}
