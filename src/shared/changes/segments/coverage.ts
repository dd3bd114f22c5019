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

/** A table of which a change may be missing that the server had not counted. */
export interface UnsettledTable extends UncoveredTable {
  /** It was made shortly before the restore's point, or before the table got a replica identity. */
  readonly before: "point" | "identity";
}

/**
 * Of the tables in the last header those whose changes right before `point` (ISO 8601, to the microsecond) the server may not
 * have counted when the header was written. Each of them is also in doubt where the header is of the point itself.
 */
export function unsettledTables(last: SegmentHeader | undefined, point: string | null): UnsettledTable[] {
  if (last === undefined) return [];
  const settled = point !== null && last.countedUntil != null && last.countedUntil > point;
  return settled ? [] : last.uncovered.map(({ schema, name, reason }) => ({ schema, name, reason, before: "point" }));
}

/**
 * Tables that a header lists and the next one does not: they got an identity, or are gone. What was counted late is in no
 * list. `namesOf`: what a listed table is called at the point, by its name in a list.
 */
export function leftTables(
  headers: readonly SegmentHeader[],
  namesOf: (listed: string) => readonly string[],
): string[] {
  const names = headers.map(({ uncovered }) =>
    new Set(uncovered.flatMap(({ schema, name }) => namesOf(quoteQualified(schema, name))))
  );
  const left = names.flatMap((listed, index) => {
    const next = names[index + 1];
    return next === undefined ? [] : [...listed].filter((name) => !next.has(name));
  });
  return [...new Set(left)];
}

/** For people, a line each for the tables of one kind of doubt. `chosen`: tables that the caller gave up. */
export function unsettledWarnings(tables: readonly UnsettledTable[], chosen: readonly string[]): string[] {
  const namesOf = (kind: UnsettledTable["before"]) =>
    tables.filter(({ before }) => before === kind).map(({ schema, name }) => quoteQualified(schema, name))
      .filter((name) => !chosen.includes(name)).join(", ");
  const [point, identity] = [namesOf("point"), namesOf("identity")];
  return [
    ...point === "" ? [] : [
      `an update or delete right before the moment may be missing in ${point}: without a usable replica identity only ` +
      "the server's counters tell of them, and those are late by a minute, or by a session's transaction",
    ],
    ...identity === "" ? [] : [
      `an update or delete that another session made right before the table got its replica identity may be missing in ` +
      `${identity}: the server had not counted it yet. Certain is the state of a full backup`,
    ],
  ];
}

/** Changes that the stream would not have shown. */
function unseen(table: Uncovered): number {
  const kept = table.updated + table.deleted;
  return table.missing === "everything" ? kept + table.inserted : kept;
}
