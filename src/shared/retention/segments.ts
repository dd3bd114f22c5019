/** Which segments of a chain restores to moments may read. Pure. */
import { marginSegments } from "../changes/segments/chain_reader.ts";
import type { KnownBackup, KnownChain, KnownSegment, Moment, SnapshotPlace } from "./facts.ts";

/**
 * Index of the first segment that is kept; all behind it are kept as well, since a chain is replayed without a hole. `needing`: backups
 * of the chain that restores begin with; `places`: snapshots of every backup on it; `from`: the window's beginning.
 */
export function keptSegments(
  chain: KnownChain,
  needing: readonly KnownBackup[],
  places: readonly SnapshotPlace[],
  from: Moment,
): number {
  const { segments, isOpen } = chain;
  // A full backup on it may still come, or be read by somebody: what is open is given up by its guard alone.
  if (isOpen && needing.length === 0) return 0;
  const known = [...places, ...chain.formerSnapshots];
  const within = segments.findIndex(({ takenAt }) => takenAt >= from);
  const firsts = [
    within < 0 ? segments.length : within,
    isOpen ? Math.max(0, segments.length - 1) : segments.length,
    ...needing.map((backup) => reachOf(segments, backup, known)),
  ];
  return wholeTransaction(segments, Math.min(...firsts));
}

/**
 * Where a restore that begins with the backup may begin to read: a few segments before its position; where transactions were under
 * way in its snapshot, back to before the oldest of them began, since labels of enums may have been renamed while they wrote; and far
 * enough that two segments were taken before its moment, by which the counters of tables without an identity are compared.
 */
function reachOf(segments: readonly KnownSegment[], backup: KnownBackup, known: readonly SnapshotPlace[]): number {
  const { snapshot, consistentAt } = backup;
  const margin = marginBefore(segments, snapshot.lsn);
  const before = segments.flatMap(({ takenAt, end }, index) =>
    takenAt < consistentAt && end <= snapshot.lsn ? [index] : []
  );
  const counted = before.at(-2) ?? 0;
  return Math.min(margin, counted, oldestTransaction(segments, snapshot, known));
}

/** Everything that was under way then began behind the newest snapshot in which all older transactions were over. */
function oldestTransaction(
  segments: readonly KnownSegment[],
  snapshot: SnapshotPlace,
  known: readonly SnapshotPlace[],
): number {
  if (snapshot.xmin === snapshot.xmax) return segments.length;
  const earlier = known.filter(({ xmax, lsn }) => xmax <= snapshot.xmin && lsn <= snapshot.lsn);
  if (earlier.length === 0) return 0;
  return marginBefore(segments, earlier.reduce((newest, { lsn }) => lsn > newest ? lsn : newest, 0n));
}

function marginBefore(segments: readonly KnownSegment[], lsn: bigint): number {
  const holding = segments.findIndex(({ end }) => end > lsn);
  const index = (holding < 0 ? segments.length : holding) - marginSegments;
  return wholeTransaction(segments, Math.max(0, index));
}

/** A later part of a transaction cannot be read without the first. */
function wholeTransaction(segments: readonly KnownSegment[], index: number): number {
  let first = index;
  while (first < segments.length && first > 0 && (segments[first]?.part ?? 0) > 0) first--;
  return first;
}
