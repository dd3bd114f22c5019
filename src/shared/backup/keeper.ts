/** The session that holds a run's snapshot and table locks. docs/decisions/0003-keeper.md. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import { text } from "../jobs/run_row.ts";
import type { SnapshotFacts } from "../jobs/queries.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { definitionsNow } from "./catalog.ts";
import { openSession } from "./session.ts";
import { type ListedTable, listTables } from "./tables.ts";

export interface KeeperOptions {
  /** How long to wait for a lock that another session holds, in milliseconds. */
  readonly lockTimeoutMs: number;
  /** The keeper ends by itself after this long, in seconds; nobody needs a snapshot that long. */
  readonly atMostSeconds: number;
}

export const defaultKeeperOptions: KeeperOptions = { lockTimeoutMs: 5_000, atMostSeconds: 12 * 60 * 60 };

export interface Keeper {
  readonly facts: SnapshotFacts;
  readonly tables: readonly ListedTable[];
  /**
   * Sends the statement that sleeps, and does not wait for it: from now on the backend outlives this process and ends
   * when it is told to, when a session has waited for one of its locks, or when its time is over.
   */
  hold(run: string, attempt: number): void;
  /** Ends it now. */
  release(): Promise<void>;
}

/** Tables to name in one LOCK statement; bounds its text, not its time. */
const lockBatch = 200;
/** Tables that are made or rewritten while we lock: begin again, at most so often. */
const maxStarts = 8;

/**
 * Locks first, then takes the snapshot: between the two, no table can change its file, so what the catalog of the
 * snapshot says is what the files hold. Errors: `lock_timeout`, `table_unreadable`, `catalog_changed` when tables keep
 * coming, those of `openSession`.
 */
export async function openKeeper(
  deps: { readonly database: Database; readonly clock: Clock; readonly log: Log },
  options: KeeperOptions,
): Promise<Keeper> {
  const connection = await openSession(deps.database, "holdfast:keeper");
  try {
    for (let start = 0; start < maxStarts; start++) {
      const fingerprint = await definitionsNow(connection);
      const locked = await lockTables(connection, await listTables(connection), options);
      if (locked !== "changed") {
        deps.log.step("attempt.locked");
        const tables = await listTables(connection);
        if (await stillAsLocked(connection, tables)) {
          const facts = await exportSnapshot(connection, fingerprint, options);
          deps.log.step("attempt.exported");
          return keeperOf(connection, facts, tables, options, deps.log);
        }
      }
      await connection.execute("rollback");
    }
    throw new HoldfastError("catalog_changed", "tables kept being made or rewritten while their locks were taken");
  } catch (error) {
    await connection.close();
    throw error;
  }
}

async function lockTables(
  connection: Connection,
  tables: readonly ListedTable[],
  options: KeeperOptions,
): Promise<"locked" | "changed"> {
  await connection.execute(
    `begin isolation level repeatable read read only; set local lock_timeout = ${Math.floor(options.lockTimeoutMs)}`,
  );
  for (let at = 0; at < tables.length; at += lockBatch) {
    const names = tables.slice(at, at + lockBatch).map((table) => `only ${table.sqlName}`).join(", ");
    try {
      await connection.execute(`lock table ${names} in access share mode`);
    } catch (error) {
      const sqlstate = sqlstateOf(error);
      // Dropped or renamed since it was listed, or a deadlock that we lost.
      if (sqlstate === "42P01" || sqlstate === "3F000" || sqlstate === "42809" || sqlstate === "40P01") {
        return "changed";
      }
      if (sqlstate === "42501") throw unreadable(error);
      if (sqlstate === "55P03") {
        throw new HoldfastError("lock_timeout", "a table is locked by another session", { cause: error });
      }
      throw error;
    }
  }
  return "locked";
}

function unreadable(error: unknown): HoldfastError {
  const said = error instanceof Error ? error.message : "";
  return new HoldfastError("table_unreadable", `the role that takes the backup may not read a table: ${said}`, {
    cause: error,
  });
}

/** The first queries of the transaction, and so of its snapshot. Names can be swapped while we lock: oids are compared. */
async function stillAsLocked(connection: Connection, tables: readonly ListedTable[]): Promise<boolean> {
  const rows = await connection.query(
    `select l.relation as oid from pg_catalog.pg_locks as l
      where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation' and l.granted
        and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database())`,
  );
  const held = new Set(rows.map((row) => row["oid"]));
  return tables.every((table) => held.has(table.oid) && table.relfilenode === table.presentFilenode);
}

async function exportSnapshot(
  connection: Connection,
  fingerprint: string,
  options: KeeperOptions,
): Promise<SnapshotFacts> {
  const [row] = await connection.query(
    `select pg_catalog.pg_export_snapshot() as name, pg_catalog.pg_current_snapshot() as snapshot,
            pg_catalog.pg_current_wal_insert_lsn() as lsn, pg_catalog.clock_timestamp() as moment,
            pg_catalog.clock_timestamp() + $1::interval as until, a.backend_start
       from pg_catalog.pg_stat_activity as a where a.pid = pg_catalog.pg_backend_pid()`,
    [`${options.atMostSeconds} seconds`],
  );
  if (row === undefined) throw new HoldfastError("internal", "the snapshot could not be exported");
  return {
    name: text(row, "name"),
    text: text(row, "snapshot"),
    walLsn: text(row, "lsn"),
    consistentAt: text(row, "moment"),
    keeperPid: connection.processId,
    keeperStartedAt: text(row, "backend_start"),
    keeperUntil: text(row, "until"),
    fingerprint,
    serverVersion: connection.serverVersion,
  };
}

function keeperOf(
  connection: Connection,
  facts: SnapshotFacts,
  tables: readonly ListedTable[],
  options: KeeperOptions,
  log: Log,
): Keeper {
  return {
    facts,
    tables,
    hold(run, attempt) {
      const seconds = Math.floor(options.atMostSeconds);
      connection
        .execute(`select backup.keep('${run}', ${Math.floor(attempt)}, interval '${seconds} seconds'); rollback`)
        .then(() => log.info("keeper.ended", { run, attempt }))
        // Told to end, or its server went away: whoever needs the snapshot finds it gone.
        .catch(() => log.debug("keeper.gone", { run, attempt }))
        .finally(() => connection.close());
    },
    async release() {
      await connection.close();
    },
  };
}
