/** How far sequences had come while a stretch of the stream was taken. Pure. */
import type { SegmentHeader } from "./segment.ts";

/** The least and the greatest of each: which of them is ahead depends on the sequence's direction. */
export function furthestValues(headers: readonly SegmentHeader[]): SegmentHeader["sequences"] {
  type Standing = SegmentHeader["sequences"][number];
  const ends = new Map<string, { least: Standing; greatest: Standing }>();
  for (const standing of headers.flatMap((header) => header.sequences)) {
    const key = JSON.stringify([standing.schema, standing.name]);
    const known = ends.get(key);
    const value = BigInt(standing.lastValue);
    if (known === undefined) ends.set(key, { least: standing, greatest: standing });
    // Of equal values the one that was handed out counts.
    else if (value < BigInt(known.least.lastValue) || (value === BigInt(known.least.lastValue) && standing.isCalled)) {
      ends.set(key, { ...known, least: standing });
    }
    const now = ends.get(key);
    const isGreater = now !== undefined && (value > BigInt(now.greatest.lastValue) ||
      (value === BigInt(now.greatest.lastValue) && standing.isCalled));
    if (isGreater) ends.set(key, { ...now, greatest: standing });
  }
  return [...ends.values()].flatMap(({ least, greatest }) => least === greatest ? [greatest] : [least, greatest]);
}
