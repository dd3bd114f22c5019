/** Rows of a side schema into the live tables, all or nothing. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import type { BeforeCommit } from "../../restore/before_commit.ts";
import {
  allRows,
  changeStatements,
  differenceStatements,
  insertStatement,
  liveName,
  lockRowsStatement,
  openRows,
  type Pair,
  type Part,
  putBackStatement,
  type RestoreMode,
  takeOutStatement,
  unequalStatement,
  unprovenStatement,
} from "./difference.ts";
import { findCut } from "./cut_values.ts";
import type { ForeignKey } from "./keys.ts";
import { verifyKeys } from "./keys_hold.ts";
import { whileDeletable } from "./published_deletes.ts";
import { ownPath, withUsersPath } from "./user_path.ts";
import { refuseOthers } from "./whose_now.ts";
import { moveSequencesAhead } from "./sequences_ahead.ts";
import { changed as notAsPlanned, requireUnchanged } from "./unchanged.ts";
import { beginTry, triedPairs } from "./work_tables.ts";

export interface PutBackOptions {
  readonly mode: RestoreMode;
  /** Locks whole tables against writers, so that they are equal afterwards; else only the rows that are touched. */
  readonly wholeTables: boolean;
  /** Goes on where triggers fire whatever the session says. */
  readonly fireTriggers: boolean;
  /** How long a lock is waited for. */
  readonly lockMs: number;
  /** After the rows are in and before the commit, in the same transaction, whose session replication role is replica. */
  readonly beforeCommit?: BeforeCommit | undefined;
}

export interface PutBackResult {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  readonly tables: readonly {
    readonly table: string;
    readonly inserted: number;
    readonly updated: number;
    readonly deleted: number;
  }[];
  /** Sequences that were behind. */
  readonly sequences: readonly string[];
}

/**
 * One transaction: locks, the difference once more, rows out, rows in, every foreign key verified, every row read again.
 * Whatever fails leaves the live tables as they were. `pairs`: parents before children.
 * Errors: `triggers_would_fire`, `rows_conflict`, `value_unfit`, `lock_timeout`, `database_denied` where the role may not put
 * triggers aside, `counts_differ`, those of the connection. Where it and somebody else wait for each other, and the server ends
 * this one, it is tried again.
 */
export async function putBack(
  connection: Connection,
  pairs: readonly Pair[],
  keys: readonly ForeignKey[],
  options: PutBackOptions,
): Promise<PutBackResult> {
  for (let left = mostDeadlocks;; left--) {
    try {
      return await putBackOnce(connection, pairs, keys, options);
    } catch (error) {
      if (left === 0 || sqlstateOf(error) !== "40P01") throw error;
    }
  }
}

const mostDeadlocks = 3;

async function putBackOnce(
  connection: Connection,
  pairs: readonly Pair[],
  keys: readonly ForeignKey[],
  options: PutBackOptions,
): Promise<PutBackResult> {
  // Under another level the keys would be looked at with a snapshot from before the locks.
  await connection.execute("begin isolation level read committed");
  try {
    await connection.execute(`set local lock_timeout = ${Math.round(options.lockMs)}`);
    await putTriggersAside(connection);
    await lock(connection, pairs, openRows, options.wholeTables);
    // Others may have changed again what an earlier step made equal.
    const becomesEqual = options.mode === "replace" && options.wholeTables && await beginTry(connection, pairs);
    for (const pair of pairs) {
      for (const statement of differenceStatements(pair, options.mode)) await connection.execute(statement);
    }
    // Rows that are in the difference only since others wrote.
    await lock(connection, pairs, openRows, options.wholeTables);
    await requireUnchanged(connection, pairs, keys);
    const result = await applyPart(connection, pairs, openRows, options);
    // Steps that went before have verified less.
    for (const tried of await triedPairs(connection, pairs)) await verifyKeys(connection, keys, tried, allRows);
    if (!options.fireTriggers) {
      await prove(
        connection,
        pairs,
        (pair) => becomesEqual ? unequalStatement(pair) : unprovenStatement(pair, openRows),
      );
    }
    for (const pair of pairs) await markDone(connection, pair, openRows);
    if (!options.fireTriggers) await proveBags(connection, pairs, options.mode);
    await options.beforeCommit?.(connection);
    await connection.execute("commit");
    return result;
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw refused(error);
  }
}

export async function markDone(connection: Connection, pair: Pair, part: Part): Promise<void> {
  await connection.execute(`update ${pair.delta} as d set "done" = true where ${part("d")}`);
}

