import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { Compressor } from "../format/compressor.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import type { Store } from "../store/store.ts";

/** What a prune works with. The stores are those below the place where this database writes, wrapped in retrying(). */
export interface PruneDeps {
  /** In no transaction. */
  readonly connection: Connection;
  readonly first: Store;
  /** Null where there is none. */
  readonly second: Store | null;
  /** The first store as it is set. */
  readonly unplaced: Store;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface PruneOptions {
  /** Names the worker in `backup.tasks`; unique among those that work at the same time. */
  readonly worker: string;
  readonly budget: Budget;
  /** Ends the leg before its next step. */
  readonly signal?: AbortSignal;
  readonly progress?: (at: { readonly label: string; readonly done: number; readonly total: number }) => void;
}
