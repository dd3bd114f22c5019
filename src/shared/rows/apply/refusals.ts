/** Which rows the constraints of now would refuse, asked of the server with their own expressions before anything is touched. */
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent } from "../../schema/quote.ts";
import type { OdderKey } from "../beside/live_tables.ts";
import { comingRows, compared, keyOfDelta, liveRelation, openRows, type Pair, sideValue } from "./difference.ts";
import { ownPath, withUsersPath } from "./user_path.ts";

export interface Refusal {
  readonly what: "a check refuses it" | "a value is missing" | "a unique key is taken";
  /** Of the constraint, the index or the column. */
  readonly name: string;
  readonly rows: number;
}

/**
 * Checks, columns that have to have a value, unique keys with conditions or expressions, exclusions. One that looks at a column
 * which the rows of then do not set is left to the server; `untold`: those whose expression cannot be asked. In a transaction.
 * Errors: those of the connection.
 */
export async function foretellRefusals(
  connection: Connection,
  pair: Pair,
): Promise<{ readonly refusals: Refusal[]; readonly untold: string[] }> {
  const { live, key } = pair.fit;
  const set = new Set(compared(pair).map((one) => one.live));
  const isSet = (columns: readonly string[]) => columns.every((name) => set.has(name));
  const conditions: Condition[] = [
    ...live.columns.filter((one) => one.notNull && set.has(one.name))
      .map(({ name }) => ({ what: "a value is missing", name, holds: `${quoteIdent(name)} is not null` }) as const),
    ...live.checks.filter((one) => isSet(one.columns))
      .map(({ name, expression }) => ({ what: "a check refuses it", name, holds: expression }) as const),
  ];
  const refusals: Refusal[] = [];
  const untold: string[] = [];
  // All in one reading; where one cannot be asked, one by one.
  const together = await counted(connection, refusedBy(pair, conditions), conditions.length);
  for (const [at, one] of conditions.entries()) {
    const [rows = null] = together === null
      ? await counted(connection, refusedBy(pair, [one]), 1) ?? []
      : together.slice(at);
    if (rows === null) untold.push(one.name);
    else if (rows > 0) refusals.push({ what: one.what, name: one.name, rows });
  }
  for (const odder of key === null ? [] : live.odderKeys.filter((one) => isSet(one.columns))) {
    const [rows = null] = await counted(connection, takenBy(pair, odder), 1) ?? [];
    if (rows === null) untold.push(odder.name);
    else if (rows > 0) refusals.push({ what: "a unique key is taken", name: odder.name, rows });
  }
  return { refusals, untold };
}

interface Condition extends Pick<Refusal, "what" | "name"> {
  /** As SQL; the row is refused where it is false. */
  readonly holds: string;
}

/** Rows that are to come, of which the columns that are set have the names of now. */
function coming(pair: Pair): string {
  const values = compared(pair).map((one) => `${sideValue(pair, one)} as ${quoteIdent(one.live)}`);
  const own = (pair.fit.key ?? []).map((_, at) => `d."key ${at + 1}"`);
  return `select ${[...values, ...own].join(", ")} from ${comingRows(pair, openRows)}`;
}

function refusedBy(pair: Pair, conditions: readonly Condition[]): string {
  const counts = conditions.map(({ holds }, at) => `count(*) filter (where not (${holds})) as n${at}`);
  return `select * from (select ${counts.join(", ")} from (${
    coming(pair)
  }) as coming) as counts where ${withUsersPath}`;
}

/** By another row that is there and stays as it is. Names that an expression does not qualify are those of the innermost rows. */
function takenBy(pair: Pair, { keys, predicate, nullsToo }: OdderKey): string {
  const own = keys.map(({ expression }, at) => `${expression} as "value ${at + 1}"`);
  const places = (pair.fit.key ?? []).map((_, at) => `"key ${at + 1}"`);
  const same = keys.map(({ expression, operator }, at) => {
    const alike = `${expression} ${operator} mine."value ${at + 1}"`;
    return nullsToo ? `(${alike} or pg_catalog.num_nulls(${expression}, mine."value ${at + 1}") = 2)` : alike;
  });
  return `select count(*) as n0
    from (select ${[...own, ...places].join(", ")} from (${coming(pair)}) as coming where ${predicate}) as mine
   where ${withUsersPath} and exists (
     select from ${liveRelation(pair)} as l
      where ${same.join(" and ")} and (${predicate}) and not (${keyOfDelta(pair, "l", "mine")})
        and not exists (
          select from ${pair.delta} as o where ${keyOfDelta(pair, "l", "o")} and o."action" <> 'insert' and not o."done"
        )
   )`;
}

/** Columns `n0`, `n1` … of one row. Null: an expression cannot be asked outside of its table. */
async function counted(connection: Connection, statement: string, numbers: number): Promise<number[] | null> {
  if (numbers === 0) return [];
  await connection.execute("savepoint refusals");
  try {
    const [row] = await connection.query(statement);
    await connection.execute(`${ownPath}; release savepoint refusals`);
    return Array.from({ length: numbers }, (_, at) => Number(row?.[`n${at}`]));
  } catch (error) {
    // Of expressions alone: what is wrong with the session or the server has another class.
    if (!/^(0A|P0|2[123]|3[89]|42)/.test(sqlstateOf(error) ?? "")) throw error;
    await connection.execute("rollback to savepoint refusals; release savepoint refusals");
    return null;
  }
}
