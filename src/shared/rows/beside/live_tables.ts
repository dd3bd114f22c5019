/** Tables of the database that rows go back into, as they are now. */
import { z } from "zod";
import type { Connection } from "../../postgres/connection.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { readRows } from "../../schema/read_rows.ts";

const column = z.object({
  name: z.string(),
  type: z.string(),
  attnum: z.int(),
  notNull: z.boolean(),
  generated: z.boolean(),
  /** Has a default, or is an identity column. */
  filled: z.boolean(),
  /** GENERATED ALWAYS AS IDENTITY: no statement sets it where the row stands. */
  always: z.boolean(),
});

const keyColumn = z.object({
  name: z.string(),
  /** The index's own equality, as `operator(schema.=)`: another type's may be found by name under an empty search path. */
  equals: z.string(),
});

const uniqueKey = z.object({
  /** Of the index. */
  name: z.string(),
  columns: z.array(keyColumn),
  /** NULLS NOT DISTINCT: two nulls are alike. */
  nullsToo: z.boolean(),
});

const refusal = z.object({
  /** Of the constraint or the index. */
  name: z.string(),
  /** Live columns that it looks at. */
  columns: z.array(z.string()),
});

const check = refusal.extend({
  /** False where the server refuses the row. */
  expression: z.string(),
});

const odderKey = refusal.extend({
  keys: z.array(z.object({
    expression: z.string(),
    /** That holds between two rows which cannot both be there, as `operator(schema.=)`. */
    operator: z.string(),
  })),
  /** Which rows it is about. */
  predicate: z.string(),
  nullsToo: z.boolean(),
});

const liveTable = z.object({
  oid: z.string(),
  schema: z.string(),
  name: z.string(),
  partitioned: z.boolean(),
  /** Of a partition: the oid of the table on top of all that it is a partition of. */
  root: z.string().nullable(),
  columns: z.array(column),
  /** Columns of the primary key in its order; null: there is none. */
  key: z.array(keyColumn).nullable(),
  /** Other unique keys over plain columns of all rows. */
  uniques: z.array(uniqueKey),
  /** Unique keys with conditions or expressions, and exclusions. Expressions name columns alone. */
  odderKeys: z.array(odderKey),
  /** Without those that may look at other rows. */
  checks: z.array(check),
  /** A unique key or an exclusion, its own or a partition's, is deferrable: replica role does not check it. */
  deferrable: z.boolean(),
  /**
   * Columns that cannot change where the row stands: those of unique keys other than the primary one and of exclusions, of
   * partitions too, which two rows may swap, and GENERATED ALWAYS AS IDENTITY.
   */
  pinned: z.array(z.string()),
  /** Triggers, and rules, that fire under `session_replication_role = replica` as well. */
  alwaysTriggers: z.array(z.string()),
  bytes: z.number(),
});

export type LiveColumn = z.infer<typeof column>;
export type KeyColumn = z.infer<typeof keyColumn>;
export type OdderKey = z.infer<typeof odderKey>;
export type LiveTable = z.infer<typeof liveTable>;

const keyColumns = `pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'name', a.attname, 'equals', pg_catalog.format('operator(%I.%s)', e.nspname, o.oprname)
  ) order by k.place)`;

/** Columns \`a\` of index \`i\` of table \`c\`, with the operator \`o\` that is equality in the index. */
const columnsOfKey = `
  cross join pg_catalog.generate_series(0, i.indnkeyatts - 1) as k (place)
  join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = i.indkey[k.place]
  join pg_catalog.pg_opclass as f on f.oid = i.indclass[k.place]
  join pg_catalog.pg_amop as m on m.amopfamily = f.opcfamily and m.amoplefttype = f.opcintype
    and m.amoprighttype = f.opcintype and m.amopstrategy = 3
  join pg_catalog.pg_operator as o on o.oid = m.amopopr
  join pg_catalog.pg_namespace as e on e.oid = o.oprnamespace`;

/** Columns of table \`c\` that an index or a constraint \`x\` looks at, its expressions too. */
const columnsSeenBy = (oid: string, catalog: string) =>
  `array(
    select distinct a.attname::text from pg_catalog.pg_depend as d
      join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = d.refobjsubid
     where d.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass and d.objid = ${oid}
       and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = c.oid and d.refobjsubid > 0
  )`;

/** Of index \`i\`: what is compared in each place, in its collation, with the operator of an exclusion or the equality. */
const keysOfIndex = `(
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'expression', '(' || pg_catalog.pg_get_indexdef(i.indexrelid, k.place + 1, true) || ')'
        || case when l.oid is null then '' else pg_catalog.format(' collate %I.%I', p.nspname, l.collname) end,
      'operator', pg_catalog.format('operator(%I.%s)', e.nspname, o.oprname)
    ) order by k.place)
    from pg_catalog.generate_series(0, i.indnkeyatts - 1) as k (place)
    join pg_catalog.pg_opclass as f on f.oid = i.indclass[k.place]
    left join pg_catalog.pg_constraint as n on n.conindid = i.indexrelid and n.contype = 'x'
    left join pg_catalog.pg_amop as m on m.amopfamily = f.opcfamily and m.amoplefttype = f.opcintype
      and m.amoprighttype = f.opcintype and m.amopstrategy = 3 and n.oid is null
    join pg_catalog.pg_operator as o on o.oid = coalesce(n.conexclop[k.place + 1], m.amopopr)
    join pg_catalog.pg_namespace as e on e.oid = o.oprnamespace
    left join pg_catalog.pg_collation as l on l.oid = i.indcollation[k.place]
    left join pg_catalog.pg_namespace as p on p.oid = l.collnamespace
)`;

