import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { Compressor } from "../format/compressor.ts";
import type { ProjectFilesSettings } from "../files/project_files.ts";
import type { CheckOutcome } from "../jobs/check_queries.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Store } from "../store/store.ts";

/** What checks work with. The stores are those below the place where this database writes, wrapped in retrying(). */
export interface CheckDeps {
  /** In no transaction. */
  readonly connection: Connection;
  /** For a session of its own, where a check needs one. */
  readonly database: Database;
  readonly first: Store;
  /** Null where there is none. */
  readonly second: Store | null;
  /** The project's Storage; null or absent: this process does not know it. */
  readonly project?: CheckProject | null;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly clock: Clock;
  readonly log: Log;
}

export interface CheckProject extends ProjectFilesSettings {
  readonly fetch: Fetch;
}

export interface CheckOptions {
  /** Names the worker in `backup.tasks`; unique among those that work at the same time. */
  readonly worker: string;
  readonly budget: Budget;
  /** What of an object fits into this process. */
  readonly limits: OpenLimits;
  /** Ends the leg before its next step. */
  readonly signal?: AbortSignal;
  readonly progress?: (at: { readonly label: string; readonly done: number; readonly total: number }) => void;
}

export interface OpenLimits {
  /** A larger object is left to a process that has room for it. */
  readonly mostSealedBytes: number;
  /** One that unpacks to more is told by the hash of its sealed bytes alone. */
  readonly mostRawBytes: number;
  /** Objects at the same time, while they are no more than `mostSealedBytes` together. */
  readonly atOnce: number;
}

/** An isolate has 256 MB, of which some 100 are its own. */
export const functionOpenLimits: OpenLimits = {
  mostSealedBytes: 32 * 1024 * 1024,
  mostRawBytes: 64 * 1024 * 1024,
  atOnce: 1,
};

export const processOpenLimits: OpenLimits = {
  mostSealedBytes: 1_300 * 1024 * 1024,
  mostRawBytes: 1_300 * 1024 * 1024,
  atOnce: 4,
};

/** A store, and how what lies there is known. */
export interface PlacedStore {
  readonly store: Store;
  /** Objects and segments lie there in a layer whose key is offline: they are told by what was recorded of them. */
  readonly isSecond: boolean;
}

export function placesOf({ first, second }: Pick<CheckDeps, "first" | "second">): readonly PlacedStore[] {
  const places = [{ store: first, isSecond: false }];
  return second === null ? places : [...places, { store: second, isSecond: true }];
}

/** How far a step is: plain JSON, null before its begin, kept when its leg is over or has failed, so that the next one goes on there. */
export interface StepMemory {
  state: unknown;
}

/** Null: the budget is spent before the check is made. */
export type StepResult = CheckOutcome | null;

/** Problems that stand in an evidence by name; more are counted. */
export const namedProblems = 20;
