/** A leg: claims and finishes tasks of one run until its budget is spent or nothing can be done now. */
import type { Epoch } from "../crypto/epoch.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { copyFiles } from "../files/copy_files.ts";
import { FileTask } from "../files/file_queries.ts";
import { lookAtCopies } from "../files/look_at_copies.ts";
import { readIdentity } from "../identity/identity_queries.ts";
import { placeChanged, placeIn, settlePlace } from "../identity/settle_place.ts";
import { claimTask, hasWork, readRun, returnTask, type Task } from "../jobs/queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Budget } from "./budget.ts";
import { ChunkBuffer } from "./chunk_buffer.ts";
import { doChunks } from "./chunks_task.ts";
import { definitionsNow } from "./catalog.ts";
import { doCounts } from "./counts_task.ts";
import type { BackupDeps } from "./deps.ts";
import { defaultKeeperOptions, type KeeperOptions } from "./keeper.ts";
import type { Limits } from "./limits.ts";
import { doManifest } from "./manifest_task.ts";
import { doPlan } from "./plan_task.ts";
import { epochOfRun, newestEpoch } from "./repository_epoch.ts";
import { readRunTables, type RunTable } from "./run_tables.ts";
import { openSession } from "./session.ts";

export interface LegOptions {
  readonly run: string;
  /** Names the worker in `backup.tasks`; unique among those that work at the same time. */
  readonly worker: string;
  readonly budget: Budget;
  readonly limits: Limits;
  /** A task that is not finished or renewed within this is given to somebody else. */
  readonly leaseSeconds?: number;
  readonly keeper?: KeeperOptions;
  /** Called for each chunk, by the worker that has it. */
  readonly progress?: (read: ChunkProgress) => void;
  /** Ends the leg before its next task. */
  readonly signal?: AbortSignal;
}

export interface ChunkProgress {
  readonly rows: number;
  readonly rawBytes: number;
  /** 0 for a chunk that was taken over. */
  readonly storedBytes: number;
}

export interface LegResult {
  /** Somebody has to go on: tasks are left, claimable now or later. */
  readonly workLeft: boolean;
  /** Tasks that this leg finished. */
  readonly tasks: number;
}

/** Longer than a batch of chunks takes with a slow store; a killed worker's task waits so long for the next. */
const defaultLeaseSeconds = 90;

/**
 * One leg at a time in an isolate: memory and CPU are counted for one. A failed task is given back with its error, which
 * may end the run; the run's row says how it ended. Throws only what keeps it from working at all: no database, no
 * schema, no run.
 */
export async function runLeg(deps: BackupDeps, options: LegOptions): Promise<LegResult> {
  const connection = await openSession(deps.database, "holdfast:leg");
  try {
    const worker = new LegWorker(deps, connection, options);
    let tasks = 0;
    while (!(tasks > 0 && options.budget.spent()) && options.signal?.aborted !== true) {
      const task = await claimTask(connection, options.run, options.worker, worker.leaseSeconds);
      if (task === null) break;
      deps.log.step("chunk.claimed", { task: task.id, kind: task.kind });
      await worker.attend(task);
      tasks++;
    }
    return { workLeft: await hasWork(connection, options.run), tasks };
  } finally {
    await connection.close();
  }
}

class LegWorker {
  readonly leaseSeconds: number;
  readonly #deps: BackupDeps;
  readonly #connection: Connection;
  readonly #options: LegOptions;
  readonly #buffer = new ChunkBuffer();
  #view: View | null = null;

  constructor(deps: BackupDeps, connection: Connection, options: LegOptions) {
    this.#deps = deps;
    this.#connection = connection;
    this.#options = options;
    this.leaseSeconds = options.leaseSeconds ?? defaultLeaseSeconds;
  }