/**
 * Those that are there of the names, and those of the oids, `leaf` too. Partitions are answered for as tables of their own.
 * Errors: those of the connection.
 */
export async function readLiveTables(
  connection: Connection,
  wanted: readonly (TableName & { readonly oid: string; readonly leaf?: string | undefined })[],
): Promise<LiveTable[]> {
  if (wanted.length === 0) return [];
  return await readRows(
    connection,
    "tables",
    liveTable,
    `select c.oid, n.nspname as schema, c.relname as name, c.relkind = 'p' as partitioned,
            case when c.relispartition then pg_catalog.pg_partition_root(c.oid)::oid::text end as root,
            pg_catalog.to_jsonb(array(
              select pg_catalog.jsonb_build_object(
                'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'attnum', a.attnum,
                'notNull', a.attnotnull, 'generated', a.attgenerated <> '',
                'filled', a.atthasdef or a.attidentity <> '', 'always', a.attidentity = 'a'
              )
              from pg_catalog.pg_attribute as a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum
            )) as columns,
            (
              select ${keyColumns} from pg_catalog.pg_index as i ${columnsOfKey}
              where i.indrelid = c.oid and i.indisprimary
            ) as key,
            pg_catalog.to_jsonb(array(
              select pg_catalog.jsonb_build_object(
                'name', x.relname, 'columns', ${keyColumns}, 'nullsToo', i.indnullsnotdistinct
              )
              from pg_catalog.pg_index as i join pg_catalog.pg_class as x on x.oid = i.indexrelid ${columnsOfKey}
              where i.indrelid = c.oid and i.indisunique and not i.indisprimary and i.indisvalid
                and i.indpred is null and i.indexprs is null
              group by x.oid, x.relname, i.indnullsnotdistinct order by x.relname
            )) as uniques,
            pg_catalog.to_jsonb(array(
              select pg_catalog.jsonb_build_object(
                'name', x.relname, 'columns', ${columnsSeenBy("x.oid", "pg_class")}, 'keys', ${keysOfIndex},
                'predicate', coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), 'true'),
                'nullsToo', i.indnullsnotdistinct
              )
              from pg_catalog.pg_index as i join pg_catalog.pg_class as x on x.oid = i.indexrelid
              where i.indrelid = c.oid and i.indisvalid and (
                i.indisexclusion or (i.indisunique and (i.indpred is not null or i.indexprs is not null))
              )
              order by x.relname
            )) as "odderKeys",
            pg_catalog.to_jsonb(array(
              select pg_catalog.jsonb_build_object(
                'name', k.conname, 'columns', ${columnsSeenBy("k.oid", "pg_constraint")},
                'expression', pg_catalog.pg_get_expr(k.conbin, k.conrelid)
              )
              from pg_catalog.pg_constraint as k
              where k.conrelid = c.oid and k.contype = 'c' and not exists (
                select from pg_catalog.pg_depend as d join pg_catalog.pg_proc as f on f.oid = d.refobjid and f.provolatile <> 'i'
                where d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = k.oid
                  and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
              )
              order by k.conname
            )) as checks,
            exists (
              select from pg_catalog.pg_index as i
               where not i.indimmediate and (
                 i.indrelid = c.oid or i.indrelid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) as p)
               )
            ) as deferrable,
            pg_catalog.to_jsonb(array(
              select distinct a.attname::text
              from pg_catalog.pg_attribute as a
              where a.attnum > 0 and not a.attisdropped
                and (a.attrelid = c.oid or a.attrelid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) as p))
                and (a.attidentity = 'a' or exists (
                  select from pg_catalog.pg_index as i
                  where i.indrelid = a.attrelid and (i.indisunique or i.indisexclusion) and not i.indisprimary and (
                    a.attnum = any (i.indkey) or exists (
                      select from pg_catalog.pg_depend as d
                      where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = i.indexrelid
                        and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = i.indrelid
                        and d.refobjsubid = a.attnum
                    )
                  )
                ))
              order by 1
            )) as pinned,
            pg_catalog.to_jsonb(array(
              select t.tgname::text
              from pg_catalog.pg_trigger as t
              where not t.tgisinternal and t.tgenabled in ('A', 'R') and (
                t.tgrelid = c.oid or t.tgrelid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) as p)
              )
              union
              select 'rule ' || r.rulename
              from pg_catalog.pg_rewrite as r
              where r.ev_type in ('2', '3', '4') and r.ev_enabled in ('A', 'R') and (
                r.ev_class = c.oid or r.ev_class in (select p.relid from pg_catalog.pg_partition_tree(c.oid) as p)
              )
              order by 1
            )) as "alwaysTriggers",
            coalesce((
              select sum(pg_catalog.pg_table_size(p.relid)) from pg_catalog.pg_partition_tree(c.oid) as p
            ), pg_catalog.pg_table_size(c.oid))::float8 as bytes
       from pg_catalog.pg_class as c
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and c.relpersistence <> 't' and (
        c.oid = any ($1::oid[]) or exists (
          select from pg_catalog.jsonb_to_recordset($2::jsonb) as w (schema name, name name)
          where w.schema = n.nspname and w.name = c.relname
        )
      )
      order by n.nspname, c.relname`,
    [
      `{${wanted.flatMap(({ oid, leaf }) => leaf === undefined ? [oid] : [oid, leaf]).join(",")}}`,
      JSON.stringify(wanted.map(({ schema, name }) => ({ schema, name }))),
    ],
  );
}
