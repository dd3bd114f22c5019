import type { RestorePlan } from "./plan.ts";

export interface RestoreProgress {
  readonly phase: "definitions" | "rows" | "indexes" | "privileges" | "last" | "counts";
  readonly rows: number;
  readonly rowsTotal: number;
  readonly rawBytes: number;
  readonly rawBytesTotal: number;
  readonly definitions: number;
  readonly definitionsTotal: number;
}

type Amounts = Partial<Record<"rows" | "rawBytes" | "definitions", number>>;

/** Counts up what a restore has done and reports each step. */
export function progressOf(plan: RestorePlan, report: ((progress: RestoreProgress) => void) | undefined) {
  const { roles, preData, postData, sequences, privileges, last } = plan;
  const now = {
    phase: "definitions" as RestoreProgress["phase"],
    rows: 0,
    rowsTotal: plan.rows,
    rawBytes: 0,
    rawBytesTotal: plan.rawBytes,
    definitions: 0,
    definitionsTotal: [roles, preData, postData, sequences, privileges, last].reduce((sum, one) => sum + one.length, 0),
  };
  return {
    phase(phase: RestoreProgress["phase"]) {
      now.phase = phase;
      report?.({ ...now });
    },
    add(amounts: Amounts) {
      now.rows += amounts.rows ?? 0;
      now.rawBytes += amounts.rawBytes ?? 0;
      now.definitions += amounts.definitions ?? 0;
      report?.({ ...now });
    },
  };
}
