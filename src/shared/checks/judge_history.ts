/** Size and rows of the newest backups against those before them. Pure. */
import { z } from "zod";
import type { CheckOutcome } from "../jobs/check_queries.ts";
import { type Expectation, expectation, leastRuns, type Measure } from "./expectation.ts";

/** What `backup.measured_history()` tells: of each tier its newest backup first, then up to 30 before it. */
const historyFormat = z.array(z.object({
  tier: z.string(),
  backup: z.string(),
  runs: z.array(z.object({ at: z.number(), rows: z.number(), rawBytes: z.number(), storedBytes: z.number() })).min(1),
  /** Rows by the place of the backup, from 1 on; a place is missing where the table was not there. */
  tables: z.array(z.object({ name: z.string(), rows: z.record(z.string(), z.number()) })),
}));
export type History = z.infer<typeof historyFormat>;
type Tier = History[number];

export function readHistory(told: unknown): History {
  return historyFormat.parse(told);
}

/** A table with fewer rows than this, by its median, may come and go without a question. */
const smallTable = 1_000;
/** Tables that stand in the evidence by name. */
const namedTables = 20;

interface Finding {
  readonly subject: string;
  readonly value: number;
  readonly found: Expectation;
}

export function judgeSize(history: History): CheckOutcome {
  return outcomeOf(history, (tier) => [
    finding("raw bytes", measures(tier, ({ rawBytes }) => rawBytes)),
    finding("stored bytes", measures(tier, ({ storedBytes }) => storedBytes)),
  ]);
}

/** All rows together, and each table that has as many as make a question. A table that was dropped is named, and no question. */
export function judgeRows(history: History): CheckOutcome {
  const judged = outcomeOf(history, (tier) => [
    finding("rows", measures(tier, ({ rows }) => rows)),
    ...tier.tables.flatMap(({ name, rows }) => {
      const known = tier.runs.flatMap(({ at }, index) => {
        const value = rows[String(index + 1)];
        return value === undefined ? [] : [{ at, value, index }];
      });
      const [newest, ...before] = known;
      if (newest?.index !== 0 || before.length < leastRuns) return [];
      const one = finding(name, [newest, ...before]);
      return isLarge(one) ? [one] : [];
    }),
  ]);
  const gone = history.flatMap(({ tier, tables }) =>
    tables.filter(({ rows }) => rows["1"] === undefined && rows["2"] !== undefined).map(({ name }) =>
      `${tier}: ${name}`
    )
  );
  return { ...judged, evidence: { ...judged.evidence, droppedSince: gone.slice(0, namedTables) } };
}

function isLarge({ value, found }: Finding): boolean {
  return found.verdict !== "no_verdict" && Math.max(found.expected, value) >= smallTable;
}

function measures(tier: Tier, of: (run: Tier["runs"][number]) => number): Measure[] {
  return tier.runs.map((run) => ({ at: run.at, value: of(run) }));
}

/** The newest first. */
function finding(subject: string, [newest, ...before]: readonly Measure[]): Finding {
  const judged = newest ?? { at: 0, value: 0 };
  return { subject, value: judged.value, found: expectation(before, judged) };
}

/** Less than expected has failed, more is a warning: both may be right, and a person knows. */
function outcomeOf(history: History, findings: (tier: Tier) => readonly Finding[]): CheckOutcome {
  const tiers = history.map((tier) => ({ tier, findings: findings(tier) }));
  const told = tiers.flatMap(({ tier, findings: all }) => all.map((one) => ({ tier: tier.tier, ...one })));
  const low = told.filter(({ found }) => found.verdict === "low");
  const high = told.filter(({ found }) => found.verdict === "high");
  const evidence = {
    tiers: tiers.map(({ tier, findings: all }) => ({
      tier: tier.tier,
      backup: tier.backup,
      runs: tier.runs.length - 1,
      judged: all.length,
      // What is wrong comes first; of the rest the totals stand first.
      measured: [...all].sort((a, b) => rank(a) - rank(b)).slice(0, namedTables).map(shown),
    })),
  };
  const [first] = [...low, ...high];
  if (first !== undefined && first.found.verdict !== "no_verdict") {
    const { subject, value, found: { lowest, highest }, tier } = first;
    const others = low.length + high.length - 1;
    const more = others > 0 ? `, and ${others} more` : "";
    return {
      outcome: low.length > 0 ? "failed" : "warning",
      message: `the newest ${tier} backup: ${subject} are ${value}, expected are ${lowest} to ${highest}${more}`,
      evidence,
    };
  }
  if (told.some(({ found }) => found.verdict === "as_expected")) {
    return { outcome: "passed", message: "as the backups before it let expect", evidence };
  }
  const most = Math.max(0, ...history.map(({ runs }) => runs.length - 1));
  const message = history.length === 0
    ? "no backup is of the last 36 hours"
    : `${most} earlier backups of a tier say too little; ${leastRuns} are needed`;
  return { outcome: "no_verdict", message, evidence };
}

function rank({ found }: Finding): number {
  return found.verdict === "low" ? 0 : found.verdict === "high" ? 1 : 2;
}

function shown({ subject, value, found }: Finding) {
  return { subject, value, ...found };
}
