/** The statements that bring a table to the net effect of a group. Each checks that the target had the rows it should. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent } from "../../schema/quote.ts";
import type { TargetColumn, TargetIndex, TargetTable } from "./apply_target.ts";
import { arrayLiteral, copyText } from "./apply_text.ts";
import type { KeptRow, Key } from "./fold.ts";
import type { CountedRow } from "./fold_counted.ts";
import { type StreamColumn, unchanged, type Value } from "../decode/messages.ts";

/**
 * Removes rows by key, through the index. Keys have their parts in the order of `index.columns`. Errors: `counts_differ`, but
 * not where some of the rows `mayMiss`.
 */
export async function deleteByKey(
  connection: Connection,
  table: TargetTable,
  index: TargetIndex,
  keys: readonly Key[],
  mayMiss: boolean,
): Promise<void> {
  if (keys.length === 0) return;
  const parameters = new Parameters();
  const fields = keyFields(table, index, keys, parameters);
  // A subquery for each key, not a join: the server cannot turn it into a scan of the whole table.
  const statement = `
with gone as (
  delete from only ${table.sqlName} as t
   where t.ctid = any (array(select ${find(table, index)} from ${parameters.rows("x", fields)}))
  returning 1)
select pg_catalog.count(*) as n from gone`;
  const found = await ask(connection, table, statement, parameters.values);
  if (!mayMiss) checkCount(table, "to delete", keys.length, found);
}

/**
 * Replaces rows by rows that keep some of their values. These never leave the server, however large they are. All of the
 * old rows are gone before the first new one comes: the sort reads every row that the delete returns.
 * Errors: `counts_differ`.
 */
export async function replaceKept(
  connection: Connection,
  table: TargetTable,
  index: TargetIndex,
  columns: readonly StreamColumn[],
  kept: readonly KeptRow[],
): Promise<void> {
  if (kept.length === 0) return;
  const parameters = new Parameters();
  const fields = keyFields(table, index, kept.map(({ key }) => key), parameters);
  const values: string[] = [];
  const returned: string[] = [];
  columns.forEach(({ name }, at) => {
    const column = columnOf(table, name);
    const items = kept.map(({ row }) => row[at] ?? null);
    fields.push({ name: `c${at}`, unnest: parameters.add(items.map(sent), column) });
    const value = `${fieldValue(`x.c${at}`, column)}`;
    if (!items.includes(unchanged)) {
      values.push(value);
      return;
    }
    returned.push(`t.${quoteIdent(name)} as c${at}`);
    fields.push({ name: `keep${at}`, unnest: parameters.addBooleans(items.map((item) => item === unchanged)) });
    values.push(`case when x.keep${at} then gone.c${at} else ${value} end`);
  });
  const statement = `
with x as materialized (
  select x.* from ${parameters.rows("x", fields, "n")}),
found as (
  select x.n, ${find(table, index)} as at from x),
gone as (
  delete from only ${table.sqlName} as t using found where t.ctid = found.at
  returning ${["found.n", ...returned].join(", ")}),
put as (
  insert into ${table.sqlName} (${columns.map(({ name }) => quoteIdent(name)).join(", ")}) overriding system value
  select ${values.join(", ")} from gone join x on x.n = gone.n order by gone.n
  returning 1)
select pg_catalog.count(*) as n from put`;
  checkCount(table, "to update", kept.length, await ask(connection, table, statement, parameters.values));
}

/**
 * Removes rows that are known by all of their values, no more of several equal ones than asked for. Reads the whole table.
 * Rows are compared by the text of their values, as the stream has them, so that every type can be: a row's own text
 * quotes each value and tells NULL from an empty one. Errors: `counts_differ`.
 */
export async function deleteByRow(
  connection: Connection,
  table: TargetTable,
  columns: readonly StreamColumn[],
  rows: readonly CountedRow[],
): Promise<void> {
  if (rows.length === 0) return;
  const parameters = new Parameters();
  const fields = columns.map((_, at) => ({
    name: `c${at}`,
    unnest: parameters.addTexts(rows.map(({ row }) => row[at] ?? null)),
  }));
  const copies = { name: "copies", unnest: parameters.addCounts(rows.map((row) => row.copies)) };
  const rowOf = (names: readonly string[]) => `row(${names.join(", ")})::text collate pg_catalog."C"`;
  const statement = `
with x as (
  select ${rowOf(fields.map(({ name }) => `x.${name}`))} as row, x.copies
    from ${parameters.rows("x", [...fields, copies])}),
found as (
  select t.ctid as at, x.copies, pg_catalog.row_number() over (partition by x.row) as nth
    from only ${table.sqlName} as t join x on x.row = ${rowOf(columns.map(({ name }) => `t.${quoteIdent(name)}`))}),
gone as (
  delete from only ${table.sqlName} as t using found
   where t.ctid = found.at and found.nth <= found.copies
  returning 1)
select pg_catalog.count(*) as n from gone`;
  const expected = rows.reduce((sum, row) => sum + row.copies, 0);
  checkCount(table, "to delete", expected, await ask(connection, table, statement, parameters.values));
}

