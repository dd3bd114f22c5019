/** What a download is made of: bytes in steps, each of which says from where another process could go on. */
import type { z } from "zod";

/** Bytes of a download up to a place where it can be gone on with. */
export interface Step<M> {
  /** Each valid until the next is asked for. All of them have to be taken. */
  readonly pieces: Iterable<Uint8Array>;
  /** Rows in it, and bytes that were read for it: what it cost. */
  readonly rows: number;
  readonly read: number;
  /** To be asked for once the pieces were taken: where the next step begins. */
  mark(): M;
}

/** The same bytes each time, wherever the reading begins. */
export interface Contents<M = unknown> {
  /** Of the mark, as it comes out of the database. */
  readonly markSchema: z.ZodType<M>;
  /** For people: bytes of the file; what is converted is estimated. */
  readonly bytes: number;
  readonly isExact: boolean;
  /** How many files are in it. */
  readonly files: number;
  /** From the beginning, or from a mark. Errors: those of reading the backup. */
  steps(from: M | null): AsyncIterable<Step<M>>;
}
