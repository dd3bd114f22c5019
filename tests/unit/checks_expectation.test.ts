/** A thousand normal days of several kinds raise no false alarm, and what was halved or emptied among them is found. */
import { describe, expect, it } from "vitest";
import { expectation, leastRuns, type Measure } from "../../src/shared/checks/expectation.ts";
import { type History, judgeRows, judgeSize, readHistory } from "../../src/shared/checks/judge_history.ts";

const day = 86_400;

/** A reproducible series of numbers in [0, 1). Source: Mulberry32. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Normally distributed. Source: Box and Muller. */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

interface Kind {
  readonly name: string;
  readonly start: number;
  /** A day, as a share. */
  readonly growth: number;
  /** Standard deviation of a day, as a share. */
  readonly noise: number;
  /** Weekends have so much less. */
  readonly weekend?: number;
  /** Once a month the oldest rows go: so large a share. */
  readonly monthly?: number;
}

/** Databases and tables as they are in life: steady, growing, shrinking, noisy, with weekends, with a monthly clean-up. */
const kinds: readonly Kind[] = [
  { name: "one that never changes", start: 50_000, growth: 0, noise: 0 },
  { name: "a new project", start: 2_000, growth: 0.03, noise: 0.02 },
  { name: "one that grows steadily", start: 4e8, growth: 0.005, noise: 0.003 },
  { name: "one in which much comes and goes", start: 1e6, growth: 0.001, noise: 0.08 },
  { name: "one that is being emptied slowly", start: 5e7, growth: -0.004, noise: 0.01 },
  { name: "one with weekends", start: 300_000, growth: 0.002, noise: 0.03, weekend: 0.15 },
  { name: "one that is cleaned up each month", start: 8e6, growth: 0.006, noise: 0.01, monthly: 0.15 },
  { name: "a queue", start: 5_000, growth: 0, noise: 0.25 },
];

/** `days` backups, one a day, some minutes late; the oldest first. */
function history({ start, growth, noise, weekend = 0, monthly = 0 }: Kind, days: number, seed: number): Measure[] {
  const random = numbers(seed);
  const made: Measure[] = [];
  let level = start;
  for (let n = 0; n < days; n++) {
    level *= 1 + growth;
    if (n % 30 === 29) level *= 1 - monthly;
    // Years of growth do not fit into a project.
    if (level > start * 1_000) level = start * 1_000;
    const share = Math.exp(noise * normal(random)) * (n % 7 >= 5 ? 1 - weekend : 1);
    made.push({ at: n * day + random() * 600, value: Math.round(level * share) });
  }
  return made;
}

/** What is said on each day, from the 30 before it. */
function verdicts(measures: readonly Measure[], change: (value: number) => number = (value) => value) {
  return measures.map((measure, index) =>
    expectation(measures.slice(Math.max(0, index - 30), index).reverse(), { ...measure, value: change(measure.value) })
      .verdict
  );
}

describe("an expectation", () => {
  it.each(kinds)("raises no false alarm on a thousand days of $name", (kind) => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const said = verdicts(history(kind, 1_000 + leastRuns, seed));
      expect(said.slice(0, leastRuns)).toEqual(Array(leastRuns).fill("no_verdict"));
      const alarms = said.slice(leastRuns).map((verdict, index) => ({ verdict, day: index + leastRuns }))
        .filter(({ verdict }) => verdict !== "as_expected");
      expect({ seed, alarms }).toEqual({ seed, alarms: [] });
    }
  });

  it.each(kinds.filter(({ noise, weekend = 0 }) => noise < 0.05 && weekend < 0.1))(
    "finds on every day that half of $name is gone, once there are 30 before it",
    (kind) => {
      const said = verdicts(history(kind, 400, 7), (value) => value / 2).slice(30);
      expect(said.filter((verdict) => verdict !== "low")).toEqual([]);
    },
  );

  it("finds on all but one day in fifty that half is gone of what goes up and down by 8 % a day", () => {
    const swinging = { name: "", start: 1e6, growth: 0.001, noise: 0.08 };
    const found = [1, 2, 3].flatMap((seed) =>
      verdicts(history(swinging, 1_030, seed), (value) => value / 2).slice(30).map((verdict) => verdict === "low")
    );
    expect(found.filter((one) => one).length / found.length).toBeGreaterThan(0.98);
  });

  it("does not call low what is a little below all before it, nor judges by the lowest of fewer than twenty", () => {
    // Twenty up and down by a quarter: seven deviations are more than a half of them.
    const swing = (count: number) =>
      Array.from({ length: count }, (_, n) => ({ at: -(n + 1) * day, value: n % 2 === 0 ? 1_250 : 1_000 }));
    expect(expectation(swing(20), { at: 0, value: 690 }).verdict).toBe("as_expected");
    expect(expectation(swing(20), { at: 0, value: 540 }).verdict).toBe("low");
    expect(expectation(swing(18), { at: 0, value: 540 }).verdict).toBe("as_expected");
    expect(expectation(swing(20), { at: 0, value: 2_000 }).verdict).toBe("as_expected");
  });

  it.each(kinds)("finds on every day that $name is empty, from the tenth backup on", (kind) => {
    const said = verdicts(history(kind, 400, 11), () => 0).slice(10);
    expect(said.filter((verdict) => verdict !== "low")).toEqual([]);
  });

  it.each(kinds.filter(({ noise }) => noise < 0.05))("finds that $name came ten times over", (kind) => {
    const said = verdicts(history(kind, 400, 13), (value) => value * 10).slice(30);
    expect(said.filter((verdict) => verdict !== "high")).toEqual([]);
  });

  it("goes on crying for a week after a half was lost, and calls it normal in the end", () => {
    const measures = history({ name: "", start: 1e6, growth: 0.001, noise: 0.01 }, 100, 3)
      .map((measure, index) => index < 50 ? measure : { ...measure, value: Math.round(measure.value / 2) });
    const said = verdicts(measures);
    expect(said.slice(50, 57)).toEqual(Array(7).fill("low"));
    expect(said.slice(85).every((verdict) => verdict === "as_expected")).toBe(true);
  });

  it("is not led astray by a few days that were wrong, nor by backups of one hour", () => {
    const measures = history({ name: "", start: 1e6, growth: 0.002, noise: 0.01 }, 31, 5);
    const [newest, ...before] = [...measures].reverse();
    const wrong = before.map((one, index) => index % 6 === 0 ? { ...one, value: 0 } : one);
    expect(expectation(wrong, newest!)).toMatchObject({ verdict: "as_expected", runs: 30 });
    expect(expectation(wrong, { ...newest!, value: newest!.value / 2 })).toMatchObject({ verdict: "low" });
    const together = before.map((one, index) => ({ ...one, at: newest!.at - index }));
    expect(expectation(together, newest!)).toMatchObject({ verdict: "as_expected" });
  });

  it("says its bounds, and what it expected", () => {
    const before = Array.from({ length: 30 }, (_, n) => ({ at: -n * day - day, value: 1_000 }));
    expect(expectation(before, { at: 0, value: 900 })).toEqual({
      verdict: "as_expected",
      runs: 30,
      expected: 1_000,
      mad: 0,
      lowest: 667,
      highest: 1_500,
    });
  });
});

