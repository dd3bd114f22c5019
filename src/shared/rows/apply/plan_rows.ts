/** What putting rows back would do, counted before anything is touched. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent } from "../../schema/quote.ts";
import { findCut } from "./cut_values.ts";
import {
  differenceStatements,
  fitted,
  keyOfDelta,
  liveName,
  liveRelation,
  openRows,
  type Pair,
  type RestoreMode,
  sideKeyOfDelta,
  sideValue,
} from "./difference.ts";
import type { ForeignKey } from "./keys.ts";
import { foretellKeys, type KeyTrouble } from "./keys_hold.ts";
import { refused } from "./put_back.ts";
import { foretellRefusals, type Refusal } from "./refusals.ts";

export interface RowConflict {
  readonly what: KeyTrouble["what"] | Refusal["what"] | "a value would be cut" | "another user's now";
  /** Of the constraint, the index or the column. */
  readonly name: string;
  /** The other table of a foreign key; null: there is none. */
  readonly other: string | null;
  readonly rows: number;
}

export interface TablePlan {
  /** Quoted name of the live table. */
  readonly table: string;
  readonly insert: number;
  readonly update: number;
  readonly delete: number;
  /** Rows of then that are there as they were, or are left as they are in this mode. */
  readonly unchanged: number;
  readonly conflicts: readonly RowConflict[];
  readonly alwaysTriggers: readonly string[];
  readonly notes: readonly string[];
}

export interface RowsPlan {
  readonly mode: RestoreMode;
  readonly tables: readonly TablePlan[];
  /** Bytes that the rows and what is kept of the present ones take, about. */
  readonly bytes: number;
}

/**
 * Fills the tables of work and counts. Conflicts are those that can be foretold; the rest is met when rows are applied, which
 * then changes nothing. Errors: `value_unfit` for a value that its column does not take any more, those of the connection.
 */
export async function planRows(
  connection: Connection,
  pairs: readonly Pair[],
  keys: readonly ForeignKey[],
  mode: RestoreMode,
): Promise<RowsPlan> {
  if (mode === "replace") refuseUntold(pairs);
  await connection.execute("begin");
  try {
    for (const pair of pairs) {
      for (const statement of differenceStatements(pair, mode)) {
        await connection.execute(statement).catch((error: unknown) => {
          throw withTable(pair, refused(error));
        });
      }
    }
    await connection.execute("commit");
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw refused(error);
  }
  const troubles = await foretellKeys(connection, keys, pairs);
  const tables: TablePlan[] = [];
  let bytes = 0;
  for (const pair of pairs) {
    const [row] = await connection.query(countStatement(pair));
    const [side, inserts, updates, deletes] = ["side", "inserts", "updates", "deletes"].map((name) =>
      Number(row?.[name] ?? 0)
    ) as [number, number, number, number];
    const { fit } = pair;
    const theirs = await countTheirs(connection, pair, mode);
    const cut = await cutValues(connection, pair);
    const constraints = await refusalsOf(connection, pair);
    bytes += (inserts + 2 * updates + deletes) * bytesOf(pair);
    tables.push({
      table: liveName(pair),
      insert: inserts,
      update: updates,
      delete: deletes,
      unchanged: side - inserts - updates,
      conflicts: [
        ...await takenKeys(connection, pair),
        ...constraints.conflicts,
        ...theirs.conflicts,
        ...cut.conflicts,
        ...(troubles.get(pair) ?? []).map(({ what, constraint, other, rows }) => ({
          what,
          name: constraint,
          other,
          rows,
        })),
      ],
      alwaysTriggers: inserts + updates + deletes > 0 ? fit.live.alwaysTriggers : [],
      notes: [...fit.notes, ...theirs.notes, ...cut.notes, ...constraints.notes],
    });
  }
  return { mode, tables, bytes: Math.round(bytes) };
}

/** Without a key a row that fits only since then and one that is new look alike. Errors: `rows_conflict`. */
function refuseUntold(pairs: readonly Pair[]): void {
  const untold = pairs.find(({ fit, scope }) => fit.key === null && scope !== null && scope !== "false");
  if (untold === undefined) return;
  throw new HoldfastError(
    "rows_conflict",
    `${liveName(untold)} has no primary key that tells rows which were there then from new ones: none is replaced`,
    { hint: "Use missing, or replace the whole table." },
  );
}

/** Rows that were the user's and that somebody else has now. */
async function countTheirs(
  connection: Connection,
  pair: Pair,
  mode: RestoreMode,
): Promise<{ readonly conflicts: RowConflict[]; readonly notes: string[] }> {
  if (pair.theirs === undefined) return { conflicts: [], notes: [] };
  const { sql, taken } = pair.theirs;
  const [row] = await connection.query(
    mode === "missing"
      ? `select count(*) as n from ${sql} as t`
      : `select count(*) as n from ${sql} as t join ${pair.delta} as d on ${keyOfDelta(pair, "t")}
          where d."action" = 'update' and not d."done"`,
  );
  const rows = Number(row?.["n"] ?? 0);
  if (rows === 0) return { conflicts: [], notes: [] };
  const text = `${rows === 1 ? "1 row" : `${rows} rows`} of ${liveName(pair)}`;
  if (mode === "missing") {
    return { conflicts: [], notes: [`${text} with keys of then are another user's now; they stay as they are`] };
  }
  return taken
    ? { conflicts: [], notes: [`${text} are another user's now, and are taken back`] }
    : { conflicts: [{ what: "another user's now", name: "--shared takes them back", other: null, rows }], notes: [] };
}

