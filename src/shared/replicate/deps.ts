import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { Compressor } from "../format/compressor.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Secondary } from "../store/secondary.ts";
import type { Store } from "../store/store.ts";

/** What a replication works with. Both stores are wrapped in retrying(). */
export interface ReplicateDeps {
  /** In no transaction. */
  readonly connection: Connection;
  /** The store that backups are written to. */
  readonly first: Store;
  readonly second: Secondary;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ReplicateOptions {
  /** Names the worker in `backup.tasks`; unique among those that work at the same time. */
  readonly worker: string;
  readonly budget: Budget;
  /** Sealed bytes of objects that are copied at the same time; a larger one goes alone. Default 8 MiB. */
  readonly bytesAtOnce?: number;
  /** Ends the leg before its next object. */
  readonly signal?: AbortSignal;
  /** Called for each object that stands in the second store now. */
  readonly progress?: (copied: { readonly name: string; readonly bytes: number }) => void;
}
