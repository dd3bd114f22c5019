/** A whole backup from one process: request, workers, progress, outcome. */
import { asHoldfastError, type ErrorCode, errorTable, HoldfastError } from "../errors.ts";
import { cancelRun, failRun, readRun, requestRun, type RunOrigin } from "../jobs/queries.ts";
import type { RunRow } from "../jobs/run_row.ts";
import { isActive } from "../jobs/states.ts";
import type { Connection } from "../postgres/connection.ts";
import type { BackupDeps } from "./deps.ts";
import type { LegResult } from "./leg.ts";

export interface BackupRequest {
  readonly tiers: readonly string[];
  readonly origin: RunOrigin;
  readonly requestKey?: string;
}

export interface BackupProgress {
  readonly status: RunRow["status"];
  readonly attempt: number;
  readonly tasksDone: number;
  readonly tasksTotal: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** Estimates, for a bar: bytes of the plan that are done, and all of them; null before there is a plan. */
  readonly bytesDone: number;
  readonly bytesTotal: number | null;
}

/** Runs one leg to its end in a worker of its own; `name` is unique among the workers. See `runLeg`. */
export type LegRunner = (run: string, name: string, signal: AbortSignal) => Promise<LegResult>;

export interface RunOptions {
  /** Workers at the same time; each has its own session, buffer and share of memory. */
  readonly workers: number;
  readonly runLeg: LegRunner;
  /** Called about twice a second, and once at the end. */
  readonly onProgress?: (progress: BackupProgress) => void;
  /** Told when the request joined a run that was there already. */
  readonly onRequested?: (run: string, joined: boolean) => void;
  /** Aborting cancels the run. */
  readonly signal?: AbortSignal;
}

/** Between two looks for work by an idle worker; doubles up to the second figure. */
const idleMs = [50, 500] as const;
const progressMs = 500;
/** Legs in a row that fail before any task, such as by a lost session, after which a worker gives up. */
const mostFailures = 5;

/**
 * Takes a backup and waits for its end. Resolves with the run once it is `succeeded` or `quarantined`.
 * Errors: the run's own (`error_code`), `cancelled`, and what keeps every worker from working.
 */
export async function runBackup(deps: BackupDeps, request: BackupRequest, options: RunOptions): Promise<RunRow> {
  const over = new AbortController();
  const { run, joined } = await withSession(deps, (connection) =>
    requestRun(connection, {
      kind: "full",
      tiers: request.tiers,
      origin: request.origin,
      requestKey: request.requestKey ?? null,
    }));
  options.onRequested?.(run, joined);
  try {
    const crowd = new Crowd();
    const watch = watchRun(deps, run, options, over, crowd);
    const prefix = deps.clock.now().getTime().toString(36);
    const outcomes = await Promise.allSettled(
      Array.from({ length: Math.max(1, options.workers) }, async (_, index) => {
        // A worker costs half a second to start: a run that takes nearly everything over is done by then.
        if (index >= workersAtOnce) await crowd.wanted;
        await work(deps, run, `${prefix}-${index + 1}`, options, over.signal);
      }),
    );
    over.abort();
    await watch;
    return await withSession(deps, (connection) => outcomeOf(connection, run, outcomes, options));
  } finally {
    over.abort();
  }
}

/** Workers that start with the run; further ones come once there is work for them. */
const workersAtOnce = 2;

/** Tells the further workers when to come. */
class Crowd {
  readonly wanted: Promise<void>;
  #call: () => void = () => {};

  constructor() {
    this.wanted = new Promise((resolve) => {
      this.#call = resolve;
    });
  }

  /** There are tasks for more workers, or the run is over and they have to end. */
  call(): void {
    this.#call();
  }
}

async function withSession<T>(deps: BackupDeps, use: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await deps.database.connect("holdfast:run");
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}

/** Legs one after the other until the run has ended. */
async function work(
  deps: BackupDeps,
  run: string,
  name: string,
  options: RunOptions,
  signal: AbortSignal,
): Promise<void> {
  let pause: number = idleMs[0];
  for (let failures = 0; !signal.aborted;) {
    try {
      const result = await options.runLeg(run, name, signal);
      failures = 0;
      if (!result.workLeft) return;
      pause = result.tasks > 0 ? idleMs[0] : Math.min(pause * 2, idleMs[1]);
    } catch (error) {
      const failure = asHoldfastError(error);
      failures++;
      if (failure.retry !== "backoff" || failures >= mostFailures) throw failure;
      deps.log.warn("leg.failed", { run, code: failure.code, message: failure.message });
      pause = Math.min(1_000 * failures * failures, 10_000);
    }
    await deps.clock.sleep(pause, signal).catch(() => {});
  }
}

/** Reports progress, and ends the workers once the run has ended: by them, by another process, or by the caller. */
async function watchRun(
  deps: BackupDeps,
  run: string,
  options: RunOptions,
  over: AbortController,
  crowd: Crowd,
): Promise<void> {
  const cancel = () => over.abort();
  over.signal.addEventListener("abort", () => crowd.call(), { once: true });
  if (options.signal?.aborted === true) cancel();
  options.signal?.addEventListener("abort", cancel, { once: true });
  while (!over.signal.aborted) {
    try {
      await withSession(deps, async (connection) => {
        while (!over.signal.aborted) {
          const row = await readRun(connection, run);
          options.onProgress?.(progressOf(row));
          if (row.status === "copying" && row.tasksTotal - row.tasksDone > 2 * options.workers) crowd.call();
          if (!isActive(row.status)) over.abort();
          else await deps.clock.sleep(progressMs, over.signal).catch(() => {});
        }
      });
    } catch (error) {
      // The workers have sessions of their own and decide how long to try.
      deps.log.warn("watch.failed", { run, code: asHoldfastError(error).code });
      await deps.clock.sleep(progressMs * 2, over.signal).catch(() => {});
    }
  }
  options.signal?.removeEventListener("abort", cancel);
}

async function outcomeOf(
  connection: Connection,
  run: string,
  outcomes: readonly PromiseSettledResult<void>[],
  options: RunOptions,
): Promise<RunRow> {
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (options.signal?.aborted === true && isActive((await readRun(connection, run)).status)) {
    await cancelRun(connection, run);
  } else if (failed !== undefined && outcomes.every((outcome) => outcome.status === "rejected")) {
    await failRun(connection, run, asHoldfastError(failed.reason));
  }
  const row = await readRun(connection, run);
  options.onProgress?.(progressOf(row));
  switch (row.status) {
    case "succeeded":
    case "quarantined":
      return row;
    case "cancelled":
      throw new HoldfastError("cancelled", `run ${run} was cancelled`);
    default: {
      if (failed !== undefined && row.errorCode === null) throw asHoldfastError(failed.reason);
      throw failureOf(row);
    }
  }
}

/** The failure that a run has recorded. */
export function failureOf(row: RunRow): HoldfastError {
  const code: ErrorCode = row.errorCode !== null && row.errorCode in errorTable
    ? row.errorCode as ErrorCode
    : "internal";
  const hint = row.hint ?? undefined;
  return new HoldfastError(
    code,
    row.errorMessage ?? `run ${row.id} is ${row.status}`,
    hint === undefined ? {} : { hint },
  );
}

export function progressOf(row: RunRow): BackupProgress {
  const { status, attempt, tasksDone, tasksTotal, rows, rawBytes, storedBytes, bytesDone, bytesTotal } = row;
  return { status, attempt, tasksDone, tasksTotal, rows, rawBytes, storedBytes, bytesDone, bytesTotal };
}
