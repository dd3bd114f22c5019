import { HoldfastError } from "../errors.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";

/** Part of every table's fingerprint: raise it whenever `textSettings` changes what COPY gives. */
export const textVersion = "1";

/** What pins the text that COPY gives. */
export const textSettings: readonly string[] = [
  "set client_encoding = 'UTF8'",
  "set search_path = ''",
  "set datestyle = 'ISO, YMD'",
  "set intervalstyle = 'postgres'",
  "set timezone = 'UTC'",
  "set extra_float_digits = 3",
  "set bytea_output = 'hex'",
  "set lc_monetary = 'C'",
  "set xmloption = 'content'",
  "set xmlbinary = 'base64'",
  "set synchronize_seqscans = off",
  "set row_security = off",
];

/** Another default is the user's: whoever of us wants a snapshot that stays says so in BEGIN. */
const isolation = "set default_transaction_isolation = 'read committed'";

/** A role's own settings killed keepers: none of these may end a session of ours. */
const noTimeouts: readonly string[] = [
  "set statement_timeout = 0",
  "set lock_timeout = 0",
  "set idle_in_transaction_session_timeout = 0",
  "set idle_session_timeout = 0",
  "set client_connection_check_interval = 0",
  "set jit = off",
];

/** Oldest server that we read. */
const leastVersion = 150000;

/** A session with pinned settings on a primary. Errors: `server_unsupported`, `standby_refused`, those of connecting. */
export async function openSession(database: Database, name: string): Promise<Connection> {
  const connection = await database.connect(name);
  try {
    if (connection.serverVersion < leastVersion) {
      throw new HoldfastError("server_unsupported", `the server has version ${connection.serverVersion}`);
    }
    const since17 = connection.serverVersion >= 170000 ? ["set transaction_timeout = 0"] : [];
    await connection.execute([...noTimeouts, ...since17, isolation, ...textSettings].join("; "));
    const [row] = await connection.query("select pg_catalog.pg_is_in_recovery() as standby");
    if (row?.["standby"] === "t") throw new HoldfastError("standby_refused", "this server is a standby");
    return connection;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

/** SQLSTATEs of SET TRANSACTION SNAPSHOT when nobody holds it: 22023 (15), 42704 (16 and newer), 55000 (its process ended). */
const snapshotGone = new Set(["22023", "42704", "55000"]);

/**
 * Longer than a keeper takes to yield, so that the reason for the wait is gone by then. Bounds all waits: for the sequences and
 * views as well that a capture of definitions reads.
 */
const workerLockTimeout = "15s";

/**
 * Runs `work` in a read-only transaction that sees the snapshot and holds the given tables' ACCESS SHARE locks.
 * The transaction is short by design: whoever waits for one of the tables waits for us too.
 * Errors: `keeper_lost` when the snapshot is gone or a table was rewritten, `lock_timeout`, what `work` throws.
 */
export async function inSnapshot<T>(
  connection: Connection,
  snapshotName: string,
  tables: readonly LockedTable[],
  work: () => Promise<T>,
): Promise<T> {
  await begin(connection, snapshotName, "read only");
  try {
    if (tables.length > 0) await lockAndCheck(connection, tables);
    return await work();
  } finally {
    // A session that was lost has nothing to end; its own error is the one to report.
    await connection.execute("rollback").catch(() => {});
  }
}

/** Runs `work`, which writes into our own tables, in a transaction that sees the snapshot, and commits. Errors: as of `inSnapshot`. */
export async function writingInSnapshot(
  connection: Connection,
  snapshotName: string,
  work: () => Promise<void>,
): Promise<void> {
  await begin(connection, snapshotName, "read write");
  try {
    await work();
    await connection.execute("commit");
  } finally {
    // After a commit it ends nothing; without one it says so in a warning that nobody reads.
    await connection.execute("rollback").catch(() => {});
  }
}

export interface LockedTable {
  readonly oid: string;
  readonly relfilenode: string;
  /** Quoted `schema.table`. */
  readonly sqlName: string;
}

async function begin(
  connection: Connection,
  snapshotName: string,
  access: "read only" | "read write",
): Promise<void> {
  if (!/^[0-9A-Fa-f-]{1,60}$/.test(snapshotName)) throw new HoldfastError("internal", "a snapshot has a strange name");
  try {
    await connection.execute(
      `begin isolation level repeatable read ${access}; set transaction snapshot '${snapshotName}';
       set local lock_timeout = '${workerLockTimeout}'`,
    );
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    const sqlstate = sqlstateOf(error);
    if (sqlstate === null || !snapshotGone.has(sqlstate)) throw error;
    throw new HoldfastError("keeper_lost", "the snapshot of this run is gone", { cause: error });
  }
}

async function lockAndCheck(connection: Connection, tables: readonly LockedTable[]): Promise<void> {
  const names = tables.map((table) => `only ${table.sqlName}`).join(", ");
  try {
    await connection.execute(
      `lock table ${names} in access share mode`,
    );
  } catch (error) {
    // Dropped or renamed: that needs a lock which the keeper's forbids, so the keeper is gone.
    if (sqlstateOf(error) !== "42P01" && sqlstateOf(error) !== "3F000") throw error;
    throw new HoldfastError("keeper_lost", "a table of this snapshot is gone", { cause: error });
  }
  const rows = await connection.query(
    `select c.oid, c.relfilenode, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) as present
       from pg_catalog.pg_class as c where c.oid = any ($1::oid[])`,
    [`{${tables.map((table) => table.oid).join(",")}}`],
  );
  const found = new Map(rows.map((row) => [row["oid"], row]));
  for (const table of tables) {
    const row = found.get(table.oid);
    if (row?.["relfilenode"] === table.relfilenode && row["present"] === table.relfilenode) continue;
    throw new HoldfastError("keeper_lost", `${table.sqlName} was rewritten after the snapshot`);
  }
}
