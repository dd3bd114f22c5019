/** Whether backups are as they should be, from what the database says. */
import { type StorePair, storeReasons } from "../shared/store/apart.ts";
import { amount, duration } from "./progress.ts";
import type { StreamFacts, StreamStop, UncoveredTable } from "./stream_facts.ts";

export interface Alert {
  readonly kind: string;
  readonly subject: string;
  readonly severity: "warning" | "critical";
  readonly message: string;
  readonly openedAt: string;
}

export interface StatusFacts {
  /** The moment that the newest backup which counts shows; null: there is none. */
  readonly lastBackupAt: string | null;
  /** Age of that moment by the database's clock. */
  readonly lastBackupAgeSeconds: number | null;
  /** Seconds between two scheduled fulls, with what the watchdog allows; null: nothing is scheduled here. */
  readonly expectedEverySeconds: number | null;
  /** All that are not resolved. */
  readonly alerts: readonly Alert[];
  /** The open chain; null: there is none. */
  readonly stream: StreamFacts | null;
  /** How the last chain ended, when none was begun after it. */
  readonly stopped: StreamStop | null;
  /** As the settings here have them. */
  readonly stores: StorePair;
}

export type Verdict = "ok" | "warning" | "critical";

const daySeconds = 86_400;
const graceSeconds = 2 * 3600;
/** The drain is due each minute. */
const lateSeconds = 300;

/**
 * `critical`: no backup, a newest one older than two expected intervals, or a critical alert. `warning`: older than one
 * expected interval, an alert of that severity, a change stream that is not well, or one store where there should be two.
 * Where nothing is scheduled, one backup a day is expected.
 */
export function verdictOf(facts: StatusFacts): { readonly verdict: Verdict; readonly reasons: readonly string[] } {
  const every = facts.expectedEverySeconds ?? daySeconds;
  const age = facts.lastBackupAgeSeconds;
  const found: [Verdict, string][] = facts.alerts.map((alert) => [alert.severity, `${alert.kind}: ${alert.message}`]);
  if (age === null) found.push(["critical", "there is no backup"]);
  else if (age > 2 * every + graceSeconds) found.push(["critical", "the newest backup is older than two intervals"]);
  else if (age > every + graceSeconds) found.push(["warning", "the newest backup is older than it should be"]);
  for (const reason of [...streamReasons(facts), ...storeReasons(facts.stores)]) found.push(["warning", reason]);
  const has = (verdict: Verdict) => found.some(([severity]) => severity === verdict);
  return {
    verdict: has("critical") ? "critical" : has("warning") ? "warning" : "ok",
    reasons: found.map(([, reason]) => reason),
  };
}

/** Age of the newest state that can be restored: that of the newest full, or of where its stream can be replayed to. */
export function recoveryPointOf({ lastBackupAgeSeconds, stream }: StatusFacts): number | null {
  if (lastBackupAgeSeconds === null) return null;
  const end = stream?.hasFull === true ? stream.lagSeconds : null;
  const lag = end === null ? null : Math.max(end, stream?.stuckSeconds ?? 0);
  return lag === null ? lastBackupAgeSeconds : Math.min(lastBackupAgeSeconds, lag);
}

function streamReasons({ stream, stopped }: StatusFacts): string[] {
  if (stopped !== null) {
    return [`the change stream ended at ${stopped.at} (${stopped.reason}): drain again, then take a full backup`];
  }
  if (stream === null) return [];
  const { chain, hasFull, failure, lagSeconds, retainedBytes, limitBytes, uncovered } = stream;
  const reasons: string[] = [];
  if (!hasFull) reasons.push(`nothing of the change stream can be restored: no full backup is on chain ${chain} yet`);
  if (failure !== null) reasons.push(`the last drain of the change stream failed: ${failure}`);
  if (lagSeconds === null) reasons.push("the change stream was never drained to its end");
  else if (lagSeconds > lateSeconds) {
    reasons.push(`the change stream was last drained to its end ${duration(lagSeconds * 1000)} ago`);
  }
  if (retainedBytes === null) reasons.push("the slot of the change stream is gone");
  else if (retainedBytes > limitBytes / 2) {
    reasons.push(
      `the slot holds back ${amount(retainedBytes, "bytes")} of WAL; at ${amount(limitBytes, "bytes")} it is given up`,
    );
  }
  return [...reasons, ...uncoveredReasons(uncovered)];
}

/** What to do about a table whose changes are not all in the stream. */
const remedies = {
  identity: "give each a primary key, or `alter table … replica identity full`",
  unlogged: "`alter table … set logged`, or live with the state of the full backup",
  unpublished: "the role that drains has to own them; inserts alone may be covered",
  rewritten: "a command wrote what the stream does not hold; take a full backup (`holdfast create`)",
} as const satisfies Record<UncoveredTable["why"], string>;
/** Names that are told; all are counted. */
const mostNames = 3;

export function uncoveredReasons(tables: readonly UncoveredTable[]): string[] {
  return uncoveredFindings(tables).map(({ found, remedy }) => `${found}: ${remedy}`);
}

/** By what is the matter with them, each with the way out. */
export function uncoveredFindings(
  tables: readonly UncoveredTable[],
): { readonly found: string; readonly remedy: string }[] {
  return Object.entries(remedies).flatMap(([why, remedy]) => {
    const names = tables.filter((table) => table.why === why).map(({ name, formerly }) =>
      formerly === undefined ? name : `${name} (formerly ${formerly})`
    );
    if (names.length === 0) return [];
    const more = names.length > mostNames ? ` and ${names.length - mostNames} more` : "";
    return [{ found: `changes of ${names.slice(0, mostNames).join(", ")}${more} are not all in the stream`, remedy }];
  });
}
