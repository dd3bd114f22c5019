/** Which tables a stretch of the stream does not carry whole. Pure. */
import type { Manifest } from "../../format/manifest.ts";
import { quoteQualified } from "../../schema/quote.ts";
import { parseLsn } from "../decode/lsn.ts";
import type { SegmentHeader } from "./segment.ts";
import { snapshotView } from "./visibility.ts";

type Uncovered = SegmentHeader["uncovered"][number];

/** A table in a segment's list: by its oid, and by name where the list has none. */
export type ListedTable = Pick<Uncovered, "oid" | "schema" | "name">;

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
export function uncoveredTables(
  headers: readonly SegmentHeader[],
  since: string,
): (UncoveredTable & ListedTable)[] {
  const found = new Map<string, UncoveredTable & ListedTable>();
  const before = new Map<string, { readonly counted: number; readonly file: number | undefined }>();
  for (const [index, header] of headers.entries()) {
    const here = new Set<string>();
    const isRecounted = header.countedSince !== (headers[index - 1] ?? header).countedSince;
    for (const table of header.uncovered) {
      const key = keyOf(table);
      here.add(key);
      const counted = unseen(table);
      // A table that was not listed before was covered, or not there: its counters begin to matter now. One that was made
      // anew is another, whatever its name.
      const known = before.get(key);
      const baseline = index === 0 && header.takenAt <= since ? counted : known?.counted ?? 0;
      const isAnew = known !== undefined && (isRecounted || known.file !== table.file);
      if (counted !== baseline || isAnew) {
        found.set(key, listed(table));
      }
      before.set(key, { counted, file: table.file });
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
export function unsettledTables(
  last: SegmentHeader | undefined,
  point: string | null,
): (UnsettledTable & ListedTable)[] {
  if (last === undefined) return [];
  const settled = point !== null && last.countedUntil != null && last.countedUntil > point;
  return settled ? [] : last.uncovered.map((table) => ({ ...listed(table), before: "point" }));
}

/**
 * Tables that a header lists and the next one does not: they got an identity, or are gone. What was counted late is in no
 * list. `namesOf`: what a listed table is called at the point.
 */
export function leftTables(
  headers: readonly SegmentHeader[],
  namesOf: (listed: ListedTable) => readonly string[],
): string[] {
  const names = headers.map(({ uncovered }) => new Set(uncovered.flatMap(namesOf)));
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

function keyOf({ oid, schema, name }: ListedTable): string {
  return oid === undefined ? JSON.stringify([schema, name]) : String(oid);
}

function listed({ oid, schema, name, reason }: Uncovered): UncoveredTable & ListedTable {
  return { oid, schema, name, reason };
}

/** Changes that the stream would not have shown. */
function unseen(table: Uncovered): number {
  const kept = table.updated + table.deleted;
  return table.missing === "everything" ? kept + table.inserted : kept;
}
