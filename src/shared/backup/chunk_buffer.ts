const firstBytes = 5 * 1024 * 1024;

/** Thrown by `append` when a chunk has come to its cap. It never leaves this folder. */
export class CapReached extends Error {
  override readonly name = "CapReached";
}

/** The text of one or several chunks, one after the other, in memory that is used again for the next ones. */
export class ChunkBuffer {
  #bytes = new Uint8Array(firstBytes);
  #length = 0;
  #cap = 0;

  get length(): number {
    return this.#length;
  }

  /** Forgets everything. `cap`: most bytes until the next reset. */
  reset(cap: number): void {
    this.#length = 0;
    this.#cap = cap;
    // One huge row does not take its memory for ever.
    if (this.#bytes.length > Math.max(cap, firstBytes)) this.#bytes = new Uint8Array(firstBytes);
  }

  /** Forgets what was appended after `length`. */
  cutTo(length: number): void {
    this.#length = length;
  }

  append(view: Uint8Array): void {
    const needed = this.#length + view.length;
    if (needed > this.#cap) throw new CapReached();
    if (needed > this.#bytes.length) this.#grow(needed);
    this.#bytes.set(view, this.#length);
    this.#length = needed;
  }

  /** Valid until the next `reset` or `append`. */
  slice(from: number, to: number): Uint8Array {
    return this.#bytes.subarray(from, to);
  }

  #grow(needed: number): void {
    const larger = new Uint8Array(Math.min(Math.max(needed, this.#bytes.length * 2), Math.max(this.#cap, needed)));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}
