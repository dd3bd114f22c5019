/** Did definitions change while nobody logged it? Pure. */
import type { SegmentHeader } from "./segment.ts";
import type { Obstacle } from "../plan/survey.ts";

type Definitions = NonNullable<SegmentHeader["definitions"]>;

export const unloggedWhat = "a change of definitions";
export const unloggedWhy = "the event triggers that log definitions are missing or switched off";

/**
 * The first place among these headers where definitions are not what they were, and the event triggers that log such changes
 * were missing or switched off before or after it. While they are on, a hash that differs says nothing: a drain that is
 * behind looks at columns whose change stands in a later segment. Null: none. Headers without a hash tell nothing. Triggers
 * that were switched off and on again between two segments are not noticed. `isWhole`: the first one was taken before the full
 * backup; else what changed until then is not known.
 */
export function unloggedDefinitions(headers: readonly SegmentHeader[], isWhole: boolean): Obstacle | null {
  const [first] = headers;
  if (!isWhole && first?.definitions?.logged === false) {
    return { what: unloggedWhat, lsn: first.startLsn, at: first.takenAt, why: unloggedWhy };
  }
  for (const [index, header] of headers.entries()) {
    const [was, is] = [headers[index - 1]?.definitions, header.definitions];
    if (was === undefined || is === undefined || !changedUnlogged(was, is)) continue;
    return { what: unloggedWhat, lsn: header.startLsn, at: header.takenAt, why: unloggedWhy };
  }
  return null;
}

/** `catalog` is there while the triggers are not: where they go or come, what changed right before is not known. */
export function changedUnlogged(was: Definitions, is: Definitions): boolean {
  return !(was.logged && is.logged) && (was.hash !== is.hash || was.catalog !== is.catalog);
}
