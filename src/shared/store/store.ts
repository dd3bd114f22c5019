/** What Holdfast needs of a place that keeps objects. `tests/contract/store.ts` holds every implementation to it. */
import type { StoreLock } from "./lock.ts";

/** One name in a listing. */
export interface StoredObject {
  /** Full name below the store's root, such as `v1/objects/ab/ab12…`. */
  readonly name: string;
  /** Size in bytes as the store reports it. */
  readonly size: number;
}

/**
 * An object store with create-only writes.
 *
 * Names are relative ASCII paths (`[A-Za-z0-9._-]+` parts joined by `/`, no part `.` or `..`, at most 900 characters);
 * anything else is `store_name_refused`. Errors: `store_unreachable`, `store_denied`, `store_missing`, `store_full`,
 * `store_read_only`, `store_lied`, `object_missing`, `object_conflict`. An implementation does not retry;
 * `retrying.ts` wraps any store for that.
 */
export interface Store {
  readonly kind: "file" | "s3" | "supabase-storage";
  /** For people and logs: where it is, never with a credential. */
  readonly label: string;
  /** Null: this kind of place locks nothing against removal. */
  readonly lock: StoreLock | null;

  /**
   * Creates `name` atomically: other readers see nothing or all of it, durable when the promise resolves.
   * `existed`: the name was taken and nothing was written; the caller reads and compares before it relies on it.
   */
  create(name: string, bytes: Uint8Array): Promise<"created" | "existed">;

  /** Creates or replaces. Only for what the format allows to be rewritten: `keys/` (see docs/format.md). */
  replace(name: string, bytes: Uint8Array): Promise<void>;

  /** The whole object, in a buffer of its own; `object_missing` when there is none. A cut body is `store_lied`. */
  read(name: string): Promise<Uint8Array>;

  /** Size of the object, or null when there is none. */
  size(name: string): Promise<number | null>;

  /** Every object whose name starts with `prefix`, each once, in no promised order. Complete, or it throws. */
  list(prefix: string): AsyncIterable<StoredObject>;

  /** Removes the names; those that are not there are no error. */
  remove(names: readonly string[]): Promise<void>;
}