/** Appends rows. Errors: `counts_differ`, also where the target has a row that is in the way. */
export async function insertRows(
  connection: Connection,
  table: TargetTable,
  columns: readonly StreamColumn[],
  rows: readonly (readonly Value[])[],
): Promise<void> {
  if (rows.length === 0) return;
  // SQL has no empty list of columns.
  const list = columns.length === 0 ? "" : ` (${columns.map(({ name }) => quoteIdent(name)).join(", ")})`;
  const copy = connection.copyIn(`copy ${table.sqlName}${list} from stdin`, copyText(rows));
  const result = await copy.catch((error: unknown) => {
    throw explain(table, error);
  });
  checkCount(table, "to insert", rows.length, result.rows);
}

/** One column of the rows that a statement is given. */
interface Field {
  readonly name: string;
  /** Gives one row for each of its elements. */
  readonly unnest: string;
}

/** Lists of values, each sent as one array. */
class Parameters {
  readonly values: string[] = [];

  /** Elements are read by the type's own input function; arrays and composites by the cast from text. */
  add(items: readonly (string | null)[], column: TargetColumn): string {
    if (column.arrayType === null) return this.addTexts(items);
    return this.#push(arrayLiteral(items, column.delimiter), column.arrayType);
  }

  addTexts(items: readonly (string | null)[]): string {
    return this.#push(arrayLiteral(items, ","), "pg_catalog._text");
  }

  addBooleans(items: readonly boolean[]): string {
    return this.#push(`{${items.map((item) => item ? "t" : "f").join(",")}}`, "pg_catalog._bool");
  }

  addCounts(items: readonly number[]): string {
    return this.#push(`{${items.join(",")}}`, "pg_catalog._int8");
  }

  /** The lists side by side, numbered in a last column if it has a name. */
  rows(alias: string, fields: readonly Field[], number: string | null = null): string {
    const names = fields.map(({ name }) => name);
    const ordinality = number === null ? "" : " with ordinality";
    const all = number === null ? names : [...names, number];
    return `rows from (${fields.map(({ unnest }) => unnest).join(", ")})${ordinality} as ${alias}(${all.join(", ")})`;
  }

  #push(value: string, type: string): string {
    this.values.push(value);
    return `pg_catalog.unnest($${this.values.length}::${type})`;
  }
}

function keyFields(table: TargetTable, index: TargetIndex, keys: readonly Key[], parameters: Parameters): Field[] {
  return index.columns.map(({ name }, at) => ({
    name: `k${at}`,
    unnest: parameters.add(keys.map((key) => key[at] ?? null), columnOf(table, name)),
  }));
}

/** Where the row of key `x` is. */
function find(table: TargetTable, index: TargetIndex): string {
  const conditions = index.columns.map(({ name, operator, collate }, at) =>
    `o.${quoteIdent(name)} ${operator} ${fieldValue(`x.k${at}`, columnOf(table, name))}${collate}`
  );
  return `(select o.ctid from only ${table.sqlName} as o where ${conditions.join(" and ")})`;
}

function fieldValue(field: string, column: TargetColumn): string {
  return column.arrayType === null ? `${field}::${column.type}` : field;
}

function sent(value: Value): string | null {
  return value === unchanged ? null : value;
}

function columnOf(table: TargetTable, name: string): TargetColumn {
  const column = table.columns.get(name);
  if (column === undefined) throw new HoldfastError("internal", `${table.sqlName} has no column ${quoteIdent(name)}`);
  return column;
}

async function ask(
  connection: Connection,
  table: TargetTable,
  statement: string,
  values: readonly string[],
): Promise<number> {
  try {
    const [row] = await connection.query(statement, values);
    return Number(row?.["n"]);
  } catch (error) {
    throw explain(table, error);
  }
}

function checkCount(table: TargetTable, what: string, expected: number, found: number): void {
  if (found === expected) return;
  throw new HoldfastError("counts_differ", `${table.sqlName}: the target has ${found} of ${expected} rows ${what}`);
}

/** A unique or an exclusion constraint is violated, or one key has several rows. */
const inTheWay = new Set(["23505", "23P01", "21000"]);

function explain(table: TargetTable, error: unknown): unknown {
  if (!inTheWay.has(sqlstateOf(error) ?? "")) return error;
  return new HoldfastError("counts_differ", `${table.sqlName}: the target has a row that should not be there`, {
    cause: error,
  });
}
