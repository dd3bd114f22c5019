/**
 * Unique keys and exclusions that are deferrable. The server checks them by triggers, which replica role puts aside, so that
 * twins would be committed without a word: they are looked for here.
 */
import { z } from "zod";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { readRows } from "../../schema/read_rows.ts";
import { keyOfDelta, liveName, type Pair, type Part } from "./difference.ts";

const deferrableKey = z.object({
  /** Of the index. */
  name: z.string(),
  /** What stands behind FROM. */
  rows: z.string(),
  /** What the rows are that it is about; null: all. */
  predicate: z.string().nullable(),
  /** Two rows may not have all of these alike, by `equals` (an operator), nulls aside unless `nullsToo`. */
  fields: z.array(z.object({ value: z.string(), equals: z.string() })),
  nullsToo: z.boolean(),
});

type DeferrableKey = z.infer<typeof deferrableKey>;

/**
 * Under a lock of the tables against writers: none of the rows that came back is another's twin. Errors: `rows_conflict` naming
 * the key, those of the connection.
 */
export async function verifyDeferrable(connection: Connection, pairs: readonly Pair[], part: Part): Promise<void> {
  for (const pair of pairs.filter(({ fit }) => fit.live.deferrable)) {
    for (const key of await readDeferrableKeys(connection, pair.fit.live.oid)) {
      const [row] = await connection.query(twinsStatement(pair, key, part));
      if (row?.["yes"] !== "t") continue;
      throw new HoldfastError(
        "rows_conflict",
        `${key.name}: a row would have what another row of ${liveName(pair)} has`,
        {
          hint: "The last transaction was undone. Restore beside and take the rows by hand, or use --apply replace.",
        },
      );
    }
  }
}

function twinsStatement(pair: Pair, { rows, predicate, fields, nullsToo }: DeferrableKey, part: Part): string {
  const came = pair.fit.key === null
    ? "true"
    : `exists (select from ${pair.delta} as d where ${keyOfDelta(pair, "t")} and d."action" <> 'delete' and ${
      part("d")
    })`;
  const values = fields.map(({ value }, at) => `, ${value} as f${at}`).join("");
  const of = `select t.tableoid as place, t.ctid as line${values}`;
  const from = `from ${rows} as t where ${predicate === null ? "true" : `(${predicate})`}`;
  const alike = fields.map(({ equals }, at) =>
    nullsToo
      ? `(a.f${at} ${equals} b.f${at} or (a.f${at} is not distinct from null and b.f${at} is not distinct from null))`
      : `a.f${at} ${equals} b.f${at}`
  ).join(" and ");
  return `select exists (
    select from (${of} ${from} and ${came}) as a join (${of} ${from}) as b on ${alike}
     where a.line <> b.line or a.place <> b.place
  ) as yes`;
}

/** Of a table, and those that partitions of it have alone. */
async function readDeferrableKeys(connection: Connection, oid: string): Promise<DeferrableKey[]> {
  return await readRows(
    connection,
    "deferrable keys",
    deferrableKey,
    `select x.relname as name, case c.relkind when 'p' then '' else 'only ' end || c.oid::regclass::text as rows,
            pg_catalog.pg_get_expr(i.indpred, i.indrelid) as predicate, i.indnullsnotdistinct as "nullsToo",
            (
              select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'value', '(' || pg_catalog.pg_get_indexdef(i.indexrelid, k.place::int, false) || ')' ||
                  coalesce(' collate ' || pg_catalog.quote_ident(l.nspname) || '.' || pg_catalog.quote_ident(o.collname), ''),
                'equals', pg_catalog.format('operator(%I.%s)', n.nspname, e.oprname)
              ) order by k.place)
              from pg_catalog.generate_series(1, i.indnkeyatts) as k (place)
              join pg_catalog.pg_opclass as f on f.oid = i.indclass[k.place - 1]
              left join pg_catalog.pg_collation as o on o.oid = i.indcollation[k.place - 1]
              left join pg_catalog.pg_namespace as l on l.oid = o.collnamespace
              left join pg_catalog.pg_amop as m on m.amopfamily = f.opcfamily and m.amoplefttype = f.opcintype
                and m.amoprighttype = f.opcintype and m.amopstrategy = 3 and not i.indisexclusion
              join pg_catalog.pg_operator as e on e.oid = coalesce(q.conexclop[k.place], m.amopopr)
              join pg_catalog.pg_namespace as n on n.oid = e.oprnamespace
            ) as fields
       from pg_catalog.pg_index as i
       join pg_catalog.pg_class as x on x.oid = i.indexrelid
       join pg_catalog.pg_class as c on c.oid = i.indrelid
       left join pg_catalog.pg_constraint as q on q.conindid = i.indexrelid and q.contype = 'x'
      where not i.indimmediate and (i.indrelid = $1::oid or (
        i.indrelid in (select t.relid from pg_catalog.pg_partition_tree($1::oid) as t)
        and not exists (select from pg_catalog.pg_inherits as h where h.inhrelid = i.indexrelid)
      ))
      order by x.relname`,
    [oid],
  );
}
