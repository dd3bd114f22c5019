/** Which tables a stretch of the stream does not carry whole. Pure. */
import type { Manifest } from "../../format/manifest.ts";
import { quoteQualified } from "../../schema/quote.ts";
import { parseLsn } from "../decode/lsn.ts";
import type { SegmentHeader } from "./segment.ts";
import { snapshotView } from "./visibility.ts";

type Uncovered = SegmentHeader["uncovered"][number];

export interface UncoveredTable {
  readonly schema: string;
  readonly name: string;
  readonly reason: string;
}

/**
 * Tables that may have changed unseen between the first and the last of these headers, by the server's own counters: a
 * table that nobody touched is covered however little of it is published. Counters that went back were reset, or began
 * anew after a crash, and say nothing, so the table is named. `headers` end behind the target where there is such a segment. `since`: the moment of the full backup, ISO 8601;
 * where the first header was taken later, all that its counters say may have happened unseen in between.
 */
export function uncoveredTables(headers: readonly SegmentHeader[], since: string): UncoveredTable[] {
  const found = new Map<string, UncoveredTable>();
  const before = new Map<string, number>();
  for (const [index, header] of headers.entries()) {
    const here = new Set<string>();
    const isRecounted = header.countedSince !== (headers[index - 1] ?? header).countedSince;
    for (const table of header.uncovered) {
      const key = JSON.stringify([table.schema, table.name]);
      here.add(key);
      const counted = unseen(table);
      // A table that was not listed before was covered, or not there: its counters begin to matter now.
      const known = before.get(key) ?? 0;
      const baseline = index === 0 && header.takenAt <= since ? counted : known;
      if (counted !== baseline || (isRecounted && before.has(key))) {
        found.set(key, { schema: table.schema, name: table.name, reason: table.reason });
      }
      before.set(key, counted);
    }
    for (const key of before.keys()) if (!here.has(key)) before.delete(key);
  }
  return [...found.values()];
}

/**
 * `headers` from the last one on that was taken before the full backup's snapshot: what happened until then is in the full.
 * `since` is that header's own moment, or before all moments where there is none. A clock that was moved back would show a
 * header before the full that was taken after it, so that the log and the transaction ids must say the same; counters that
 * were read while the full took its snapshot are of after it.
 */
export function sinceFull(
  headers: readonly SegmentHeader[],
  { consistentAt, snapshot }: Pick<Manifest, "consistentAt" | "snapshot">,
): { readonly headers: readonly SegmentHeader[]; readonly since: string } {
  const position = parseLsn(snapshot.walInsertLsn);
  const { xmax } = snapshotView(snapshot.text);
  const later = headers.findIndex((header) =>
    header.takenAt > consistentAt || parseLsn(header.endLsn) > position ||
    BigInt(header.countedNextXid ?? header.nextXid) >= xmax
  );
  const last = (later < 0 ? headers.length : later) - 1;
  return { headers: headers.slice(Math.max(0, last)), since: headers[last]?.takenAt ?? "" };
}

/** So long can it take until a session tells the server what it did (PGSTAT_MAX_INTERVAL). */
const countedAfterMs = 60_000;

/**
 * Of the tables in the last header those whose changes right before `point` (ISO 8601) the server may not have counted when
 * the header was written. Each of them is also in doubt where the header is of the point itself.
 */
export function unsettledTables(last: SegmentHeader | undefined, point: string | null): UncoveredTable[] {
  if (last === undefined) return [];
  const settled = point !== null && Date.parse(last.takenAt) - Date.parse(point) >= countedAfterMs;
  return settled ? [] : last.uncovered.map(({ schema, name, reason }) => ({ schema, name, reason }));
}

/** One line for all of them, for people; none where there are none. `chosen`: tables that the caller gave up. */
export function unsettledWarnings(tables: readonly UncoveredTable[], chosen: readonly string[]): string[] {
  const names = tables.map(({ schema, name }) => quoteQualified(schema, name)).filter((name) => !chosen.includes(name));
  if (names.length === 0) return [];
  return [
    `an update or delete in the minute before the moment may be missing in ${names.join(", ")}: without a usable ` +
    "replica identity only the server's counters tell of them, and those are late",
  ];
}

/** Changes that the stream would not have shown. */
function unseen(table: Uncovered): number {
  const kept = table.updated + table.deleted;
  return table.missing === "everything" ? kept + table.inserted : kept;
}
