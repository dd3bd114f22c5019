/** Whether backups are as they should be, from what the database says. */

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
  readonly recoveryPointSeconds: number | null;
  /** Seconds between two scheduled fulls, with what the watchdog allows; null: nothing is scheduled here. */
  readonly expectedEverySeconds: number | null;
  /** All that are not resolved. */
  readonly alerts: readonly Alert[];
}

export type Verdict = "ok" | "warning" | "critical";

const daySeconds = 86_400;
const graceSeconds = 2 * 3600;

/**
 * `critical`: no backup, a newest one older than two expected intervals, or a critical alert. `warning`: older than one
 * expected interval, or an alert of that severity. Where nothing is scheduled, one backup a day is expected.
 */
export function verdictOf(facts: StatusFacts): { readonly verdict: Verdict; readonly reasons: readonly string[] } {
  const every = facts.expectedEverySeconds ?? daySeconds;
  const age = facts.recoveryPointSeconds;
  const found: [Verdict, string][] = facts.alerts.map((alert) => [alert.severity, `${alert.kind}: ${alert.message}`]);
  if (age === null) found.push(["critical", "there is no backup"]);
  else if (age > 2 * every + graceSeconds) found.push(["critical", "the newest backup is older than two intervals"]);
  else if (age > every + graceSeconds) found.push(["warning", "the newest backup is older than it should be"]);
  const has = (verdict: Verdict) => found.some(([severity]) => severity === verdict);
  return {
    verdict: has("critical") ? "critical" : has("warning") ? "warning" : "ok",
    reasons: found.map(([, reason]) => reason),
  };
}
