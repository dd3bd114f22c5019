/** What a drain is told, and what it tells. */
import type { Budget } from "../../backup/budget.ts";
import { functionLimits } from "../../backup/limits.ts";
import type { DrainedSegment } from "./segment_writer.ts";

export interface DrainLimits {
  /** Records of one segment. */
  readonly segmentBytes: number;
  /** Changes that the server decodes at once, to the next commit. */
  readonly peekChanges: number;
}

/** An isolate has 256 MB: records, their plaintext and the sealed copy are in memory at once. */
export const functionDrainLimits: DrainLimits = { segmentBytes: 8 * 1024 * 1024, peekChanges: 50_000 };
export const processDrainLimits: DrainLimits = { segmentBytes: 32 * 1024 * 1024, peekChanges: 400_000 };

/** How files are copied that the stream told of. */
export interface FileLimits {
  /** Content that is on its way at the same time. */
  readonly bytesAtOnce: number;
  /** Records stored by this drain above which files are left to the next: memory is not given back at once. */
  readonly afterRecords: number;
  /** Null: what the drain has left of its own. */
  readonly budget: Budget | null;
}

export const functionFileLimits: FileLimits = {
  bytesAtOnce: functionLimits.fileBytesAtOnce,
  afterRecords: 2 * 1024 * 1024,
  budget: null,
};

export interface DrainOptions {
  /** Names the drainer in `backup.drain`. */
  readonly worker: string;
  readonly budget: Budget;
  readonly limits: DrainLimits;
  readonly leaseSeconds?: number;
  /** A segment without a change is stored when the last one is older than this: it says that nothing happened. */
  readonly idleSeconds?: number;
  /** How long a user's transaction that holds a sequence or a table is waited for. Default 20 s, well inside of the lease. */
  readonly lockMs?: number;
  /** Where backups go in this project's own Storage; null or absent: they go elsewhere. */
  readonly ownBucket?: string | null;
  /** Where the function runs; null or absent: nobody knows. */
  readonly projectRef?: string | null;
  readonly signal?: AbortSignal;
  /** Default: those of a function. */
  readonly files?: FileLimits;
  /** Called for each segment that was recorded. */
  readonly onSegment?: (segment: DrainedSegment) => void;
}

export interface DrainResult {
  /** `caught_up`: all that was durable when it began is stored, and the files that it told of are copied, or wait for a later drain. */
  readonly outcome: "caught_up" | "work_left" | "busy";
  readonly chain: string | null;
  /** A chain was begun: without a new full backup nothing of it can be restored. */
  readonly begun: boolean;
  /** Why the chain before it ended. */
  readonly gap: string | null;
  /** No full backup is on the chain behind all that cannot be replayed, nor under way: its end cannot be restored. */
  readonly lacksFull: boolean;
  readonly segments: readonly DrainedSegment[];
  /** Every commit before this moment is stored; null where the end was not reached. */
  readonly coveredUntil: string | null;
}

/** Another drainer is at work. */
export const busyDrain: DrainResult = {
  outcome: "busy",
  chain: null,
  begun: false,
  gap: null,
  lacksFull: false,
  segments: [],
  coveredUntil: null,
};
