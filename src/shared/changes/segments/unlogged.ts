/** Did definitions change while nobody logged it? Pure. */
import type { SegmentHeader } from "./segment.ts";
import type { Obstacle } from "../plan/survey.ts";

/**
 * The first place behind `since` (the full backup's moment) where the tables' columns are not what they were, and the event
 * triggers that log such changes were missing or switched off before or after it. While they are on, a hash that differs says
 * nothing: a drain that is behind looks at columns whose change stands in a later segment. Null: none. Headers without a
 * hash tell nothing. Triggers that were switched off and on again between two segments are not noticed.
 */
export function unloggedDefinitions(headers: readonly SegmentHeader[], since: string): Obstacle | null {
  for (const [index, header] of headers.entries()) {
    const [was, is] = [headers[index - 1]?.definitions, header.definitions];
    if (was === undefined || is === undefined || was.hash === is.hash || header.takenAt <= since) continue;
    if (was.logged && is.logged) continue;
    return {
      what: "a change of definitions",
      lsn: header.startLsn,
      at: header.takenAt,
      why: "the event triggers that log definitions are missing or switched off",
    };
  }
  return null;
}
