/** Drains of the change stream by this process, from --db-url to --store. */
import { readUncovered, uncoveredReasons } from "../shared/monitor/uncovered.ts";
import { type Budget, budgetOf, unlimited } from "../shared/backup/budget.ts";
import type { BackupDeps } from "../shared/backup/deps.ts";
import {
  busyDrain,
  drain,
  type DrainedSegment,
  type DrainResult,
  processDrainLimits,
} from "../shared/changes/drain/drain.ts";
import { toHex } from "../shared/crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { openProjectFiles } from "../shared/files/project_files.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { projectOfAddress, readDatabaseUrl } from "../shared/postgres/database_url.ts";
import type { Context } from "./context.ts";
import { keyRing, sourceDatabase } from "./open.ts";
import { openPlace, placeToWrite, projectStorage } from "./open_store.ts";

/** Each byte is held some six times. */
const fileBytesAtOnce = 16 * 1024 * 1024;
const filesMs = 15_000;

export interface Drained {
  segments: number;
  transactions: number;
  changes: number;
  storedBytes: number;
}

export class DirectDrain {
  /** All that was stored by this process. */
  readonly total: Drained = { segments: 0, transactions: 0, changes: 0, storedBytes: 0 };
  readonly deps: BackupDeps;
  readonly #worker: string;
  readonly #project: string | null;
  readonly #signal: AbortSignal;

  private constructor(deps: BackupDeps, project: string | null, signal: AbortSignal) {
    this.deps = deps;
    this.#worker = `cli:${toHex(deps.random(4))}`;
    this.#project = project;
    this.#signal = signal;
  }

  /** Errors: those of settings. */
  static async open(context: Context): Promise<DirectDrain> {
    const { clock, random, log, signal } = context;
    const database = await sourceDatabase(context);
    const store = await openPlace(context, placeToWrite(context.settings));
    const ring = await keyRing(context.settings);
    const project = projectStorage(context.settings);
    const files = project === null ? null : openProjectFiles(project, (input, init) => fetch(input, init));
    const deps = { database, store, files, ring, compressor: await loadZstd(), clock, random, log };
    return new DirectDrain(deps, projectOfAddress(readDatabaseUrl(context.settings.need("db-url"))), signal);
  }

  /**
   * One drain, to the end unless it is cancelled. Another drainer that has the slot, or took the lease over, is `busy`.
   * Errors: those of `drain`.
   */
  async once(
    options: { readonly idleSeconds?: number; readonly onSegment?: (segment: DrainedSegment) => void } = {},
  ): Promise<DrainResult> {
    try {
      return await drain(this.deps, {
        ...options,
        worker: this.#worker,
        budget: unlimited,
        limits: processDrainLimits,
        files: { bytesAtOnce: fileBytesAtOnce, afterRecords: Infinity, budget: this.#fileBudget() },
        projectRef: this.#project,
        signal: this.#signal,
        onSegment: (segment) => {
          this.total.segments++;
          this.total.transactions += segment.transactions;
          this.total.changes += segment.changes;
          this.total.storedBytes += segment.storedBytes;
          options.onSegment?.(segment);
        },
      });
    } catch (error) {
      const isTaken = error instanceof HoldfastError && (error.code === "stream_busy" || error.code === "lease_lost");
      if (!isTaken) throw error;
      return busyDrain;
    } finally {
      await this.#guard();
    }
  }

  /** A large file keeps the stream waiting for so long at most; it goes on with its next part. */
  #fileBudget(): Budget {
    return budgetOf({ cpuMs: Infinity, wallMs: filesMs, usedCpuMs: 0 }, this.deps.clock);
  }

  /** Where there is no pg_cron nobody else gives up a slot that holds back too much, as it does while drains fail. */
  async #guard(): Promise<void> {
    try {
      const session = await this.deps.database.connect("holdfast:guard");
      try {
        await session.query("select backup.guard_slot()");
      } finally {
        await session.close();
      }
    } catch (error) {
      this.deps.log.warn("slot.unguarded", { code: asHoldfastError(error).code });
    }
  }
}

const lackingFull = "what is stored now cannot be restored until a full backup is taken: `holdfast create`";

/** What people are told of a drain that did not simply go on; once a chain begins, also which tables it cannot carry. */
export async function noteOfChain(
  context: Pick<Context, "note">,
  database: Database,
  { begun, gap, lacksFull }: Pick<DrainResult, "begun" | "gap" | "lacksFull">,
): Promise<void> {
  if (gap !== null) context.note(`warning: the change stream was interrupted: ${gap}`);
  if (!begun) {
    if (lacksFull) context.note(`warning: ${lackingFull}`);
    return;
  }
  context.note("notice: the change stream begins here; it is of use once a full backup is taken: `holdfast create`");
  const session = await database.connect("holdfast:drain");
  try {
    for (const reason of uncoveredReasons(await readUncovered(session))) context.note(`warning: ${reason}`);
  } finally {
    await session.close();
  }
}
