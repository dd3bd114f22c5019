/** Random places of a history to restore to, and which commits each of them holds. */
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import type { Ordered } from "./point_order.ts";
import type { Random } from "./point_random.ts";

/** What is restorable: from the first full backup to the end of what is stored. */
export interface Window {
  readonly fromLsn: bigint;
  readonly toLsn: bigint;
  /** Microseconds since 1970. */
  readonly fromAt: bigint;
  readonly toAt: bigint;
  /** Positions and moments of all full backups. */
  readonly fulls: readonly { readonly lsn: bigint; readonly at: bigint }[];
}

/** How many of the commits, in their order, a restore to the point has to hold. */
export function heldAt(order: readonly Ordered[], point: Point): number {
  const first = order.findIndex((commit) => {
    switch (point.by) {
      case "lsn":
        // Of a place in the midst of a record: the commit that begins before it belongs to it.
        return commit.startLsn >= point.lsn;
      case "time":
        return commit.at > point.at;
      case "before_xid":
        return BigInt(commit.xid) === point.xid;
      case "end":
        return false;
    }
  });
  return first < 0 ? order.length : first;
}

/** `near`: commits whose neighbourhood is chosen more often. */
export function randomPoint(
  random: Random,
  order: readonly Ordered[],
  window: Window,
  near: ReadonlySet<number>,
): Point {
  const inside = order.filter((commit) =>
    commit.startLsn > window.fromLsn && commit.endLsn <= window.toLsn && commit.at > window.fromAt
  );
  const marked = inside.filter(({ xid }) => near.has(xid));
  const commit = random.pick(marked.length > 0 && random.chance(0.3) ? marked : inside);
  switch (random.below(7)) {
    case 0:
      return { by: "lsn", lsn: window.fromLsn + random.belowBig(window.toLsn - window.fromLsn + 1n) };
    case 1:
      return { by: "lsn", lsn: random.chance(0.5) ? commit.startLsn : commit.endLsn };
    case 2:
      return { by: "time", at: window.fromAt + random.belowBig(window.toAt - window.fromAt + 1n) };
    case 3:
      return { by: "time", at: clamp(commit.at - BigInt(random.below(2)), window.fromAt, window.toAt) };
    case 4:
    case 5:
      return { by: "before_xid", xid: BigInt(commit.xid) };
    default: {
      const full = random.pick(window.fulls);
      const commits = inside.filter(({ startLsn }) => startLsn >= full.lsn).slice(0, 10);
      if (random.chance(0.3)) return { by: "time", at: clamp(full.at, window.fromAt, window.toAt) };
      return { by: "lsn", lsn: commits.length === 0 ? full.lsn : random.pick(commits).endLsn };
    }
  }
}

function clamp(value: bigint, least: bigint, most: bigint): bigint {
  return value < least ? least : value > most ? most : value;
}
