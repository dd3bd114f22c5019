import { HoldfastError } from "../../errors.ts";
import type { Lsn } from "../decode/messages.ts";

/** `PGCOPY\n\xff\r\n\0`, no flags, no extension: the only beginning that a server writes. */
const header = Uint8Array.of(0x50, 0x47, 0x43, 0x4f, 0x50, 0x59, 0x0a, 0xff, 0x0d, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0);
const countBytes = 2;
/** The count, the whole of `lsn` and `xid`, and the length of `data`. */
const rowHeadBytes = 26;
/** The server makes no larger value (MaxAllocSize). */
const longestData = 0x3fffffff;
/** A buffer that grew past this for one row is given back after it. */
const keptBytes = 1 << 20;

/** The position and transaction id (its lower 32 bits) of a message, and the message, in a view valid during the call. */
export type OnPeeked = (lsn: Lsn, xid: number, data: Uint8Array) => void;

/**
 * Takes apart `COPY (select lsn, xid, data from pg_catalog.pg_logical_slot_peek_binary_changes(…)) TO STDOUT (FORMAT binary)`,
 * which comes in pieces of any size. A row that is whole in a piece is not copied; of one that is not, only its bytes are.
 * Memory: the largest broken row, at most 1 GiB, taken as its bytes come and not as its length says.
 *
 * Anything else than such a stream is `database_failed`. A throw, the callback's too, ends the use of the reader.
 */
export class PeekReader {
  readonly #onPeeked: OnPeeked;
  #stage: "header" | "rows" | "ended" = "header";
  /** The beginning of a row (or the header) whose end is still to come. */
  #kept = new Uint8Array(4096);
  #fill = 0;
  #busy = false;

  constructor(onPeeked: OnPeeked) {
    this.#onPeeked = onPeeked;
  }

  /** The next bytes; the view may be lent. */
  push(piece: Uint8Array): void {
    this.#enter();
    let at = 0;
    while (this.#fill > 0 && at < piece.length) {
      const need = this.#need(this.#kept, 0, this.#fill);
      const end = Math.min(piece.length, at + need - this.#fill);
      this.#keep(piece, at, end, need);
      at = end;
      if (this.#fill < this.#need(this.#kept, 0, this.#fill)) continue;
      const whole = this.#fill;
      this.#fill = 0;
      this.#take(this.#kept, 0, whole);
      if (this.#kept.length > keptBytes) this.#kept = new Uint8Array(4096);
    }
    while (at < piece.length) {
      const need = this.#need(piece, at, piece.length - at);
      if (need > piece.length - at) {
        this.#keep(piece, at, piece.length, need);
        break;
      }
      this.#take(piece, at, need);
      at += need;
    }
    this.#busy = false;
  }

  /** No more bytes come. `database_failed` when the stream's own end was not among them. */
  end(): void {
    this.#enter();
    if (this.#stage !== "ended") throw broken("stopped before its end");
    this.#busy = false;
  }

  #enter(): void {
    if (this.#busy) throw new HoldfastError("internal", "a reader of changes is used again after it failed");
    this.#busy = true;
  }

  /** How long the unit at `at` is, as far as its first `have` bytes say: it is whole when that is at most `have`. */
  #need(bytes: Uint8Array, at: number, have: number): number {
    if (this.#stage === "header") return header.length;
    if (this.#stage === "ended") throw broken("goes on after its end");
    if (have < countBytes) return countBytes;
    const fields = (byteAt(bytes, at) << 8) | byteAt(bytes, at + 1);
    if (fields === 0xffff) return countBytes;
    if (fields !== 3) throw broken("has a row without three fields");
    if (have < rowHeadBytes) return rowHeadBytes;
    const length = int32(bytes, at + 22);
    if (int32(bytes, at + 2) !== 8 || int32(bytes, at + 14) !== 4 || length < 0 || length > longestData) {
      throw broken("has a field of another length than its type");
    }
    return rowHeadBytes + length;
  }

  #take(bytes: Uint8Array, at: number, length: number): void {
    if (this.#stage === "header") {
      if (!header.every((byte, index) => bytes[at + index] === byte)) throw broken("does not begin like one");
      this.#stage = "rows";
    } else if (length === countBytes) {
      this.#stage = "ended";
    } else {
      const lsn = (BigInt(int32(bytes, at + 6) >>> 0) << 32n) | BigInt(int32(bytes, at + 10) >>> 0);
      this.#onPeeked(lsn, int32(bytes, at + 18) >>> 0, bytes.subarray(at + rowHeadBytes, at + length));
    }
  }

  #keep(bytes: Uint8Array, from: number, to: number, need: number): void {
    const fill = this.#fill + to - from;
    if (fill > this.#kept.length) {
      const larger = new Uint8Array(Math.max(fill, Math.min(need, this.#kept.length * 2)));
      larger.set(this.#kept.subarray(0, this.#fill));
      this.#kept = larger;
    }
    this.#kept.set(bytes.subarray(from, to), this.#fill);
    this.#fill = fill;
  }
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}

function int32(bytes: Uint8Array, at: number): number {
  return (byteAt(bytes, at) << 24) | (byteAt(bytes, at + 1) << 16) | (byteAt(bytes, at + 2) << 8) |
    byteAt(bytes, at + 3);
}

function broken(why: string): HoldfastError {
  return new HoldfastError("database_failed", `the server's stream of changes ${why}`, {
    hint: "Run it again; if it comes back, look at what is between Holdfast and the server.",
    retry: "backoff",
  });
}
