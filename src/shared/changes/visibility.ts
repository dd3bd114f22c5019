import { HoldfastError } from "../errors.ts";

/** What a snapshot sees, from the text of `pg_current_snapshot()`: `xmin:xmax:in,progress`. */
export interface SnapshotView {
  /** Did the transaction commit before the snapshot was taken, given that it committed at all? Full 64 bits. */
  sees(xid: bigint): boolean;
  readonly xmin: bigint;
}

export function snapshotView(text: string): SnapshotView {
  const found = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text);
  if (found === null) throw new HoldfastError("manifest_damaged", "the manifest's snapshot cannot be read");
  const xmin = BigInt(found[1] ?? "");
  const xmax = BigInt(found[2] ?? "");
  const running = new Set((found[3] ?? "").split(",").filter((one) => one !== "").map(BigInt));
  return { xmin, sees: (xid) => xid < xmax && !running.has(xid) };
}

/** The 64-bit id of a transaction of which the stream tells the lower half, near and below `nextXid`. */
export function widenXid(xid: number, nextXid: bigint): bigint {
  const high = nextXid >> 32n << 32n;
  const wide = high | BigInt(xid);
  return wide >= nextXid && high > 0n ? wide - (1n << 32n) : wide;
}
