/** Rows about sequences. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { firstUserOid } from "./inventory.ts";
import { quoteQualified } from "./quote.ts";
import { readRows } from "./read_rows.ts";

const sequenceFormat = z.object({
  oid: z.string(),
  schema: z.string(),
  name: z.string(),
  persistence: z.string(),
  type: z.string(),
  start: z.string(),
  increment: z.string(),
  max: z.string(),
  min: z.string(),
  cache: z.string(),
  cycle: z.boolean(),
  /** `i` identity, `a` owned by a column, null free. */
  dependency: z.string().nullable(),
  tableOid: z.string().nullable(),
  tableSchema: z.string().nullable(),
  tableName: z.string().nullable(),
  tablePersistence: z.string().nullable(),
  column: z.string().nullable(),
  identity: z.string().nullable(),
});
export type Sequence = z.infer<typeof sequenceFormat>;

export function readSequences(connection: Connection): Promise<Sequence[]> {
  return readRows(
    connection,
    "sequences",
    sequenceFormat,
    `select c.oid, n.nspname as schema, c.relname as name, c.relpersistence as persistence,
            pg_catalog.format_type(s.seqtypid, null) as type, s.seqstart::text as start,
            s.seqincrement::text as increment, s.seqmax::text as max, s.seqmin::text as min,
            s.seqcache::text as cache, s.seqcycle as cycle, d.deptype as dependency, t.oid as "tableOid",
            tn.nspname as "tableSchema", t.relname as "tableName", t.relpersistence as "tablePersistence",
            a.attname as column, a.attidentity as identity
       from pg_catalog.pg_sequence s
       join pg_catalog.pg_class c on c.oid = s.seqrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
         and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
       left join pg_catalog.pg_class t on t.oid = d.refobjid
       left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       left join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      where c.oid >= ${firstUserOid} and n.nspname !~ '^pg_temp'
      order by c.oid`,
  );
}

/** Every option in full, so that nothing hangs on the target's defaults. */
export function sequenceOptions(sequence: Sequence): string {
  return `start with ${sequence.start} increment by ${sequence.increment} minvalue ${sequence.min}` +
    ` maxvalue ${sequence.max} cache ${sequence.cache} ${sequence.cycle ? "cycle" : "no cycle"}`;
}

export function ownedByText(sequence: Sequence): string | null {
  if (sequence.tableSchema === null || sequence.tableName === null || sequence.column === null) return null;
  return quoteQualified(sequence.tableSchema, sequence.tableName, sequence.column);
}
