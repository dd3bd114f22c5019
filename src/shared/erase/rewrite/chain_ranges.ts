/** The segments of a chain in the order in which they are rewritten. Pure. */
import type { ListedSegment } from "../../changes/segments/chain_reader.ts";
import { parseSegmentName, type SegmentName } from "../../format/layout.ts";

/** Parts of one range. So many of the first are done; what tables the others speak of may be told by them alone. */
export interface RangeToRewrite {
  readonly names: readonly string[];
  readonly told: number;
}

/**
 * Ranges in which something is left to do. `after`: the last segment that was rewritten; it and all before it are done. Of two segments of
 * one start the shorter comes first.
 */
export function rangesToRewrite(
  segments: readonly ListedSegment[],
  after: string | null,
  isDone: (name: string) => boolean,
): RangeToRewrite[] {
  const last = after === null ? null : parseSegmentName(after);
  const passed = (one: ListedSegment) => (last !== null && order(one, last) <= 0) || isDone(one.name);
  const ranges = new Map<string, ListedSegment[]>();
  for (const segment of [...segments].sort(order)) {
    const key = `${segment.startLsn}-${segment.endLsn}`;
    ranges.set(key, [...ranges.get(key) ?? [], segment]);
  }
  return [...ranges.values()].flatMap((range) => {
    const first = range.findIndex((one) => !passed(one));
    return first < 0 ? [] : [{ names: range.map(({ name }) => name), told: first }];
  });
}

function order(a: SegmentName, b: SegmentName): number {
  if (a.startLsn !== b.startLsn) return a.startLsn < b.startLsn ? -1 : 1;
  if (a.endLsn !== b.endLsn) return a.endLsn < b.endLsn ? -1 : 1;
  return a.part - b.part;
}