/** Of a row, about: its text as it was, and what the server adds. */
export function bytesOf({ fit }: Pair): number {
  return fit.past.rows === 0 ? 100 : fit.past.rawBytes / fit.past.rows + 40;
}

async function cutValues(
  connection: Connection,
  pair: Pair,
): Promise<{ readonly conflicts: RowConflict[]; readonly notes: string[] }> {
  await connection.execute("begin");
  const cut = await findCut(connection, pair, openRows).catch((error: unknown) => {
    throw refused(error);
  }).finally(() => connection.execute("rollback").catch(() => {}));
  return {
    conflicts: cut.flatMap(({ column, rows }) =>
      rows === null ? [] : [{ what: "a value would be cut" as const, name: column, other: null, rows }]
    ),
    notes: cut.flatMap(({ column, rows }) =>
      rows === null
        ? [`whether the type of now cuts values of ${liveName(pair)}.${quoteIdent(column)} cannot be told`]
        : []
    ),
  };
}

/** Of a value that does not fit: with the table, and its columns that had another type. */
function withTable(pair: Pair, error: unknown): unknown {
  if (!(error instanceof HoldfastError && error.code === "value_unfit")) return error;
  const types = new Map(pair.side.columns.map(({ name, type }) => [name, type]));
  const other = pair.fit.columns.filter(({ past, liveType }) => types.get(past) !== liveType)
    .map(({ live, liveType }) => `${quoteIdent(live)} ${liveType}`);
  const columns = other.length === 0 ? "" : ` (${other.join(", ")})`;
  return new HoldfastError("value_unfit", `${liveName(pair)}${columns}: ${error.message}`, { cause: error });
}

async function refusalsOf(
  connection: Connection,
  pair: Pair,
): Promise<{ readonly conflicts: RowConflict[]; readonly notes: string[] }> {
  await connection.execute("begin");
  const { refusals, untold } = await foretellRefusals(connection, pair)
    .finally(() => connection.execute("rollback").catch(() => {}));
  return {
    conflicts: refusals.map((one) => ({ ...one, other: null })),
    notes: untold.map((name) =>
      `whether ${quoteIdent(name)} of ${liveName(pair)} refuses rows is seen when they go in`
    ),
  };
}

async function takenKeys(connection: Connection, pair: Pair): Promise<RowConflict[]> {
  const found: RowConflict[] = [];
  for (const unique of pair.fit.live.uniques) {
    const sql = takenKeyStatement(pair, unique);
    const [row] = sql === null ? [] : await connection.query(sql);
    const rows = Number(row?.["n"] ?? 0);
    if (rows > 0) found.push({ what: "a unique key is taken", name: unique.name, other: null, rows });
  }
  return found;
}

/** Rows by what is to be done with them, and what stays as it is. */
function countStatement(pair: Pair): string {
  const n = pair.fit.key === null ? "coalesce(sum(d.copies), 0)" : "count(*)";
  const of = (action: string) =>
    `(select ${n} from ${pair.delta} as d where d."action" = '${action}' and not d."done")`;
  return `select (select count(*) from ${pair.side.sql}) as side, ${of("insert")} as inserts, ${
    of("update")
  } as updates,
    ${of("delete")} as deletes`;
}

/**
 * Rows that want a value of a unique key which another live row has, one that stays. Null: no such key has all of its columns
 * in the rows of then.
 */
function takenKeyStatement(pair: Pair, unique: Pair["fit"]["live"]["uniques"][number]): string | null {
  const { fit, side, delta } = pair;
  if (fit.key === null) return null;
  const columns = new Map(fit.columns.map((one) => [one.live, one]));
  if (!unique.columns.every(({ name }) => columns.has(name))) return null;
  const same = unique.columns.map(({ name, equals }) => {
    const [own, other] = [sideValue(pair, fitted(pair, name)), `l.${quoteIdent(name)}`];
    const alike = `${other} ${equals} ${own}`;
    return unique.nullsToo ? `(${alike} or pg_catalog.num_nulls(${other}, ${own}) = 2)` : alike;
  }).join(" and ");
  return `select count(*) as n from ${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)}
      join ${liveRelation(pair)} as l on ${same} and not (${keyOfDelta(pair, "l")})
     where d."action" <> 'delete' and not d."done"
       and not exists (
         select from ${delta} as o where ${keyOfDelta(pair, "l", "o")} and o."action" <> 'insert' and not o."done"
       )`;
}
