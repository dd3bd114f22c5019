/** What a data backup needs to know of each table and sequence. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection, Row } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import type {
  CaptureOptions,
  ColumnShape,
  ExtensionShape,
  NotCaptured,
  SequenceShape,
  TableShape,
} from "./capture_format.ts";
import { bucketColumnOf, notOfOwnBuckets } from "./own_objects.ts";
import { dataOf } from "./platform.ts";
import { quoteLiteral, quoteQualified } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import type { Column, Relations } from "./relations.ts";

const tableFormat = z.object({
  oid: z.string(),
  identity: z.string(),
  schema: z.string(),
  name: z.string(),
  owner: z.string(),
  isPartition: z.boolean(),
  persistence: z.enum(["p", "u"]),
  accessMethod: z.string().nullable(),
  relfilenode: z.string(),
  toastOid: z.string(),
  rowSecurity: z.boolean(),
  forced: z.boolean(),
  extension: z.string().nullable(),
  configuration: z.string().nullable(),
});

export interface Shapes {
  readonly tables: TableShape[];
  readonly sequences: SequenceShape[];
  readonly extensions: ExtensionShape[];
  readonly notCaptured: NotCaptured[];
}

/** Reads shapes in the caller's snapshot; sequences are read as they are now, since they stand outside transactions. */
export async function readShapes(
  connection: Connection,
  options: CaptureOptions,
  relations: Relations,
): Promise<Shapes> {
  const leaveOut = new Set(options.leaveOutSchemas);
  const notCaptured: NotCaptured[] = [];
  const tables = (await readTables(connection)).filter((table) => !leaveOut.has(table.schema)).flatMap((table) => {
    const { dataOwner, captured, restoreData } = dataOf(table.schema, table.name, table.owner);
    const leftOut = captured !== "capture"
      ? captured.leftOut
      : table.extension !== null && table.configuration === null
      ? `rows of extension ${table.extension}, made again by it`
      : null;
    if (leftOut !== null) {
      notCaptured.push({ catalog: "rows", identity: table.identity, reason: leftOut });
      return [];
    }
    const own = (relations.columns.get(table.oid) ?? []).map(columnShape);
    return [{
      identity: table.identity,
      schema: table.schema,
      name: table.name,
      oid: table.oid,
      kind: table.isPartition ? "partition" as const : "table" as const,
      persistence: table.persistence,
      accessMethod: table.accessMethod ?? "heap",
      relfilenode: table.relfilenode,
      toastOid: table.toastOid,
      columns: own,
      copyColumns: own.filter((column) => !column.generated).map((column) => column.name),
      dataOwner: table.extension === null ? dataOwner : `extension ${table.extension}`,
      restoreData,
      rowFilter: conditionOf(table.configuration) ?? (dataOwner === "storage" ? withoutOwnBuckets(table, own) : null),
      rowSecurity: { enabled: table.rowSecurity, forced: table.forced },
    }];
  });
  return {
    tables,
    sequences: await readSequenceValues(connection, leaveOut, notCaptured),
    extensions: await readExtensions(connection),
    notCaptured,
  };
}

function columnShape(column: Column): ColumnShape {
  const { name, attnum, type, typeOid, typmod, collation, notNull } = column;
  const identity = column.identity === "a" || column.identity === "d" ? column.identity : "";
  return { name, attnum, type, typeOid, typmod, collation, notNull, generated: column.generated !== "", identity };
}

function withoutOwnBuckets(
  table: { readonly schema: string; readonly name: string },
  columns: readonly ColumnShape[],
): string | null {
  const bucket = bucketColumnOf(table);
  return columns.some(({ name }) => name === bucket) ? notOfOwnBuckets(bucket ?? "") : null;
}

/** `extcondition` holds `WHERE …` or nothing. */
function conditionOf(configuration: string | null): string | null {
  if (configuration === null) return null;
  const condition = configuration.trim().replace(/^where\s+/i, "").replace(/;\s*$/, "");
  return condition === "" ? null : condition;
}

async function readTables(connection: Connection): Promise<z.infer<typeof tableFormat>[]> {
  return await readRows(
    connection,
    "tables",
    tableFormat,
    `select c.oid, 'table ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as identity,
            n.nspname as schema, c.relname as name, pg_catalog.pg_get_userbyid(c.relowner) as owner,
            c.relispartition as "isPartition", c.relpersistence as persistence, am.amname as "accessMethod",
            c.relfilenode, c.reltoastrelid as "toastOid", c.relrowsecurity as "rowSecurity",
            c.relforcerowsecurity as forced, x.extname as extension,
            x.extcondition[pg_catalog.array_position(x.extconfig, c.oid)] as configuration
       from pg_catalog.pg_class c
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_am am on am.oid = c.relam
       left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
         and d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::regclass
       left join pg_catalog.pg_extension x on x.oid = d.refobjid
      where c.relkind = 'r' and c.oid >= 16384 and n.nspname !~ '^pg_(temp|toast)'
      order by n.nspname, c.relname`,
  );
}

