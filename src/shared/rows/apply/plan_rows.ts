/** What putting rows back would do, counted before anything is touched. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import {
  countStatement,
  cutStatement,
  differenceStatements,
  keyOfDelta,
  liveName,
  openRows,
  type Pair,
  type RestoreMode,
  takenStatement,
} from "./difference.ts";
import type { ForeignKey } from "./keys.ts";
import { foretellKeys, type KeyTrouble } from "./keys_hold.ts";
import { refused } from "./put_back.ts";

export interface RowConflict {
  readonly what: KeyTrouble["what"] | "a unique key is taken" | "a value would be cut" | "another user's now";
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
      for (const statement of differenceStatements(pair, mode)) await connection.execute(statement);
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
    bytes += (inserts + 2 * updates + deletes) * bytesOf(pair);
    tables.push({
      table: liveName(pair),
      insert: inserts,
      update: updates,
      delete: deletes,
      unchanged: side - inserts - updates,
      conflicts: [
        ...await takenKeys(connection, pair),
        ...theirs.conflicts,
        ...await cutValues(connection, pair),
        ...(troubles.get(pair) ?? []).map(({ what, constraint, other, rows }) => ({
          what,
          name: constraint,
          other,
          rows,
        })),
      ],
      alwaysTriggers: inserts + updates + deletes > 0 ? fit.live.alwaysTriggers : [],
      notes: [...fit.notes, ...theirs.notes],
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

async function cutValues(connection: Connection, pair: Pair): Promise<RowConflict[]> {
  const sql = cutStatement(pair, openRows);
  const cut = sql === null ? [] : await connection.query(sql).catch((error: unknown) => {
    throw refused(error);
  });
  return cut.map(({ name, n }) => ({ what: "a value would be cut", name: name ?? "", other: null, rows: Number(n) }));
}

async function takenKeys(connection: Connection, pair: Pair): Promise<RowConflict[]> {
  const found: RowConflict[] = [];
  for (const unique of pair.fit.live.uniques) {
    const sql = takenStatement(pair, unique);
    const [row] = sql === null ? [] : await connection.query(sql);
    const rows = Number(row?.["n"] ?? 0);
    if (rows > 0) found.push({ what: "a unique key is taken", name: unique.name, other: null, rows });
  }
  return found;
}
