/** Side schemas: rows as they were, beside the live ones, in the same database. */
import type { Budget } from "../../backup/budget.ts";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent, quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import type { LayStep } from "./lay_steps.ts";
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
  await takeBack(
    connection,
    `schema ${schema}`,
    "select nspacl, nspowner from pg_catalog.pg_namespace where oid = $1::regnamespace",
    schema,
  );
}

/** What the server keeps of a name. */
const nameBytes = 63;

/** What stands before the names of the tables that a restore makes for itself in the side schema. */
const ownPrefix = "holdfast ";

/**
 * Names of the tables in the side schema: their own, with their schema where two have the same or it is like one of ours, with
 * a number where that is taken or too long.
 */
export function sideNames(tables: readonly PastTable[]): Map<PastTable, string> {
  const count = new Map<string, number>();
  for (const { name } of tables) count.set(name, (count.get(name) ?? (name.startsWith(ownPrefix) ? 1 : 0)) + 1);
  const names = new Map<PastTable, string>();
  const taken = new Set([...count].flatMap(([name, times]) => times === 1 ? [name] : []));
  for (const table of tables) {
    if (count.get(table.name) === 1) {
      names.set(table, table.name);
      continue;
    }
    const qualified = `${table.schema}.${table.name}`;
    const whole = qualified.startsWith(ownPrefix) ? `of ${qualified}` : qualified;
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
 * Makes the table, closed to everybody else; one that is there is taken as it is. `liveTypes`: by the past's column names, for
 * a type that is gone; text where there is none. `asText`: types (and arrays of them) that are going to be others, so that
 * values are kept as they are written. Errors: those of the connection.
 */
export async function makeSideTable(
  connection: Connection,
  schema: string,
  past: PastTable,
  name: string,
  liveTypes: ReadonlyMap<string, string>,
  asText: ReadonlySet<string> = new Set(),
): Promise<SideTable> {
  const sql = quoteQualified(schema, name);
  const made = await typesOf(connection, sql);
  const columns: SideColumn[] = [];
  for (const { name: column, type } of past.columns) {
    const isText = asText.has(type.replace(/(?:\[\])+$/, "").replace(/\([0-9,]+\)$/, ""));
    const known = made?.get(column) ??
      (isText ? "text" : (await hasType(connection, type)) ? type : liveTypes.get(column) ?? "text");
    columns.push({ name: column, type: known });
  }
  const list = columns.map((column) => `${quoteIdent(column.name)} ${column.type}`).join(", ");
  await connection.execute(`create table if not exists ${sql} (${list}); ${deletable(sql)}`);
  await closeTable(connection, sql);
  return { past, name, sql, columns };
}

/** With the types that its columns have by now: a type that went has left them as text. Errors: those of the connection. */
export async function readSideTable(connection: Connection, side: SideTable): Promise<SideTable> {
  const types = await typesOf(connection, side.sql);
  return { ...side, columns: side.columns.map(({ name, type }) => ({ name, type: types?.get(name) ?? type })) };
}

/** Of the columns of a table; null: there is none. */
async function typesOf(connection: Connection, sql: string): Promise<ReadonlyMap<string, string> | null> {
  const rows = await connection.query(
    `select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type
       from pg_catalog.pg_class as c
       left join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.oid = pg_catalog.to_regclass($1)`,
    [sql],
  );
  return rows.length === 0 ? null : new Map(rows.map((row) => [row["name"] ?? "", row["type"] ?? ""]));
}

async function hasType(connection: Connection, type: string): Promise<boolean> {
  const [row] = await connection.query("select pg_catalog.to_regtype($1) is not null as yes", [type]);
  return row?.["yes"] === "t";
}

/** Where somebody publishes all tables, rows without a key can go only so. */
export function deletable(sql: string): string {
  return `alter table ${sql} replica identity full`;
}

/** To be called for every table that is made in a side schema: nobody else reads it. */
export async function closeTable(connection: Connection, sql: string): Promise<void> {
  await connection.execute(`alter table ${sql} enable row level security`);
  await takeBack(
    connection,
    `table ${sql}`,
    "select relacl, relowner from pg_catalog.pg_class where oid = $1::regclass",
    sql,
  );
}

/** What default privileges gave away. `access`: SQL for the list and the owner of what `name` names. */
async function takeBack(connection: Connection, what: string, access: string, name: string): Promise<void> {
  const rows = await connection.query(
    `select case x.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) end as role
       from (${access}) as o (list, owner) cross join pg_catalog.aclexplode(o.list) as x
      where x.grantee <> o.owner group by x.grantee`,
    [name],
  );
  for (const { role } of rows) await connection.execute(`revoke all on ${what} from ${role}`);
}

export interface LoadOptions {
  /** Called after rows were committed; what it throws ends the restore. */
  readonly onRows?: ((rows: number, bytes: number) => Promise<void>) | undefined;
  /** What this process may still use; past it `LegOver` is thrown, with all that was read committed. */
  readonly budget?: Pick<Budget, "spendText" | "spent"> | undefined;
}

/** This process has used what it may; the next goes on. */
export class LegOver extends Error {
  override readonly name = "LegOver";
}

/**
 * Loads the rows that pass the filter, from where the step came to. Errors: `value_unfit` where the type that is there does not
 * take a value of then, those of the connection and of `source.read`, `LegOver`.
 */
export async function loadSideTable(
  connection: Connection,
  source: PastRows,
  side: SideTable,
  filter: RowFilter,
  step: LayStep,
  { onRows, budget }: LoadOptions = {},
): Promise<void> {
  const columns = side.columns.map(({ name }) => quoteIdent(name));
  const list = columns.length === 0 ? "" : ` (${columns.join(", ")})`;
  const copy = `copy ${side.sql}${list} from stdin`;
  let pieces: Uint8Array[] = [];
  let size = 0;
  let end = step.end;
  const flush = async () => {
    if (end === null || end === step.end) return;
    const rows = await step.loaded(end, async () => size === 0 ? 0 : (await connection.copyIn(copy, pieces)).rows)
      .catch((error: unknown) => {
        throw unfit(error, side);
      });
    budget?.spendText(rows, size);
    const bytes = size;
    pieces = [];
    size = 0;
    if (rows > 0) await onRows?.(rows, bytes);
  };
  for await (const piece of source.read(side.past, filter, step.end)) {
    if (piece.rows.byteLength > 0) pieces.push(piece.rows);
    size += piece.rows.byteLength;
    end = piece.end;
    budget?.spendText(0, piece.looked);
    const isOver = budget?.spent() === true;
    if (size >= copyBytes || isOver) await flush();
    if (isOver) throw new LegOver();
  }
  await flush();
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
