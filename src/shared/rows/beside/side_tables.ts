/** Side schemas: rows as they were, beside the live ones, in the same database. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent, quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import type { PastRows, PastTable, RowFilter } from "../past/past.ts";

/** `restore_` and eight hex digits: left out of captures, of the change stream and of what a user owns. */
export const sideSchemaPattern = /^restore_[0-9a-f]{8}$/;

export interface SideColumn {
  readonly name: string;
  /** What it has there: the type that it had, else what holds its text. */
  readonly type: string;
}

export interface SideTable {
  readonly past: PastTable;
  /** Name in the side schema. */
  readonly name: string;
  /** Schema and name, quoted. */
  readonly sql: string;
  readonly columns: readonly SideColumn[];
}

/** COPY is fed with so much at a time, each in a transaction: a long one would hold the log of the whole server back. */
const copyBytes = 8 * 1024 * 1024;

/** Errors: `internal` for a name that is none of ours, those of the connection. */
export async function makeSideSchema(connection: Connection, schema: string, comment: string): Promise<void> {
  if (!sideSchemaPattern.test(schema)) throw new HoldfastError("internal", "a side schema has a strange name");
  await connection.execute(
    `create schema if not exists ${schema}; comment on schema ${schema} is ${quoteLiteral(comment)}`,
  );
}

/** What the server keeps of a name. */
const nameBytes = 63;

/**
 * Names of the tables in the side schema: their own, with their schema where two have the same, with a number where that is
 * taken or too long.
 */
export function sideNames(tables: readonly PastTable[]): Map<PastTable, string> {
  const count = new Map<string, number>();
  for (const { name } of tables) count.set(name, (count.get(name) ?? 0) + 1);
  const names = new Map<PastTable, string>();
  const taken = new Set([...count].flatMap(([name, times]) => times === 1 ? [name] : []));
  for (const table of tables) {
    if (count.get(table.name) === 1) {
      names.set(table, table.name);
      continue;
    }
    const whole = `${table.schema}.${table.name}`;
    let name = whole;
    for (let n = 1; taken.has(name) || new TextEncoder().encode(name).byteLength > nameBytes; n++) {
      // Cut by letters: four bytes each at most, and room for the number.
      name = `${[...whole].slice(0, (nameBytes - 8) / 4).join("")} ${n}`;
    }
    taken.add(name);
    names.set(table, name);
  }
  return names;
}

/**
 * Makes the table, closed to everybody else. `liveTypes`: by the past's column names, for a type that is gone; text where
 * there is none. Errors: those of the connection.
 */
export async function makeSideTable(
  connection: Connection,
  schema: string,
  past: PastTable,
  name: string,
  liveTypes: ReadonlyMap<string, string>,
): Promise<SideTable> {
  const columns: SideColumn[] = [];
  for (const { name: column, type } of past.columns) {
    const isThere = await hasType(connection, type);
    columns.push({ name: column, type: isThere ? type : liveTypes.get(column) ?? "text" });
  }
  const sql = quoteQualified(schema, name);
  const list = columns.map((column) => `${quoteIdent(column.name)} ${column.type}`).join(", ");
  await connection.execute(`create table ${sql} (${list}); alter table ${sql} enable row level security`);
  await closeTable(connection, sql);
  return { past, name, sql, columns };
}

async function hasType(connection: Connection, type: string): Promise<boolean> {
  const [row] = await connection.query("select pg_catalog.to_regtype($1) is not null as yes", [type]);
  return row?.["yes"] === "t";
}

/** Default privileges may have given it away. */
export async function closeTable(connection: Connection, sql: string): Promise<void> {
  const rows = await connection.query(
    `select case x.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) end as role
       from pg_catalog.pg_class as c cross join pg_catalog.aclexplode(c.relacl) as x
      where c.oid = $1::regclass and x.grantee <> c.relowner group by x.grantee`,
    [sql],
  );
  for (const { role } of rows) await connection.execute(`revoke all on table ${sql} from ${role}`);
}

/**
 * Loads the rows that pass the filter, and says how many. Errors: `value_unfit` where the type that is there does not take a
 * value of then, `target_full`-like ones as the connection has them, those of `source.read`.
 */
export async function loadSideTable(
  connection: Connection,
  source: PastRows,
  side: SideTable,
  filter: RowFilter,
  onRows: (rows: number, bytes: number) => Promise<void> = () => Promise.resolve(),
): Promise<number> {
  const columns = side.columns.map(({ name }) => quoteIdent(name));
  const list = columns.length === 0 ? "" : ` (${columns.join(", ")})`;
  const copy = `copy ${side.sql}${list} from stdin`;
  let pieces: Uint8Array[] = [];
  let size = 0;
  let rows = 0;
  const flush = async () => {
    if (size === 0) return;
    const taken = await connection.copyIn(copy, pieces).catch((error: unknown) => {
      throw unfit(error, side);
    });
    rows += taken.rows;
    await onRows(taken.rows, size);
    pieces = [];
    size = 0;
  };
  for await (const piece of source.read(side.past, filter)) {
    if (piece.byteLength === 0) continue;
    pieces.push(piece);
    size += piece.byteLength;
    if (size >= copyBytes) await flush();
  }
  await flush();
  return rows;
}

/** Data exceptions, such as a label that an enum lost since, and what a domain refuses since. */
function unfit(error: unknown, { past }: SideTable): unknown {
  if (!/^(22|23514|23502)/.test(sqlstateOf(error) ?? "")) return error;
  return new HoldfastError(
    "value_unfit",
    `a value of ${quoteQualified(past.schema, past.name)} does not fit the type that its column has in this database`,
    { hint: "Restore into another database with --target-db-url: the types of then are made there.", cause: error },
  );
}