const sequenceListFormat = z.object({
  oid: z.string(),
  schema: z.string(),
  name: z.string(),
  owner: z.string(),
  start: z.string(),
  readable: z.boolean(),
  extension: z.string().nullable(),
  configuration: z.string().nullable(),
  tableSchema: z.string().nullable(),
  tableName: z.string().nullable(),
  tableOwner: z.string().nullable(),
  column: z.string().nullable(),
});

/** Sequences read by one query; bounds the length of its text. */
const sequencesPerQuery = 200;

async function readSequenceValues(
  connection: Connection,
  leaveOut: ReadonlySet<string>,
  notCaptured: NotCaptured[],
): Promise<SequenceShape[]> {
  const listed = await readRows(
    connection,
    "sequence values",
    sequenceListFormat,
    `select c.oid, n.nspname as schema, c.relname as name, pg_catalog.pg_get_userbyid(c.relowner) as owner,
            s.seqstart::text as start, pg_catalog.has_sequence_privilege(c.oid, 'select') and
              pg_catalog.has_schema_privilege(n.oid, 'usage') as readable,
            x.extname as extension, x.extcondition[pg_catalog.array_position(x.extconfig, c.oid)] as configuration,
            tn.nspname as "tableSchema", t.relname as "tableName",
            pg_catalog.pg_get_userbyid(t.relowner) as "tableOwner", a.attname as column
       from pg_catalog.pg_class c
       join pg_catalog.pg_sequence s on s.seqrelid = c.oid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
         and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
       left join pg_catalog.pg_class t on t.oid = d.refobjid
       left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       left join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
       left join pg_catalog.pg_depend e on e.classid = 'pg_catalog.pg_class'::regclass and e.objid = c.oid
         and e.deptype = 'e' and e.refclassid = 'pg_catalog.pg_extension'::regclass
       left join pg_catalog.pg_extension x on x.oid = e.refobjid
      where c.oid >= 16384 and n.nspname !~ '^pg_(temp|toast)'
      order by n.nspname, c.relname`,
  );
  const wanted = listed.filter((row) => {
    if (leaveOut.has(row.schema)) return false;
    const { captured } = dataOf(row.tableSchema ?? row.schema, row.tableName ?? row.name, row.tableOwner ?? row.owner);
    if (captured !== "capture" || (row.extension !== null && row.configuration === null)) return false;
    if (row.readable) return true;
    notCaptured.push({
      catalog: "pg_sequence",
      identity: `value of sequence ${quoteQualified(row.schema, row.name)}`,
      reason: "this role may not read it",
    });
    return false;
  });
  const shapes: SequenceShape[] = [];
  for (let from = 0; from < wanted.length; from += sequencesPerQuery) {
    const batch = wanted.slice(from, from + sequencesPerQuery);
    const values = await readValues(connection, batch);
    for (const value of values) {
      const row = batch[Number(value["i"])];
      if (row === undefined) continue;
      const name = quoteQualified(row.schema, row.name);
      const decision = dataOf(row.tableSchema ?? row.schema, row.tableName ?? row.name, row.tableOwner ?? row.owner);
      const lastValue = value["v"] ?? row.start;
      const isCalled = value["c"] === "t" || value["c"] === "true";
      shapes.push({
        identity: `sequence ${name}`,
        schema: row.schema,
        name: row.name,
        ownedBy: row.tableSchema === null || row.tableName === null || row.column === null
          ? null
          : quoteQualified(row.tableSchema, row.tableName, row.column),
        dataOwner: row.extension === null ? decision.dataOwner : `extension ${row.extension}`,
        restoreData: decision.restoreData,
        lastValue,
        isCalled,
        setValueSql: `select pg_catalog.setval(${quoteLiteral(name)}::regclass, ${lastValue}, ${isCalled})`,
      });
    }
  }
  return shapes;
}

/** `i`: place in the batch. Errors: `lock_timeout` as the session bounds it; `catalog_changed` when one of them was dropped or renamed since it was listed. */
async function readValues(
  connection: Connection,
  batch: readonly { readonly schema: string; readonly name: string }[],
): Promise<Row[]> {
  const selects = batch.map((row, index) =>
    `select ${index} as i, last_value::text as v, is_called as c from ${quoteQualified(row.schema, row.name)}`
  );
  try {
    return await connection.query(selects.join(" union all "));
  } catch (error) {
    if (sqlstateOf(error) === "55P03") {
      throw new HoldfastError("lock_timeout", "a sequence is locked by another session", { cause: error });
    }
    if (!namesNothing.has(sqlstateOf(error) ?? "")) throw error;
    throw new HoldfastError("catalog_changed", "a sequence was dropped or renamed while the values were read", {
      cause: error,
    });
  }
}

/** No relation or no schema of the name. */
const namesNothing = new Set(["42P01", "3F000"]);

async function readExtensions(connection: Connection): Promise<ExtensionShape[]> {
  return await readRows(
    connection,
    "extension versions",
    z.object({ name: z.string(), schema: z.string(), version: z.string() }),
    `select x.extname as name, n.nspname as schema, x.extversion as version
       from pg_catalog.pg_extension x join pg_catalog.pg_namespace n on n.oid = x.extnamespace order by x.extname`,
  );
}
