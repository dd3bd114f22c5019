/** Which tables a stretch of the stream does not carry whole. Pure. */
import type { SegmentHeader } from "./segment.ts";

type Uncovered = SegmentHeader["uncovered"][number];

export interface UncoveredTable {
  readonly schema: string;
  readonly name: string;
  readonly reason: string;
}

/**
 * Tables that may have changed unseen between the first and the last of these headers, by the server's own counters: a
 * table that nobody touched is covered however little of it is published. Counters that went back were reset, and say
 * nothing, so the table is named. `headers` end behind the target where there is such a segment. `since`: the moment of the full backup, ISO 8601;
 * where the first header was taken later, all that its counters say may have happened unseen in between.
 */
export function uncoveredTables(headers: readonly SegmentHeader[], since: string): UncoveredTable[] {
  const found = new Map<string, UncoveredTable>();
  const before = new Map<string, number>();
  for (const [index, header] of headers.entries()) {
    const here = new Set<string>();
    for (const table of header.uncovered) {
      const key = JSON.stringify([table.schema, table.name]);
      here.add(key);
      const counted = unseen(table);
      // A table that was not listed before was covered, or not there: its counters begin to matter now.
      const known = before.get(key) ?? 0;
      const baseline = index === 0 && header.takenAt <= since ? counted : known;
      if (counted !== baseline) {
        found.set(key, { schema: table.schema, name: table.name, reason: table.reason });
      }
      before.set(key, counted);
    }
    for (const key of before.keys()) if (!here.has(key)) before.delete(key);
  }
  return [...found.values()];
}

/** Changes that the stream would not have shown. */
function unseen(table: Uncovered): number {
  const kept = table.updated + table.deleted;
  return table.missing === "everything" ? kept + table.inserted : kept;
}
