/** The graph of a database as it is now, from its catalog. */
import { z } from "zod";
import { ownSchemas, sideSchemaPattern } from "../../backup/tables.ts";
import type { Connection } from "../../postgres/connection.ts";
import { firstUserOid } from "../../schema/inventory.ts";
import { dataOf } from "../../schema/platform.ts";
import { arrayText } from "../../schema/quote.ts";
import { readRows } from "../../schema/read_rows.ts";
import { foldPartitions } from "../past/fold_partitions.ts";
import type { Graph } from "../past/graph.ts";

const tableName = z.object({ schema: z.string(), name: z.string() });

const tableFormat = tableName.extend({
  owner: z.string(),
  partitioned: z.boolean(),
  parent: tableName.nullable(),
  columns: z.array(z.object({ name: z.string(), type: z.string(), notNull: z.boolean() })),
  key: z.array(z.string()).nullable(),
});

const edgeFormat = z.object({
  constraint: z.string(),
  from: tableName,
  columns: z.array(z.string()),
  to: tableName,
  toColumns: z.array(z.string()),
  onDelete: z.enum(["no action", "restrict", "cascade", "set null", "set default"]),
});

const nameObject = (relation: string): string =>
  `(select pg_catalog.json_build_object('schema', sn.nspname, 'name', s.relname)
      from pg_catalog.pg_class s join pg_catalog.pg_namespace sn on sn.oid = s.relnamespace where s.oid = ${relation})`;

const namesOfColumns = (relation: string, attnums: string): string =>
  `(select pg_catalog.json_agg(a.attname order by u.place)
      from pg_catalog.unnest(${attnums}) with ordinality u (attnum, place)
      join pg_catalog.pg_attribute a on a.attrelid = ${relation} and a.attnum = u.attnum)`;

/**
 * As `captureGraph` of a backup of this moment would give it: the same tables are left out, our own schemas and side
 * schemas among them. The session's search_path must be empty (`applySettings`). Two queries.
 *
 * Errors: `catalog_changed` when a table was dropped meanwhile; the connection's own.
 */
export async function liveGraph(connection: Connection): Promise<Graph> {
  const tables = await readRows(
    connection,
    "tables",
    tableFormat,
    `select n.nspname as schema, c.relname as name, pg_catalog.pg_get_userbyid(c.relowner) as owner,
            c.relkind = 'p' as partitioned,
            case when c.relispartition then ${
      nameObject("(select h.inhparent from pg_catalog.pg_inherits h where h.inhrelid = c.oid limit 1)")
    } end as parent,
            coalesce((select pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname,
                'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull) order by a.attnum)
              from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''), '[]') as columns,
            (select ${namesOfColumns("c.oid", "k.conkey")} from pg_catalog.pg_constraint k
              where k.conrelid = c.oid and k.contype = 'p') as key
       from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and c.relpersistence in ('p', 'u') and c.oid >= ${firstUserOid}
        and n.nspname !~ '^pg_(temp|toast)' and n.nspname <> all ($1::text[]) and n.nspname !~ '${sideSchemaPattern}'
        and not exists (select from pg_catalog.pg_depend d
          where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')`,
    [arrayText(ownSchemas)],
  );
  const edges = await readRows(
    connection,
    "foreign keys",
    edgeFormat,
    `select k.conname as constraint, ${nameObject("k.conrelid")} as from,
            ${namesOfColumns("k.conrelid", "k.conkey")} as columns, ${nameObject("k.confrelid")} as to,
            ${namesOfColumns("k.confrelid", "k.confkey")} as "toColumns",
            case k.confdeltype when 'a' then 'no action' when 'r' then 'restrict' when 'c' then 'cascade'
              when 'n' then 'set null' when 'd' then 'set default' end as "onDelete"
       from pg_catalog.pg_constraint k
      where k.contype = 'f' and k.conparentid = 0 and k.oid >= ${firstUserOid}`,
  );
  const kept = tables.filter(({ schema, name, owner }) => dataOf(schema, name, owner).captured === "capture");
  return foldPartitions(
    kept,
    kept.flatMap(({ schema, name, parent }) => parent === null ? [] : [{ parent, child: { schema, name } }]),
    edges,
  );
}
