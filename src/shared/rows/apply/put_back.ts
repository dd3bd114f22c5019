/** Rows of a side schema into the live tables, all or nothing. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import {
  allRows,
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
  unprovenStatement,
} from "./difference.ts";
import type { ForeignKey } from "./keys.ts";
import { verifyKeys } from "./keys_hold.ts";
import { whileDeletable } from "./published_deletes.ts";
import { moveSequencesAhead } from "./sequences_ahead.ts";

export interface PutBackOptions {
  readonly mode: RestoreMode;
  /** Locks whole tables against writers, so that they are equal afterwards; else only the rows that are touched. */
  readonly wholeTables: boolean;
  /** Goes on where triggers fire whatever the session says. */
  readonly fireTriggers: boolean;
  /** How long a lock is waited for. */
  readonly lockMs: number;
  /** After the rows are in and before the commit, in the same transaction: what was lawfully erased goes again. */
  readonly beforeCommit?: (connection: Connection) => Promise<void>;
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
 * triggers aside, `counts_differ`, those of the connection.
 */
export async function putBack(
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
    await lock(connection, pairs, options);
    for (const pair of pairs) {
      for (const statement of differenceStatements(pair, options.mode)) await connection.execute(statement);
    }
    // Rows that are in the difference only since others wrote.
    await lock(connection, pairs, options);
    const result = await applyPart(connection, pairs, openRows, options);
    // Steps that went before have verified less.
    await verifyKeys(connection, keys, pairs, allRows);
    if (!options.fireTriggers) await prove(connection, pairs, openRows);
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

async function lock(connection: Connection, pairs: readonly Pair[], options: PutBackOptions): Promise<void> {
  for (const pair of pairs) {
    // Signing in waits for nobody.
    if (options.wholeTables && pair.fit.past.dataOwner === "user") {
      await connection.execute(`lock table ${liveName(pair)} in share row exclusive mode`);
      continue;
    }
    const statement = lockRowsStatement(pair, openRows);
    if (statement !== null) await connection.query(statement);
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
  const counts = new Map<Pair, { inserted: number; updated: number; deleted: number }>();
  for (const pair of pairs) {
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
  await whileDeletable(connection, losing.map(([pair]) => pair.fit.live.oid), async () => {
    // All that goes first, since a value that one row gives up can be one that another gets back; children before parents,
    // by which it may be known whose they are.
    for (const [pair, wanted] of losing.reverse()) {
      const [gone] = await connection.query(takeOutStatement(pair, part));
      if (Number(gone?.["n"]) !== wanted.updated + wanted.deleted) throw differ(pair);
    }
    for (const [pair, wanted] of counts) {
      const inserted = await changed(connection, insertStatement(pair, part));
      const back = putBackStatement(pair, part);
      const updated = back === null ? 0 : await changed(connection, back);
      if (inserted !== wanted.inserted || updated !== wanted.updated) throw differ(pair);
    }
  });
  const sequences: string[] = [];
  for (const pair of pairs) sequences.push(...await moveSequencesAhead(connection, pair, part));
  const tables = [...counts].map(([pair, wanted]) => ({ table: liveName(pair), ...wanted }));
  const sum = (of: "inserted" | "updated" | "deleted") => tables.reduce((total, table) => total + table[of], 0);
  return { inserted: sum("inserted"), updated: sum("updated"), deleted: sum("deleted"), tables, sequences };
}

async function wantedOf(connection: Connection, pair: Pair, part: Part) {
  const n = pair.fit.key === null ? "coalesce(sum(d.copies), 0)" : "count(*)";
  const of = (action: string) =>
    `(select ${n} from ${pair.delta} as d where d."action" = '${action}' and ${part("d")})`;
  const [row] = await connection.query(
    `select ${of("insert")} as inserted, ${of("update")} as updated, ${of("delete")} as deleted`,
  );
  return {
    inserted: Number(row?.["inserted"]),
    updated: Number(row?.["updated"]),
    deleted: Number(row?.["deleted"]),
  };
}

/** Rows that a statement has changed. */
async function changed(connection: Connection, statement: string): Promise<number> {
  const [row] = await connection.query(`with done as (${statement} returning 1) select count(*) as n from done`);
  return Number(row?.["n"]);
}

async function prove(connection: Connection, pairs: readonly Pair[], part: Part): Promise<void> {
  for (const pair of pairs) {
    const sql = unprovenStatement(pair, part);
    const [row] = sql === null ? [] : await connection.query(sql);
    if (Number(row?.["n"] ?? 0) > 0) {
      throw new HoldfastError("counts_differ", `rows of ${liveName(pair)} were read again and are not as they were`, {
        hint: "Nothing was changed. A rule or a trigger may be in the way.",
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
    hint: "Nothing was changed. A rule or a trigger may be in the way.",
  });
}

/** Nothing was changed: said with what is in the way. */
export function refused(error: unknown): unknown {
  const sqlstate = sqlstateOf(error) ?? "";
  if (error instanceof HoldfastError && error.code !== "database_failed") return error;
  if (sqlstate.startsWith("23")) {
    return new HoldfastError("rows_conflict", `a constraint refuses the rows: ${messageOf(error)}`, {
      hint: "Nothing was changed. Somebody may have written meanwhile: look at the plan again.",
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
