/** Drains of the change stream by this process, from --db-url to --store. */
import { unlimited } from "../shared/backup/budget.ts";
import type { BackupDeps } from "../shared/backup/deps.ts";
import { drain, type DrainedSegment, type DrainResult, processDrainLimits } from "../shared/changes/drain/drain.ts";
import { toHex } from "../shared/crypto/digest.ts";
import { HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import type { Context } from "./context.ts";
import { keyRing, sourceDatabase } from "./open.ts";
import { openStore } from "./open_store.ts";

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
  readonly #signal: AbortSignal;

  private constructor(deps: BackupDeps, signal: AbortSignal) {
    this.deps = deps;
    this.#worker = `cli:${toHex(deps.random(4))}`;
    this.#signal = signal;
  }

  /** Errors: those of settings. */
  static async open(context: Context): Promise<DirectDrain> {
    const { clock, random, log, signal } = context;
    const database = await sourceDatabase(context);
    const store = await openStore(context);
    const ring = await keyRing(context.settings);
    return new DirectDrain({ database, store, ring, compressor: await loadZstd(), clock, random, log }, signal);
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
      return { outcome: "busy", chain: null, begun: false, gap: null, segments: [], coveredUntil: null };
    }
  }
}

/** What people are told of a drain that did not simply go on. */
export function noteOfChain(context: Pick<Context, "note">, { begun, gap }: DrainResult): void {
  if (gap !== null) context.note(`warning: the change stream was interrupted: ${gap}`);
  if (!begun) return;
  context.note("notice: the change stream begins here; it is of use once a full backup is taken: `holdfast create`");
}
