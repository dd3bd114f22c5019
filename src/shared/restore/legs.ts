/** A full backup into a new database of the same server, in legs of a function. */
import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import { knownEntries } from "../erase/erase_queries.ts";
import { reapplyLedger } from "../erase/reapply.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import {
  claimRestore,
  failRestore,
  finishRestore,
  keysUsed,
  readRestore,
  type RestoreFacts,
  type RestoreLease,
  restoreProgress,
  restRestore,
} from "../jobs/restore_queries.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { openBackup, type ReadDeps } from "../verify/find_backup.ts";
import type { BeforeCommit } from "./before_commit.ts";
import { createDatabase } from "./create_database.ts";
import { databaseExists, newDatabaseName } from "./new_database.ts";
import { requireRoom } from "./room.ts";
import { restoreBackup, type RestoreProgress } from "./run.ts";
import { restoreFailure } from "./sessions.ts";

export interface FullLegDeps {
  /** The server on which the new database is made. */
  readonly database: Database;
  /** Another database of it, as the same role. */
  readonly inDatabase: (name: string) => Database;
  readonly clock: Clock;
  readonly log: Log;
  /** The store that backups are in. Errors: those of settings and keys. */
  readonly open: () => Promise<ReadDeps>;
  readonly beforeCommit?: BeforeCommit | undefined;
}

/** What a full restore would make. Sizes are bytes of COPY text. */
export interface FullOutline {
  readonly backup: string;
  readonly consistentAt: string;
  /** Name of the new database. */
  readonly database: string;
  /** It is there already: a restore that was broken off goes on in it, anything else is refused. */
  readonly isThere: boolean;
  readonly tables: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly warnings: readonly string[];
}

/** Nothing is changed. Errors: those of `openBackup`. */
export async function outlineFull(deps: FullLegDeps, connection: Connection, wanted: string): Promise<FullOutline> {
  const { manifest } = await openBackup(await deps.open(), wanted);
  const database = newDatabaseName(manifest);
  return {
    backup: manifest.id,
    consistentAt: manifest.consistentAt,
    database,
    isThere: await databaseExists(connection, database),
    tables: manifest.tables.length,
    rows: manifest.totals.rows,
    rawBytes: manifest.tables.reduce((sum, table) => sum + table.rawBytes, 0),
    warnings: manifest.notCaptured.map((one) => `${one.identity} is not in the backup: ${one.reason}`),
  };
}

/** Longer than the platform lets a leg live. */
const leaseSeconds = 170;
/** A session of a leg that was killed ends with its statement; so often, and so long, it is waited for. */
const waitSeconds = 20;
const mostWaits = 30;

/**
 * Nothing when another leg is at it, or when it was asked to end. What keeps the restore from going on is written down with it,
 * then thrown. What it made stays: the same restore over HTTP or by the CLI goes on with it.
 */
export async function runFullLeg(
  deps: FullLegDeps,
  connection: Connection,
  id: string,
  leg: { readonly worker: string; readonly budget: Budget },
): Promise<void> {
  const lease = await claimRestore(connection, id, { worker: leg.worker, leaseSeconds });
  if (lease === null) return;
  const row = await readRestore(connection, id);
  const over = new AbortController();
  const note = meter(leg.budget, over);
  try {
    await restoreProgress(connection, lease, { status: "loading", leaseSeconds });
    const read = await deps.open();
    const { manifest } = await openBackup(read, row.sourceBackup);
    await keysUsed(connection, { what: "restore", id: lease.id }, read.ring);
    const name = newDatabaseName(manifest);
    if (!(await databaseExists(connection, name))) {
      await requireRoom(connection, manifest.totals.rawBytes);
      await createDatabase(connection, name, manifest.server).catch((error: unknown) => {
        throw restoreFailure(error, `database ${name}`, undefined);
      });
    }
    const target = deps.inDatabase(name);
    const { clock, log } = deps;
    const beforeCommit = deps.beforeCommit ?? reapplyLedger(read, await knownEntries(connection, read.store.label));
    const result = await restoreBackup({ ...read, target, clock, log, beforeCommit }, manifest.id, {
      parallel: 1,
      signal: over.signal,
      onProgress: note.report,
    });
    const { warnings, held, skipped } = result;
    await restoreProgress(connection, lease, { ...note.facts(), state: { ...row.state, warnings, held, skipped } });
    await finishRestore(connection, lease, { rowsDone: result.inserted });
  } catch (error) {
    const failure = asHoldfastError(error);
    if (failure.code === "cancelled" && over.signal.aborted) {
      return await rest(connection, lease, { ...note.facts(), state: { ...row.state, waits: 0 } }, 0);
    }
    const waits = Number(row.state["waits"] ?? 0) + 1;
    if (failure.code === "run_state" && waits <= mostWaits) {
      return await rest(connection, lease, { state: { ...row.state, waits } }, waitSeconds);
    }
    await failRestore(connection, lease, failure).catch(() => {});
    throw error;
  }
}

/** Also one that was asked to end: it ends so. */
async function rest(connection: Connection, lease: RestoreLease, facts: RestoreFacts, seconds: number): Promise<void> {
  await restoreProgress(connection, lease, facts).catch((error: unknown) => {
    if (asHoldfastError(error).code !== "cancelled") throw error;
  });
  await restRestore(connection, lease, seconds);
}

/** Counts what a leg has used, and ends it between two steps. */
function meter(budget: Budget, over: AbortController) {
  let seen: RestoreProgress | null = null;
  return {
    report: (at: RestoreProgress) => {
      budget.spendText(at.rows - (seen?.rows ?? at.rows), at.rawBytes - (seen?.rawBytes ?? at.rawBytes));
      budget.spendCalls(2 * (at.steps - (seen?.steps ?? at.steps)));
      const isStep = seen !== null && (at.rawBytes > seen.rawBytes || at.steps > seen.steps);
      seen = at;
      // At least one step a leg: else a restore would stand still.
      if (isStep && budget.spent()) over.abort(new HoldfastError("cancelled", "the leg is over"));
    },
    facts: () =>
      seen === null ? {} : { rowsDone: seen.rows, stepsDone: seen.steps, stepsTotal: seen.stepsTotal, leaseSeconds },
  };
}
