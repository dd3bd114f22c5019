import type { Collected } from "./collect.ts";

/** What was taken from the slot or the spool for one segment. */
export interface Taken {
  readonly records: Uint8Array;
  readonly facts: Collected;
  readonly endLsn: bigint;
  readonly part: number;
  readonly endsInTransaction: boolean;
  /** The last row of the spool that is in it; null: it came from the slot. */
  readonly spoolPosition: string | null;
  /** Nothing durable lies behind it. */
  readonly isEnd: boolean;
}
