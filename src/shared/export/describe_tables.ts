/** Tables and columns as the catalog describes them. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import { firstUserOid } from "../schema/inventory.ts";
import { readRows } from "../schema/read_rows.ts";

/**
 * How a value stands in the document. `scalar`: a number or a boolean, digit for digit; what JSON has no number for (NaN, Infinity)
 * as text. `moment`: ISO 8601 as text. `json`: as it is. `array`: of such values. `text`: what the server writes, and reads.
 */
export const valueForms = ["scalar", "moment", "json", "array", "text"] as const;
export type ValueForm = typeof valueForms[number];

const describedTable = z.object({
  schema: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  columns: z.array(z.object({
    name: z.string(),
    type: z.string(),
    form: z.enum(valueForms),
    description: z.string().nullable(),
  })),
});
export type DescribedTable = z.output<typeof describedTable>;

const scalars = "'bool', 'int2', 'int4', 'int8', 'float4', 'float8', 'numeric'";
const moments = "'date', 'timestamp', 'timestamptz'";
const plain = "'text', 'varchar', 'bpchar', 'name', 'uuid'";

/** By `nameOf`, without columns that the server computes. The search_path is empty. Errors: those of the connection. */
export async function describeTables(connection: Connection): Promise<Map<string, DescribedTable>> {
  const tables = await readRows(
    connection,
    "descriptions",
    describedTable,
    `with recursive base (id, oid) as (
       select t.oid, t.oid from pg_catalog.pg_type as t where t.typtype <> 'p'
       union all
       select b.id, d.typbasetype from base as b join pg_catalog.pg_type as d on d.oid = b.oid and d.typtype = 'd'
     ), forms as (
       select b.id, case
           when t.typname in (${scalars}) then 'scalar'
           when t.typname in (${moments}) then 'moment'
           when t.typname in ('json', 'jsonb') then 'json'
           when t.typname like '\\_%' and e.typname in (${scalars}, ${moments}, ${plain}) then 'array'
           else 'text'
         end as form
       from base as b
       join pg_catalog.pg_type as t on t.oid = b.oid and t.typtype <> 'd'
       left join pg_catalog.pg_type as e on e.oid = t.typelem and e.typnamespace = 'pg_catalog'::regnamespace
       where t.typnamespace = 'pg_catalog'::regnamespace
     )
     select n.nspname as schema, c.relname as name, pg_catalog.obj_description(c.oid, 'pg_class') as description, (
         select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
             'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'form', coalesce(f.form, 'text'),
             'description', pg_catalog.col_description(c.oid, a.attnum)
           ) order by a.attnum), '[]')
         from pg_catalog.pg_attribute as a left join forms as f on f.id = a.atttypid
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       ) as columns
     from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and not c.relispartition and c.oid >= ${firstUserOid} and n.nspname !~ '^pg_'`,
  );
  return new Map(tables.map((table) => [nameOf(table), table]));
}
