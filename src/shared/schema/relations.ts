/** Rows about relations, their columns and checks, as the collectors of tables, views and types use them. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { firstUserOid } from "./inventory.ts";
import { readRows } from "./read_rows.ts";

const relationFormat = z.object({
  oid: z.string(),
  schema: z.string(),
  name: z.string(),
  relkind: z.string(),
  persistence: z.string(),
  accessMethod: z.string().nullable(),
  tablespace: z.string().nullable(),
  options: z.array(z.string()),
  toastOptions: z.array(z.string()),
  rowSecurity: z.boolean(),
  forceRowSecurity: z.boolean(),
  replicaIdentity: z.string(),
  isPartition: z.boolean(),
  partitionBound: z.string().nullable(),
  partitionKey: z.string().nullable(),
  populated: z.boolean(),
  ofType: z.string().nullable(),
  ofTypeOid: z.string(),
  rowType: z.string(),
  toastOid: z.string(),
  server: z.string().nullable(),
  foreignOptions: z.array(z.string()).nullable(),
  viewDefinition: z.string().nullable(),
  parents: z.array(z.string()),
});
export type Relation = z.infer<typeof relationFormat>;

const columnFormat = z.object({
  relation: z.string(),
  name: z.string(),
  attnum: z.number(),
  type: z.string(),
  typeOid: z.string(),
  typmod: z.number(),
  collation: z.string().nullable(),
  notNull: z.boolean(),
  generated: z.string(),
  identity: z.string(),
  isLocal: z.boolean(),
  inherited: z.number(),
  storage: z.string().nullable(),
  compression: z.string().nullable(),
  statistics: z.number().nullable(),
  options: z.array(z.string()).nullable(),
  foreignOptions: z.array(z.string()).nullable(),
  defaultOid: z.string().nullable(),
  defaultText: z.string().nullable(),
});
export type Column = z.infer<typeof columnFormat>;

const checkFormat = z.object({
  oid: z.string(),
  relation: z.string(),
  name: z.string(),
  definition: z.string(),
  validated: z.boolean(),
  isLocal: z.boolean(),
  inherited: z.number(),
  callsUserFunction: z.boolean(),
});
export type Check = z.infer<typeof checkFormat>;

export interface Relations {
  readonly byOid: ReadonlyMap<string, Relation>;
  readonly columns: ReadonlyMap<string, Column[]>;
  readonly checks: ReadonlyMap<string, Check[]>;
}

/**
 * Column options named `pg_…` are the server's own bookkeeping (`pg_attver`, from 15.20 on), which pg_dump leaves out as well.
 */
export async function readRelations(connection: Connection): Promise<Relations> {
  const relations = await readRows(
    connection,
    "relations",
    relationFormat,
    `select c.oid, n.nspname as schema, c.relname as name, c.relkind, c.relpersistence as persistence,
            am.amname as "accessMethod", ts.spcname as tablespace, coalesce(c.reloptions, '{}') as options,
            coalesce(t.reloptions, '{}') as "toastOptions", c.relrowsecurity as "rowSecurity",
            c.relforcerowsecurity as "forceRowSecurity", c.relreplident as "replicaIdentity",
            c.relispartition as "isPartition",
            case when c.relispartition then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end as "partitionBound",
            case when c.relkind = 'p' then pg_catalog.pg_get_partkeydef(c.oid) end as "partitionKey",
            c.relispopulated as populated,
            case when c.reloftype <> 0 then pg_catalog.format_type(c.reloftype, -1) end as "ofType",
            c.reloftype as "ofTypeOid", c.reltype as "rowType", c.reltoastrelid as "toastOid",
            s.srvname as server, f.ftoptions as "foreignOptions",
            case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end as "viewDefinition",
            coalesce((select pg_catalog.json_agg(h.inhparent order by h.inhseqno) from pg_catalog.pg_inherits h
              where h.inhrelid = c.oid), '[]') as parents
       from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_am am on am.oid = c.relam
       left join pg_catalog.pg_tablespace ts on ts.oid = c.reltablespace
       left join pg_catalog.pg_class t on t.oid = c.reltoastrelid
       left join pg_catalog.pg_foreign_table f on f.ftrelid = c.oid
       left join pg_catalog.pg_foreign_server s on s.oid = f.ftserver
      where c.oid >= ${firstUserOid} and c.relkind in ('r', 'p', 'f', 'v', 'm', 'c')
        and n.nspname !~ '^pg_(temp|toast)'`,
  );
  const columns = await readRows(
    connection,
    "columns",
    columnFormat,
    `select a.attrelid as relation, a.attname as name, a.attnum,
            pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.atttypid as "typeOid", a.atttypmod as typmod,
            case when a.attcollation <> t.typcollation and a.attcollation <> 0
                 then pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) end as collation,
            a.attnotnull as "notNull", a.attgenerated as generated, a.attidentity as identity,
            a.attislocal as "isLocal", a.attinhcount as inherited,
            case when a.attstorage <> t.typstorage then
              case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end
            end as storage,
            case a.attcompression when 'p' then 'pglz' when 'l' then 'lz4' end as compression,
            nullif(a.attstattarget, -1) as statistics, 
            (select pg_catalog.json_agg(o) from pg_catalog.unnest(a.attoptions) o where o not like 'pg\\_%') as options, a.attfdwoptions as "foreignOptions",
            d.oid as "defaultOid", pg_catalog.pg_get_expr(d.adbin, d.adrelid) as "defaultText"
       from pg_catalog.pg_attribute a
       join pg_catalog.pg_class c on c.oid = a.attrelid
       join pg_catalog.pg_type t on t.oid = a.atttypid
       left join pg_catalog.pg_collation co on co.oid = a.attcollation
       left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
       left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid >= ${firstUserOid} and a.attnum > 0 and not a.attisdropped
        and c.relkind in ('r', 'p', 'f', 'v', 'm', 'c')
      order by a.attrelid, a.attnum`,
  );
  const checks = await readRows(
    connection,
    "check constraints",
    checkFormat,
    `select k.oid, k.conrelid as relation, k.conname as name, pg_catalog.pg_get_constraintdef(k.oid) as definition,
            k.convalidated as validated, k.conislocal as "isLocal", k.coninhcount as inherited,
            exists (select from pg_catalog.pg_depend d
              where d.classid = 'pg_catalog.pg_constraint'::regclass and d.objid = k.oid
                and d.refclassid = 'pg_catalog.pg_proc'::regclass and d.refobjid >= ${firstUserOid}
                and not exists (select from pg_catalog.pg_depend m where m.deptype = 'e'
                  and m.classid = d.refclassid and m.objid = d.refobjid)) as "callsUserFunction"
       from pg_catalog.pg_constraint k
      where k.contype = 'c' and k.conrelid >= ${firstUserOid}
      order by k.conrelid, k.conname`,
  );
  return {
    byOid: new Map(relations.map((relation) => [relation.oid, relation])),
    columns: groupBy(columns, (column) => column.relation),
    checks: groupBy(checks, (check) => check.relation),
  };
}

export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
