import type { Collector } from "./collect.ts";

/** Leaves out transactions whose end lies at or before what is recorded. */
export class RecordedFilter {
  /** The last commit that was left out. */
  lastCommit: { readonly endLsn: bigint } | null = null;
  readonly #recorded: bigint;
  readonly #collector: Collector;
  #skips = false;

  constructor(recorded: bigint, collector: Collector) {
    this.#recorded = recorded;
    this.#collector = collector;
  }

  add(lsn: bigint, xid: number, data: Uint8Array): void {
    const kind = data[0];
    // Begin: 'B', the position of the commit record. Segments end where records do, so it lies before their end or not.
    if (kind === 0x42) this.#skips = readLsn(data, 1) < this.#recorded;
    // Told once a session: what follows may need it.
    if (!this.#skips || kind === 0x52) return this.#collector.add(lsn, xid, data);
    if (kind === 0x43) {
      this.lastCommit = { endLsn: readLsn(data, 10) };
      this.#skips = false;
    }
  }
}

function readLsn(data: Uint8Array, at: number): bigint {
  return new DataView(data.buffer, data.byteOffset, data.byteLength).getBigUint64(at);
}
