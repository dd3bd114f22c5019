/** Foreign keys of the live database, on both ends of the tables that rows go into. */
import { z } from "zod";
import type { Connection } from "../../postgres/connection.ts";
import { readRows } from "../../schema/read_rows.ts";

/** One of the tables that were asked about. */
const end = z.object({
  oid: z.string(),
  /** The key is that of one of its partitions, and says nothing of its other rows. */
  below: z.boolean(),
});

const foreignKey = z.object({
  name: z.string(),
  /** Quoted `schema.table`. */
  child: z.string(),
  childOid: z.string(),
  /** What stands behind FROM for the rows that the key is about: those of tables that inherit are not. */
  childRows: z.string(),
  /** Tables asked about that have rows which refer by the key: the child, tables above it, or partitions of it. */
  children: z.array(end),
  parent: z.string(),
  parentOid: z.string(),
  parentRows: z.string(),
  /** As `children`, for the rows that are referred to. */
  parents: z.array(end),
  /** MATCH FULL: all columns have a value, or none has. */
  whole: z.boolean(),
  /** ON DELETE SET NULL: the columns that are emptied when the parent goes; else none. */
  emptied: z.array(z.string()),
  /** Parent column, its child column, and what compares them, parent first. */
  pairs: z.array(z.object({ parent: z.string(), child: z.string(), equals: z.string() })),
});

export type ForeignKey = z.infer<typeof foreignKey>;
export type KeyEnd = z.infer<typeof end>;

/**
 * Those that start or end at one of the tables, at a table that it is a partition of, or at one of its partitions. Copies
 * that partitions have of a key are not listed. Errors: those of the connection.
 */
export async function readForeignKeys(connection: Connection, tables: readonly string[]): Promise<ForeignKey[]> {
  if (tables.length === 0) return [];
  const ends = (oid: string) =>
    `array(
       select pg_catalog.jsonb_build_object('oid', f.asked::text, 'below', f.below) from family as f
        where f.relid = ${oid} order by f.asked
     )`;
  const rows = (oid: string) =>
    `(select case c.relkind when 'p' then '' else 'only ' end from pg_catalog.pg_class as c where c.oid = ${oid})
       || ${oid}::regclass::text`;
  return await readRows(
    connection,
    "foreign keys",
    foreignKey,
    `with family (asked, relid, below) as (
       select a.oid, a.oid, false from pg_catalog.unnest($1::oid[]) as a (oid)
       union all
       select a.oid, t.relid, false
         from pg_catalog.unnest($1::oid[]) as a (oid), pg_catalog.pg_partition_ancestors(a.oid) as t
        where t.relid <> a.oid
       union all
       select a.oid, t.relid, true
         from pg_catalog.unnest($1::oid[]) as a (oid), pg_catalog.pg_partition_tree(a.oid) as t
        where t.relid <> a.oid
     )
     select k.conname as name, k.conrelid::regclass::text as child, k.conrelid as "childOid",
            ${rows("k.conrelid")} as "childRows", pg_catalog.to_jsonb(${ends("k.conrelid")}) as children,
            k.confrelid::regclass::text as parent, k.confrelid as "parentOid",
            ${rows("k.confrelid")} as "parentRows", pg_catalog.to_jsonb(${ends("k.confrelid")}) as parents,
            k.confmatchtype = 'f' as whole,
            pg_catalog.to_jsonb(array(
              select c.attname::text from pg_catalog.pg_attribute as c
              where k.confdeltype = 'n' and c.attrelid = k.conrelid and c.attnum = any (coalesce(k.confdelsetcols, k.conkey))
              order by c.attnum
            )) as emptied,
            (
              select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'parent', p.attname, 'child', c.attname, 'equals', pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname)
              ) order by x.place)
              from pg_catalog.generate_subscripts(k.conkey, 1) as x (place)
              join pg_catalog.pg_attribute as p on p.attrelid = k.confrelid and p.attnum = k.confkey[x.place]
              join pg_catalog.pg_attribute as c on c.attrelid = k.conrelid and c.attnum = k.conkey[x.place]
              join pg_catalog.pg_operator as o on o.oid = k.conpfeqop[x.place]
              join pg_catalog.pg_namespace as n on n.oid = o.oprnamespace
            ) as pairs
       from pg_catalog.pg_constraint as k
      where k.contype = 'f' and k.conparentid = 0
        and (k.conrelid in (select f.relid from family as f) or k.confrelid in (select f.relid from family as f))
      order by k.conname, k.conrelid`,
    [`{${tables.join(",")}}`],
  );
}
