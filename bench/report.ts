import { median } from "./measure.ts";

/** One line of the report: what was measured, what it is held against, and whether it reaches it. */
export interface Finding {
  readonly question: string;
  readonly value: number;
  readonly unit: "s" | "MB" | "ratio" | "ms" | "%" | "a second";
  /** The figure is reached when it is at most this. */
  readonly atMost?: number;
  /** The figure is reached when it is at least this. */
  readonly atLeast?: number;
  /** The least and the most of what the figure is the median of. */
  readonly spread?: readonly [number, number];
}

export class Report {
  readonly findings: Finding[] = [];
  readonly runs: Record<string, { wallMs: number[]; peakBytes: number[] }> = {};
  readonly #write: (line: string) => void;

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  /** One run of what is called `name`. */
  run(name: string, wallMs: number, peakBytes: number): void {
    const runs = (this.runs[name] ??= { wallMs: [], peakBytes: [] });
    runs.wallMs.push(wallMs);
    runs.peakBytes.push(peakBytes);
    this.#write(`  ${name}: ${(wallMs / 1000).toFixed(2)} s, peak ${(peakBytes / 1e6).toFixed(0)} MB`);
  }

  /** Median seconds of all runs of `name`. */
  seconds(name: string): number {
    return median(this.runs[name]?.wallMs ?? []) / 1000;
  }

  find(question: string, value: number, unit: Finding["unit"], atMost?: number): void {
    this.findings.push({ question, value, unit, ...(atMost === undefined ? {} : { atMost }) });
  }

  /** The same where more is better. */
  findAtLeast(question: string, value: number, unit: Finding["unit"], atLeast: number): void {
    this.findings.push({ question, value, unit, atLeast });
  }

  /** The median of pairs, with the least and the most of them. */
  findPaired(question: string, ratios: readonly number[], goal: { readonly atLeast?: number } = {}): void {
    const spread = [Math.min(...ratios), Math.max(...ratios)] as const;
    this.findings.push({ question, value: median(ratios), unit: "ratio", spread, ...goal });
  }

  /** One line for who looks on. */
  note(line: string): void {
    this.#write(`  ${line}`);
  }

  get missed(): Finding[] {
    return this.findings.filter((finding) => !isReached(finding));
  }

  /** The table for people, in Markdown, so that it can stand in the README as it is. */
  table(): string {
    const rows = this.findings.map((finding) => {
      const goal = goalOf(finding);
      const reached = goal === "" ? "" : isReached(finding) ? "yes" : "**no**";
      return `| ${finding.question} | ${shown(finding)} | ${goal} | ${reached} |`;
    });
    return ["| measured | figure | goal | reached |", "|---|---|---|---|", ...rows].join("\n");
  }
}

function goalOf({ atMost, atLeast }: Finding): string {
  if (atMost !== undefined) return `≤ ${atMost}`;
  return atLeast === undefined ? "" : `≥ ${atLeast}`;
}

/** A figure that is not a number reaches nothing. */
function isReached({ value, atMost, atLeast }: Finding): boolean {
  return (atMost === undefined || value <= atMost) && (atLeast === undefined || value >= atLeast);
}

function shown({ value, unit, spread }: Finding): string {
  const digits = unit === "ratio" || unit === "s" || unit === "%" || (unit === "MB" && value < 10) ? 2 : 0;
  const range = spread === undefined ? "" : ` (${spread.map((one) => one.toFixed(digits)).join(" to ")})`;
  return `${value.toFixed(digits)}${unit === "ratio" ? "" : ` ${unit}`}${range}`;
}