export async function putTriggersAside(connection: Connection): Promise<void> {
  try {
    await connection.execute("set local session_replication_role = replica");
  } catch (error) {
    if (sqlstateOf(error) !== "42501") throw error;
    throw new HoldfastError("database_denied", "this role may not put triggers and foreign keys aside", {
      hint: "grant set on parameter session_replication_role to the role, or use the role postgres of the project.",
      cause: error,
    });
  }
}

/**
 * Locks what is touched: the table against being altered, and against all writers where it has to be equal, a deferrable key
 * has to be looked at, or rows move; else the rows. A table of which nothing is touched and that this role may not write is
 * left alone. Errors: `rows_conflict` where it is gone.
 */
export async function lock(
  connection: Connection,
  pairs: readonly Pair[],
  part: Part,
  wholeTables: boolean,
): Promise<void> {
  for (const pair of pairs) {
    const [found] = await connection.query(
      `select exists (select from ${pair.delta} as d where ${part("d")}) as touched,
              exists (select from ${pair.delta} as d where ${part("d")} and d."moves") as moved,
              coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass($1), 'UPDATE, DELETE, TRUNCATE'), false) as writable`,
      [liveName(pair)],
    );
    const { live, past } = pair.fit;
    // Signing in waits for nobody.
    const isUsers = past.dataOwner === "user";
    const touched = found?.["touched"] === "t";
    if (!touched && !(wholeTables && isUsers && found?.["writable"] === "t")) continue;
    // Who locks a row that moves would be told that it is gone: nobody waits for it, but for the table.
    const moved = isUsers && found?.["moved"] === "t";
    const alone = live.deferrable || (isUsers && wholeTables);
    const mode = moved ? "exclusive" : alone ? "share row exclusive" : "row exclusive";
    await connection.execute(`lock table ${liveName(pair)} in ${mode} mode`)
      .catch((error: unknown) => {
        throw sqlstateOf(error) === "42P01" ? notAsPlanned(`table ${liveName(pair)}`) : error;
      });
    const statement = lockRowsStatement(pair, part);
    if (touched && statement !== null) await connection.query(statement);
  }
}

/**
 * Rows out, rows in, sequences ahead; in the caller's transaction. Errors: `triggers_would_fire`, `counts_differ`,
 * `definitions_stuck` where a publication of the user's refuses deletes.
 */
export async function applyPart(
  connection: Connection,
  pairs: readonly Pair[],
  part: Part,
  { fireTriggers }: Pick<PutBackOptions, "fireTriggers">,
): Promise<PutBackResult> {
  const counts = new Map<Pair, Wanted>();
  for (const pair of pairs) {
    await refuseCut(connection, pair, part);
    const wanted = await wantedOf(connection, pair, part);
    const { alwaysTriggers } = pair.fit.live;
    if (wanted.inserted + wanted.updated + wanted.deleted > 0 && alwaysTriggers.length > 0 && !fireTriggers) {
      throw new HoldfastError(
        "triggers_would_fire",
        `triggers of ${liveName(pair)} fire whatever a restore sets: ${alwaysTriggers.join(", ")}`,
      );
    }
    counts.set(pair, wanted);
  }
  const losing = [...counts].filter(([, wanted]) => wanted.updated + wanted.deleted > 0);
  // Whose rows they are can hang on rows of the other tables: asked while all of them are there.
  for (const [pair] of losing) await refuseOthers(connection, pair, part);
  await whileDeletable(connection, losing.map(([pair]) => pair.fit.live.oid), async () => {
    // All that goes first, since a value that one row gives up can be one that another gets back.
    for (const [pair, wanted] of losing.reverse()) {
      const [gone] = await connection.query(`${takeOutStatement(pair, part)} where ${withUsersPath}`);
      await connection.execute(ownPath);
      if (Number(gone?.["n"]) !== wanted.moved + wanted.deleted) throw differ(pair);
    }
    for (const [pair, wanted] of counts) {
      const inserted = wanted.inserted === 0 ? 0 : await changed(connection, insertStatement(pair, part));
      const back = putBackStatement(pair, part);
      const moved = back === null || wanted.moved === 0 ? 0 : await changed(connection, back);
      const updated = wanted.updated === wanted.moved ? 0 : await changeInPlace(connection, pair, part);
      if (inserted !== wanted.inserted || moved !== wanted.moved || updated !== wanted.updated - wanted.moved) {
        throw differ(pair);
      }
    }
  });
  const sequences: string[] = [];
  for (const pair of pairs) sequences.push(...await moveSequencesAhead(connection, pair, part));
  const tables = [...counts].map(([pair, { inserted, updated, deleted }]) => ({
    table: liveName(pair),
    inserted,
    updated,
    deleted,
  }));
  const sum = (of: "inserted" | "updated" | "deleted") => tables.reduce((total, table) => total + table[of], 0);
  return { inserted: sum("inserted"), updated: sum("updated"), deleted: sum("deleted"), tables, sequences };
}