/** Daily backups, newest first, of tables with so many rows each day. */
function told(tables: Readonly<Record<string, readonly (number | null)[]>>, days: number): History {
  const runs = Array.from({ length: days }, (_, index) => {
    const rows = Object.values(tables).reduce((sum, each) => sum + (each[index] ?? 0), 0);
    return { at: -index * day, rows, rawBytes: rows * 100, storedBytes: rows * 30 };
  });
  return readHistory([{
    tier: "daily",
    backup: "b",
    runs,
    tables: Object.entries(tables).map(([name, rows]) => ({
      name,
      rows: Object.fromEntries(rows.flatMap((value, index) => value === null ? [] : [[String(index + 1), value]])),
    })),
  }]);
}

const steady = (value: number, days = 31) => Array.from({ length: days }, () => value);

describe("rows", () => {
  it("of a small table that was emptied are found beside a large one, in which they would not be seen", () => {
    const history = told({ "public.large": steady(1e7), "public.people": [0, ...steady(5_000, 30)] }, 31);
    expect(judgeSize(history)).toMatchObject({ outcome: "passed" });
    const judged = judgeRows(history);
    expect(judged).toMatchObject({ outcome: "failed", message: expect.stringContaining("public.people are 0") });
    expect(judged.evidence).toMatchObject({
      tiers: [{ measured: [{ subject: "public.people", verdict: "low" }, {}, {}] }],
    });
  });

  it("of a table with some hundreds come and go without a question; of one that was dropped they are named", () => {
    const history = told({
      "public.large": steady(100_000),
      "public.few": [0, ...steady(900, 30)],
      "public.dropped": [null, ...steady(3_000, 30)],
    }, 31);
    expect(judgeRows(history)).toMatchObject({
      outcome: "passed",
      evidence: { droppedSince: ["daily: public.dropped"] },
    });
  });

  it("of a new table are not judged before there are five backups of it", () => {
    const young = (runs: number) => [9_000, ...steady(1_000, runs), ...Array.from({ length: 30 - runs }, () => null)];
    expect(judgeRows(told({ "public.large": steady(1e6), "public.new": young(4) }, 31))).toMatchObject({
      outcome: "passed",
    });
    expect(judgeRows(told({ "public.large": steady(1e6), "public.new": young(5) }, 31))).toMatchObject({
      outcome: "warning",
    });
  });

  it("of a day on which much was imported are a warning, no failure", () => {
    expect(judgeRows(told({ "public.large": [4e6, ...steady(1e6, 30)] }, 31))).toMatchObject({ outcome: "warning" });
  });

  it("say nothing with four earlier backups, and so does the size", () => {
    const history = told({ "public.large": [0, ...steady(1e6, 4)] }, 5);
    for (const judged of [judgeRows(history), judgeSize(history)]) {
      expect(judged).toMatchObject({
        outcome: "no_verdict",
        message: "4 earlier backups of a tier say too little; 5 are needed",
      });
    }
    expect(judgeSize([])).toMatchObject({ outcome: "no_verdict", message: "no backup is of the last 36 hours" });
  });
});
