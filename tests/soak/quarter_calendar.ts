/**
 * What has to happen on which day, told from the two documents that asked for the product, by walking through the days; none of it is
 * computed by the product's own cron code. Times of day are those of its default schedules.
 */

/** Of the whole project; two documents, one calendar: what both ask for, each the more often of the two. */
export interface Day {
  /** 00:00 UTC. */
  readonly start: Date;
  /** Tiers of the full backup at midnight: nightly (A, B), on Sundays the weekly one as well (B). */
  readonly tiers: readonly string[];
  /** Daily checks (A) at 04:23; on Mondays the weekly procedures (A) at 04:53. */
  readonly checks: readonly string[];
  /** Weekly recovery tests on Mondays, monthly record (A) and full (B) on the first, quarterly table (A) with the quarter. */
  readonly drills: readonly string[];
  /** Those that a person does, due with the quarter (B, and the review of A), and with the year. */
  readonly byPerson: readonly PersonalDrill[];
}

const dayMs = 86_400_000;

export interface PersonalDrill {
  readonly name: string;
  /** Days from when it is due until an alert asks for it. */
  readonly graceDays: number;
}

const quarterly: readonly PersonalDrill[] = ["disaster", "keys", "runbooks"].map((name) => ({ name, graceDays: 21 }));
const yearly: PersonalDrill = { name: "complete", graceDays: 30 };
export const personal: readonly PersonalDrill[] = [...quarterly, yearly];

/** `days` whole days from midnight. */
export function calendar(start: Date, days: number): Day[] {
  return Array.from({ length: days }, (_, index) => {
    const day = new Date(start.getTime() + index * dayMs);
    const weekday = day.getUTCDay();
    const isFirst = day.getUTCDate() === 1;
    const isQuarter = isFirst && [0, 3, 6, 9].includes(day.getUTCMonth());
    return {
      start: day,
      tiers: weekday === 0 ? ["daily", "weekly"] : ["daily"],
      checks: weekday === 1 ? ["daily", "weekly"] : ["daily"],
      drills: [
        ...(weekday === 1 ? ["recovery"] : []),
        ...(isFirst ? ["full", "record"] : []),
        ...(isQuarter ? ["table"] : []),
      ].sort(),
      byPerson: isQuarter ? [...quarterly, ...(day.getUTCMonth() === 0 ? [yearly] : [])] : [],
    };
  });
}

/** How long each preset keeps a backup of a tier, in days (A: 30 and 90; B: 7 and 30). */
export const keptDays: Readonly<Record<Preset, Readonly<Record<string, number>>>> = {
  standard: { daily: 30, weekly: 90, manual: 90 },
  short: { daily: 7, weekly: 30, manual: 30 },
};
export type Preset = "standard" | "short";

/** The first day of the quarter that begins at or after a moment. */
export function nextQuarter(after: Date): Date {
  const month = after.getUTCMonth();
  const begun = new Date(Date.UTC(after.getUTCFullYear(), month - month % 3, 1));
  return begun >= after ? begun : new Date(Date.UTC(after.getUTCFullYear(), month - month % 3 + 3, 1));
}
