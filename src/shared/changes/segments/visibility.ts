import { HoldfastError } from "../../errors.ts";

/** What a snapshot sees, from the text of `pg_current_snapshot()`: `xmin:xmax:in,progress`. */
export interface SnapshotView {
  /** Did the transaction commit before the snapshot was taken, given that it committed at all? Full 64 bits. */
  sees(xid: bigint): boolean;
  readonly xmin: bigint;
  /** The next transaction id when it was taken. */
  readonly xmax: bigint;
}

export function snapshotView(text: string): SnapshotView {
  const found = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text);
  if (found === null) throw new HoldfastError("manifest_damaged", "the manifest's snapshot cannot be read");
  const xmin = BigInt(found[1] ?? "");
  const xmax = BigInt(found[2] ?? "");
  const running = new Set((found[3] ?? "").split(",").filter((one) => one !== "").map(BigInt));
  return { xmin, xmax, sees: (xid) => xid < xmax && !running.has(xid) };
}

/**
 * The 64-bit id of a transaction of which the stream tells the lower half: the one nearest to `nextXid`. It can be ahead of
 * it, since a commit is in the log before a snapshot counts it.
 */
export function widenXid(xid: number, nextXid: bigint): bigint {
  const wide = nextXid + BigInt.asIntN(32, BigInt(xid) - nextXid);
  return wide < 0n ? BigInt(xid) : wide;
}
