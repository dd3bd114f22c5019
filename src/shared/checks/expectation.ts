/** What the measures of earlier backups let expect of the newest one. Pure. docs/decisions/0031-verification.md. */

/** A measure of one backup: bytes, or rows. */
export interface Measure {
  /** Seconds; only differences count. */
  readonly at: number;
  readonly value: number;
}

export type Expectation =
  /** There are not enough earlier ones. */
  | { readonly verdict: "no_verdict"; readonly runs: number }
  | {
    readonly verdict: "as_expected" | "low" | "high";
    readonly runs: number;
    /** The median, with its growth up to now. */
    readonly expected: number;
    /** Median of the distances from it, as a share of it. */
    readonly mad: number;
    readonly lowest: number;
    readonly highest: number;
  };

/** With fewer earlier backups nothing is said. */
export const leastRuns = 5;
/** Fewer tell no growth that could be told from noise. */
const leastForGrowth = 10;
/** However steady it was: a third less or half as much again is nothing to wake anybody for. */
const leastFactor = 1.5;
/** Distances from the median, in standard deviations as the MAD tells them; few runs tell them badly. */
const deviations = (runs: number) => 7 + 150 / (runs * runs);
/** With so many earlier ones, what is far below all of them is low as well. */
const leastForLowest = 20;
/** How far below the lowest: so many standard deviations, and never closer than this factor. */
const belowLowest = { deviations: 3, factor: 1.4 } as const;
/** Of a normal distribution: standard deviation / MAD. */
const deviationOfMad = 1.4826;
const day = 86_400;

/**
 * Is the newest measure within what `before` lets expect? Compared by ratio, since databases grow by shares: logarithms, freed of their
 * steady growth (the median of the slopes between all pairs), have a median and a MAD; the bound is so many deviations of it, and
 * never closer than a factor of 1.5. Medians do not follow a single day that was wrong. Of a table that swings a lot seven deviations are
 * more than a half: there it is low what is far below the lowest of the last twenty and more.
 */
export function expectation(before: readonly Measure[], newest: Measure): Expectation {
  const runs = before.length;
  if (runs < leastRuns) return { verdict: "no_verdict", runs };
  const points = before.map(({ at, value }) => ({ days: (at - newest.at) / day, size: Math.log1p(value) }));
  const growth = runs < leastForGrowth ? 0 : slope(points);
  const level = points.map(({ days, size }) => size - growth * days);
  const expected = median(level);
  const mad = median(level.map((one) => Math.abs(one - expected)));
  const deviation = deviationOfMad * mad;
  const bound = Math.max(Math.log(leastFactor), deviations(runs) * deviation);
  const margin = Math.max(Math.log(belowLowest.factor), belowLowest.deviations * deviation);
  const farBelow = Math.max(Math.log(leastFactor), expected - Math.min(...level) + margin);
  const lowest = expected - (runs < leastForLowest ? bound : Math.min(bound, farBelow));
  const size = Math.log1p(newest.value);
  return {
    verdict: size < lowest ? "low" : size > expected + bound ? "high" : "as_expected",
    runs,
    expected: Math.round(Math.expm1(expected)),
    mad: Number(Math.expm1(mad).toFixed(4)),
    lowest: Math.max(0, Math.ceil(Math.expm1(lowest))),
    highest: Math.floor(Math.expm1(expected + bound)),
  };
}

interface Point {
  readonly days: number;
  readonly size: number;
}

/** Theil and Sen: up to a quarter of the points may be anything. At most 435 pairs of 30. */
function slope(points: readonly Point[]): number {
  const slopes: number[] = [];
  for (const [index, one] of points.entries()) {
    for (const other of points.slice(index + 1)) {
      // Backups of the same hour tell no growth.
      if (Math.abs(other.days - one.days) > 1 / 24) slopes.push((other.size - one.size) / (other.days - one.days));
    }
  }
  return slopes.length === 0 ? 0 : median(slopes);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? high)) / 2;
}
