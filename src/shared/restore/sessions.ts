import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { applySettings } from "../schema/apply_settings.ts";

/**
 * What every session of a restore sets. A crash of the server may lose the last commits (`synchronous_commit`): steps and
 * their markers are lost together and done again, and the end of a restore is committed synchronously.
 * No wait for a lock is without bound: 60 s is longer than a session of a killed restore lives.
 */
const restoreSettings: readonly string[] = [
  ...applySettings,
  "set client_encoding = 'UTF8'",
  "set idle_in_transaction_session_timeout = 0",
  "set lock_timeout = '60s'",
  "set synchronous_commit = off",
  "set maintenance_work_mem = '256MB'",
];

/**
 * Ends sessions. The server knows at once; the end of a TLS session that the runtime never tells is waited for no longer
 * than 50 ms, instead of the second that `close` allows.
 */
export async function closeSoon(clock: Clock, connections: readonly Connection[]): Promise<void> {
  await Promise.race([Promise.all(connections.map((connection) => connection.close())), clock.sleep(50)]);
}

/**
 * A session to the target. Errors: those of the connection, and `target_full`: a session writes a file of its own where
 * the catalogs have changed, and the server ends it when it cannot.
 */
export async function connectTarget(database: Database): Promise<Connection> {
  try {
    return await database.connect("holdfast:restore");
  } catch (error) {
    throw isDiskFull(error) ? targetFull(error, "no session can begin") : error;
  }
}

/** The sessions of one restore: lane 0 also does what is done one after the other. */
export class RestoreSessions {
  readonly lanes: readonly Connection[];
  readonly #database: Database;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = () => void this.#cancelAll();

  private constructor(database: Database, lanes: readonly Connection[], signal: AbortSignal | undefined) {
    this.#database = database;
    this.lanes = lanes;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Errors: those of the connection; `cancelled` when the signal is aborted already. */
  static async open(
    database: Database,
    options: { readonly lanes: number; readonly signal: AbortSignal | undefined },
  ): Promise<RestoreSessions> {
    checkSignal(options.signal);
    const lanes: Connection[] = [];
    try {
      for (let lane = 0; lane < options.lanes; lane++) {
        const connection = await connectTarget(database);
        lanes.push(connection);
        await connection.execute(restoreSettings.join(";\n"));
      }
    } catch (error) {
      await Promise.all(lanes.map((lane) => lane.close()));
      throw error;
    }
    return new RestoreSessions(database, lanes, options.signal);
  }

  get main(): Connection {
    return this.lane(0);
  }

  lane(index: number): Connection {
    const lane = this.lanes[index];
    if (lane === undefined) throw new HoldfastError("internal", `there is no lane ${index}`);
    return lane;
  }

  /** The same statement on every session. */
  async each(statement: string): Promise<void> {
    for (const lane of this.lanes) await lane.execute(statement);
  }

  async close(clock: Clock): Promise<void> {
    this.#signal?.removeEventListener("abort", this.#onAbort);
    await closeSoon(clock, this.lanes);
  }

  /** Best effort: a statement that goes on regardless is met by the signal once it has ended. */
  async #cancelAll(): Promise<void> {
    const connection = await this.#database.connect("holdfast:cancel").catch(() => null);
    if (connection === null) return;
    for (const lane of this.lanes) {
      await connection.query("select pg_catalog.pg_cancel_backend($1::int)", [String(lane.processId)]).catch(() => []);
    }
    await connection.close();
  }
}

export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new HoldfastError("cancelled", "the restore was cancelled; run it again to go on");
}

/**
 * What a failed statement means for a restore: `cancelled` after an abort, `target_full` for a full disk, else the
 * error itself with the place put before its message.
 */
export function restoreFailure(error: unknown, place: string, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) {
    return new HoldfastError("cancelled", "the restore was cancelled; run it again to go on", { cause: error });
  }
  if (!(error instanceof HoldfastError)) return error;
  if (isDiskFull(error)) return targetFull(error, place);
  if (sqlstateOf(error) === null) return error;
  return new HoldfastError(error.code, `${place}: ${error.message}`, {
    hint: error.hint,
    retry: error.retry,
    cause: error,
  });
}

/** A session that cannot write what it has read of the catalogs ends with an internal error, up to 15 without a reason. */
export function isDiskFull(error: unknown): boolean {
  const sqlstate = sqlstateOf(error);
  return sqlstate === "53100" || (sqlstate === "XX000" && /could not write init file/.test(serverTextOf(error)));
}

/** As the server said it: what we tell of such an error is no more than its code. */
function serverTextOf(error: unknown): string {
  return error instanceof Error ? `${error.message} ${serverTextOf(error.cause)}` : "";
}

function targetFull(error: unknown, place: string): HoldfastError {
  return new HoldfastError("target_full", `the target's disk is full (${place})`, { cause: error });
}
