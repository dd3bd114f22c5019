/** A buffer that grows: what is written into it is given away in pieces, and its memory is used again. */

const firstBytes = 256 * 1024;

export class Sink {
  bytes = new Uint8Array(firstBytes);
  length = 0;

  /** From here on `more` bytes can be written at `length`. */
  room(more: number): void {
    if (this.length + more <= this.bytes.byteLength) return;
    const larger = new Uint8Array(Math.max(this.bytes.byteLength * 2, this.length + more));
    larger.set(this.bytes.subarray(0, this.length));
    this.bytes = larger;
  }

  /** `from` up to `to` of `source`, as they stand. The room is there. */
  copy(source: Uint8Array, from: number, to: number): void {
    // A loop is faster than a call for the few bytes that most fields have.
    if (to - from > 48) {
      this.bytes.set(source.subarray(from, to), this.length);
      this.length += to - from;
    } else for (let at = from; at < to; at++) this.bytes[this.length++] = source[at] ?? 0;
  }

  /** What was written, in a view that holds until the next write; the sink is empty then. */
  take(): Uint8Array {
    const taken = this.bytes.subarray(0, this.length);
    this.length = 0;
    return taken;
  }
}
