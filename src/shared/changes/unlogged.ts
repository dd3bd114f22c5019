/** Did definitions change without a row of the DDL log? Pure. */
import type { SegmentHeader } from "./segment.ts";
import type { Obstacle } from "./survey.ts";

/** Segments of one range: the parts of a large transaction share their moment. */
interface Range {
  readonly first: SegmentHeader;
  readonly last: SegmentHeader;
  readonly ddl: number;
}

/**
 * The first place behind `since` (the full backup's moment) where the tables' columns are not what they were, although the log
 * says nothing: event triggers that are missing or were switched off. A command can commit between a drain's end and its
 * look at the columns; then the next segment has its row. Null: none. Headers without a hash tell nothing.
 */
export function unloggedDefinitions(headers: readonly SegmentHeader[], since: string): Obstacle | null {
  const ranges = rangesOf(headers);
  for (const [index, range] of ranges.entries()) {
    const before = ranges[index - 1];
    const [was, is] = [before?.last.definitions, range.last.definitions];
    if (was === undefined || is === undefined || was.hash === is.hash || range.last.takenAt <= since) continue;
    const next = ranges[index + 1];
    if (is.logged && (range.ddl > 0 || next === undefined || next.ddl > 0)) continue;
    return {
      what: "a change of definitions",
      lsn: range.first.startLsn,
      at: range.last.takenAt,
      why: is.logged ? "it was not logged" : "the event triggers that log definitions are missing or switched off",
    };
  }
  return null;
}

function rangesOf(headers: readonly SegmentHeader[]): Range[] {
  const ranges: Range[] = [];
  for (const header of headers) {
    const before = ranges.at(-1);
    if (before !== undefined && header.part > 0) {
      ranges[ranges.length - 1] = { first: before.first, last: header, ddl: before.ddl + header.ddl };
    } else ranges.push({ first: header, last: header, ddl: header.ddl });
  }
  return ranges;
}
