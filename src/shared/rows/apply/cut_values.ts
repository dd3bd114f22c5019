/** What the type that a column has now would take away from values of then, without an error. */
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent } from "../../schema/quote.ts";
import type { FitColumn } from "../beside/fit.ts";
import { comingRows, type Pair, type Part, sideValue } from "./difference.ts";

export interface CutColumn {
  /** Name of then. */
  readonly column: string;
  /** How many lose something, at least 1; null: it cannot be told. */
  readonly rows: number | null;
}

/**
 * By a type without its modifier: a type that takes the same texts and keeps all that they say, with an equality that knows
 * other ways to write the same. Those that are their own take a text as a whole or refuse it.
 */
const keepsAll: ReadonlyMap<string, string> = new Map([
  ["character varying", "character varying"],
  ["character", "bpchar"],
  ["name", "text"],
  ['"char"', "text"],
  ["bit", "bit varying"],
  ["bit varying", "bit varying"],
  ["numeric", "numeric"],
  ["real", "numeric"],
  ["double precision", "numeric"],
  ["date", "timestamp without time zone"],
  ["timestamp without time zone", "timestamp with time zone"],
  ["timestamp with time zone", "timestamp with time zone"],
  ["interval", "interval"],
  ...["boolean", "smallint", "integer", "bigint", "text", "json", "jsonb", "uuid"].map((one) => [one, one] as const),
]);

/** Of a text that went into another type nobody can tell whether it only was written otherwise. */
const isTextual = (type: string) =>
  /^(text|character varying|character|bpchar|name|.*\bcitext)(\(\d+\))?(\[\])?$/.test(type);

/**
 * Of rows that are to come; in a transaction. Errors: those of a value that its column does not take, and of the connection.
 */
export async function findCut(connection: Connection, pair: Pair, part: Part): Promise<CutColumn[]> {
  const retyped = pair.fit.columns.filter((one) => one.retyped);
  if (retyped.length === 0) return [];
  const then = await readTypes(connection, pair.side.sql, null);
  const now = await readTypes(connection, null, pair.fit.live.oid);
  const found: CutColumn[] = [];
  for (const column of retyped) {
    const condition = isCut(pair, column, then.get(column.past) ?? "text", now.get(column.live) ?? column.liveType);
    if (condition === null) continue;
    const rows = await count(connection, pair, part, column, condition);
    if (rows !== 0) found.push({ column: column.past, rows });
  }
  return found;
}

/** Condition on `s`; null: nothing is ever cut. `then`, `now`: the types, below domains. */
function isCut(pair: Pair, column: FitColumn, then: string, now: string): string | null {
  const was = `s.${quoteIdent(column.past)}`;
  const is = `${sideValue(pair, column)}::text`;
  const [, element = "", array = ""] = /^(.*?)((?:\[\])?)$/.exec(now) ?? [];
  const wide = keepsAll.get(element.replace(/\([0-9,-]+\)/, "").replace(/^interval .*/, "interval"));
  if (wide !== undefined) {
    const type = `${wide}${array}`;
    return type === now ? null : `${is}::${type} is distinct from ${was}::text::${type}`;
  }
  if (isTextual(then)) return null;
  const own = pair.side.columns.find(({ name }) => name === column.past)?.type ?? "text";
  return `${is}::${own}::text is distinct from ${was}::text`;
}

async function count(
  connection: Connection,
  pair: Pair,
  part: Part,
  column: FitColumn,
  condition: string,
): Promise<number | null> {
  const rows = comingRows(pair, part);
  await connection.execute("savepoint cut_values");
  try {
    const [row] = await connection.query(
      `select count(*) filter (where ${condition}) as n from (select s.* from ${rows}) as s`,
    );
    await connection.execute("release savepoint cut_values");
    return Number(row?.["n"]);
  } catch (error) {
    if (!/^(0A|2[23]|42)/.test(sqlstateOf(error) ?? "")) throw error;
    await connection.execute("rollback to savepoint cut_values; release savepoint cut_values");
    // The way there is what counts: on the way back a value may be none that the type of then can read.
    await connection.query(`select count(${sideValue(pair, column)}) from (select s.* from ${rows}) as s`);
    return null;
  }
}

/** By column, with the modifiers, a domain as what it is over. */
async function readTypes(
  connection: Connection,
  name: string | null,
  oid: string | null,
): Promise<ReadonlyMap<string, string>> {
  const rows = await connection.query(
    `with recursive typed as (
       select a.attname, a.atttypid as type, a.atttypmod as modifier
         from pg_catalog.pg_attribute as a
        where a.attrelid = coalesce($2::oid, pg_catalog.to_regclass($1)) and a.attnum > 0 and not a.attisdropped
       union all
       select typed.attname, t.typbasetype, t.typtypmod
         from typed join pg_catalog.pg_type as t on t.oid = typed.type
        where t.typtype = 'd'
     )
     select typed.attname as name, pg_catalog.format_type(typed.type, typed.modifier) as type
       from typed join pg_catalog.pg_type as t on t.oid = typed.type
      where t.typtype <> 'd'`,
    [name, oid],
  );
  return new Map(rows.map((row) => [row["name"] ?? "", row["type"] ?? ""]));
}