  /** Does the task or gives it back with its failure. A lost lease is somebody else's task now. */
  async attend(task: Task): Promise<void> {
    try {
      await this.#do(task);
    } catch (error) {
      const failure = asHoldfastError(error);
      this.#deps.log.warn("task.failed", {
        task: task.id,
        kind: task.kind,
        code: failure.code,
        message: failure.message,
      });
      if (failure.code === "lease_lost") return;
      // A session that is lost cannot give anything back: the lease runs out.
      await returnTask(this.#connection, task, failure).catch((second: unknown) => {
        if (second instanceof HoldfastError && second.code === "lease_lost") return;
        throw failure;
      });
    }
  }

  async #do(task: Task): Promise<void> {
    const connection = this.#connection;
    if (task.kind === "plan") {
      const place = await settlePlace(this.#deps, connection);
      const deps = { ...this.#deps, store: place.store };
      return await doPlan({
        deps,
        connection,
        epoch: await newestEpoch(deps),
        storePrefix: place.prefix,
        limits: this.#options.limits,
        keeper: this.#options.keeper ?? defaultKeeperOptions,
        budget: this.#options.budget,
        leaseSeconds: this.leaseSeconds,
      }, task);
    }
    const view = await this.#viewOf(task);
    switch (task.kind) {
      case "chunks":
        return await doChunks({
          connection,
          ...view,
          buffer: this.#buffer,
          limits: this.#options.limits,
          budget: this.#options.budget,
          leaseSeconds: this.leaseSeconds,
          progress: this.#options.progress ?? (() => {}),
        }, task);
      case "look":
        return await lookAtCopies({ connection, store: view.deps.store, budget: this.#options.budget }, task);
      case "files":
        return await this.#copyFiles(view, task);
      case "counts":
        return await doCounts({ connection, ...view }, task);
      case "manifest":
        return await doManifest({ unplaced: this.#deps, connection, ...view }, task);
      case "verify":
      case "replicate":
        throw new HoldfastError("internal", `a ${task.kind} task was given to a backup leg`);
    }
  }

  async #copyFiles(view: View, task: Task): Promise<void> {
    const connection = this.#connection;
    const { deps: { files }, deps, epoch } = view;
    if (files === null || files === undefined) {
      throw new HoldfastError(
        "setting_missing",
        "this worker does not know the project's Storage, which the run reads",
      );
    }
    // Nothing needs the snapshot any more: a large file must not keep its locks.
    if (!view.settled) {
      if (await definitionsNow(connection) !== view.fingerprint) {
        throw new HoldfastError("catalog_changed", "definitions changed while the backup ran");
      }
      await new FileTask(connection, task).settle();
      view.settled = true;
    }
    await copyFiles({
      deps,
      files,
      connection,
      epoch,
      budget: this.#options.budget,
      leaseSeconds: this.leaseSeconds,
      fileBytesAtOnce: this.#options.limits.fileBytesAtOnce,
      progress: this.#options.progress ?? (() => {}),
    }, task);
  }

  /** Read once an attempt. */
  async #viewOf(task: Task): Promise<View> {
    if (this.#view?.attempt === task.attempt) return this.#view;
    const run = await readRun(this.#connection, task.run);
    if (run.snapshotName === null || run.epoch === null) {
      throw new HoldfastError("keeper_lost", "the run has no snapshot");
    }
    const { storePrefix } = run;
    const { prefix, adopting } = await readIdentity(this.#connection);
    if (prefix !== storePrefix || adopting) throw placeChanged("the database writes elsewhere than the run began to");
    const deps = { ...this.#deps, store: placeIn(this.#deps.store, storePrefix) };
    this.#view = {
      deps,
      storePrefix,
      attempt: task.attempt,
      snapshotName: run.snapshotName,
      fingerprint: run.fingerprint,
      settled: run.settledAt !== null,
      tables: await readRunTables(this.#connection, task.run),
      epoch: await epochOfRun(deps, run.epoch),
    };
    return this.#view;
  }
}

/** What all tasks of an attempt share. */
interface View {
  /** With the store below the run's prefix. */
  readonly deps: BackupDeps;
  readonly storePrefix: string;
  readonly attempt: number;
  readonly snapshotName: string;
  readonly fingerprint: string | null;
  /** See `RunRow.settledAt`. */
  settled: boolean;
  readonly tables: ReadonlyMap<string, RunTable>;
  readonly epoch: Epoch;
}