/** Rows by what is done with them; those that move are among the updated. */
interface Wanted {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  readonly moved: number;
}

async function wantedOf(connection: Connection, pair: Pair, part: Part): Promise<Wanted> {
  const n = pair.fit.key === null ? "coalesce(sum(d.copies), 0)" : "count(*)";
  const of = (condition: string) => `(select ${n} from ${pair.delta} as d where ${condition} and ${part("d")})`;
  const [row] = await connection.query(
    `select ${of(`d."action" = 'insert'`)} as inserted, ${of(`d."action" = 'update'`)} as updated,
            ${of(`d."action" = 'delete'`)} as deleted, ${of(`d."moves"`)} as moved`,
  );
  return {
    inserted: Number(row?.["inserted"]),
    updated: Number(row?.["updated"]),
    deleted: Number(row?.["deleted"]),
    moved: Number(row?.["moved"]),
  };
}

async function changeInPlace(connection: Connection, pair: Pair, part: Part): Promise<number> {
  const statements = changeStatements(pair, part);
  if (statements === null) return 0;
  await connection.execute(statements.keep);
  return await changed(connection, statements.set);
}

/** Errors: `value_unfit` naming the columns. */
async function refuseCut(connection: Connection, pair: Pair, part: Part): Promise<void> {
  const cut = (await findCut(connection, pair, part)).filter(({ rows }) => rows !== null);
  if (cut.length === 0) return;
  const columns = cut.map(({ column, rows }) => `${column} (${rows} rows)`).join(", ");
  throw new HoldfastError("value_unfit", `values of ${liveName(pair)} would be cut by the types of now: ${columns}`, {
    hint:
      "The last transaction was undone. Give the columns their types of then, or restore beside and take the rows by hand.",
  });
}

/** Rows that a statement has changed. */
async function changed(connection: Connection, statement: string): Promise<number> {
  const [row] = await connection.query(
    `with done as (${statement} returning 1) select count(*) as n from done where ${withUsersPath}`,
  );
  await connection.execute(ownPath);
  return Number(row?.["n"]);
}

async function prove(
  connection: Connection,
  pairs: readonly Pair[],
  statementOf: (pair: Pair) => string | null,
): Promise<void> {
  for (const pair of pairs) {
    const sql = statementOf(pair);
    const [row] = sql === null ? [] : await connection.query(sql);
    if (Number(row?.["n"] ?? 0) > 0) {
      throw new HoldfastError("counts_differ", `rows of ${liveName(pair)} were read again and are not as they were`, {
        hint: "The last transaction was undone. A rule or a trigger may be in the way.",
      });
    }
  }
}

/** Rows without a key are read again by looking for what still differs. */
async function proveBags(connection: Connection, pairs: readonly Pair[], mode: RestoreMode): Promise<void> {
  for (const pair of pairs) {
    if (pair.fit.key !== null) continue;
    for (const statement of differenceStatements(pair, mode)) await connection.execute(statement);
    const left = await wantedOf(connection, pair, openRows);
    if (left.inserted + left.deleted > 0) throw differ(pair);
  }
}

function differ(pair: Pair): HoldfastError {
  return new HoldfastError("counts_differ", `${liveName(pair)} took another number of rows than it was to`, {
    hint: "The last transaction was undone. A rule or a trigger may be in the way.",
  });
}

/** Nothing was changed: said with what is in the way. */
export function refused(error: unknown): unknown {
  const sqlstate = sqlstateOf(error) ?? "";
  if (error instanceof HoldfastError && error.code !== "database_failed") return error;
  if (sqlstate.startsWith("23")) {
    return new HoldfastError("rows_conflict", `a constraint refuses the rows: ${messageOf(error)}`, {
      hint: "The last transaction was undone. Somebody may have written meanwhile: look at the plan again.",
      cause: error,
    });
  }
  if (sqlstate === "0A000") {
    return new HoldfastError("rows_conflict", `a rule of the table is in the way: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (sqlstate.startsWith("22")) {
    return new HoldfastError("value_unfit", `a value does not fit its column: ${messageOf(error)}`, { cause: error });
  }
  return error;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : "";
}
