/** Locks against removal: what a place that has them does with what is put there. docs/decisions/0026-locks.md. */
import { prefixes, repositoryName } from "../format/layout.ts";

export type LockMode = "GOVERNANCE" | "COMPLIANCE";

/** `days` 0: nothing is locked by us, whatever the place can. */
export interface LockSettings {
  readonly days: number;
  readonly mode: LockMode;
}

/** Until when one object can be removed by nobody, as the place tells it. */
export interface Retention {
  /** As the server says it; null where it says none. */
  readonly mode: string | null;
  readonly until: Date;
}

/** A store's locks. Every call of it does nothing where the place turns out to have none. */
export interface StoreLock {
  /** For how long what is put is locked, and how; null: nothing is. The place is asked once. */
  inForce(): Promise<LockSettings | null>;
  /**
   * A later backup needs the object as well: its lock is made as long as a new one's, never shorter. Nothing is sent while
   * little of it has passed (`renewalMs`), and for names that are never locked. Errors: the store's, `object_missing`.
   */
  hold(name: string): Promise<void>;
  /** Null: it is not locked, or the place does not tell. Errors: the store's, `object_missing`. */
  retentionOf(name: string): Promise<Retention | null>;
  /**
   * Removes what the name held before it was replaced, where the place keeps versions. Errors: `store_denied` where an earlier one
   * stays.
   */
  forgetEarlier(name: string): Promise<void>;
}

/** Longer ones keep what erasure and retention have to be rid of after thirty days. */
export const mostLockDays = 29;
/** Two weeks in which somebody can notice a thief, and half of what is allowed. */
export const defaultLock: LockSettings = { days: 14, mode: "GOVERNANCE" };

const dayMs = 24 * 60 * 60 * 1000;

/** From now on. */
export function lockedUntil(now: Date, days: number): Date {
  return new Date(now.getTime() + days * dayMs);
}

/** A lock is renewed once so much of it has passed: 21 hours of two weeks, so that each daily backup renews it. */
export function renewalMs(days: number): number {
  return days * dayMs / 16;
}

const lockedPrefixes = [
  prefixes.objects,
  prefixes.blobs,
  prefixes.changes,
  prefixes.backups,
  prefixes.anchors,
  prefixes.erasures,
];

/** The name without the prefix that a copy of the project has in front of its own. */
export function nameInside(name: string): string {
  const at = name.search(/(?:^|\/)v1\//);
  return at > 0 ? name.slice(at + 1) : name;
}

/**
 * Backups, changes, anchors, the erasure ledger and the repository are locked. Never keys, which an epoch's end has to remove, nor claims, terms of
 * certificates and probes, which come and go.
 */
export function isLocked(name: string): boolean {
  const ours = nameInside(name);
  return ours === repositoryName || lockedPrefixes.some((prefix) => ours.startsWith(prefix));
}
