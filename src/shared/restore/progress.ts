import { groupsOf } from "./apply.ts";
import { countKey } from "./compare_counts.ts";
import { chunkKey } from "./load.ts";
import type { RestorePlan } from "./plan.ts";

export interface RestoreProgress {
  readonly phase: "definitions" | "rows" | "indexes" | "privileges" | "last" | "counts";
  readonly rows: number;
  readonly rowsTotal: number;
  readonly rawBytes: number;
  readonly rawBytesTotal: number;
  /** Definitions that are made, and tables that are counted at the end. */
  readonly steps: number;
  readonly stepsTotal: number;
}

type Amounts = Partial<Record<"rows" | "rawBytes" | "steps", number>>;

/** Counts up what a restore has done, from the markers that earlier calls left in `done`, and reports each step. */
export function progressOf(
  plan: RestorePlan,
  done: ReadonlySet<string>,
  report: ((progress: RestoreProgress) => void) | undefined,
) {
  const { roles, preData, postData, sequences, privileges, last } = plan;
  const inOrder = { roles, "pre-data": preData, sequences, privileges, last };
  const groups = [
    ...Object.entries(inOrder).flatMap(([phase, steps]) => groupsOf(phase, steps)),
    ...postData.map((step) => ({ key: step.key, steps: [step] })),
  ];
  const chunks = plan.loads.flatMap((load) => load.chunks.filter((_, index) => done.has(chunkKey(load, index))));
  const now = {
    phase: "definitions" as RestoreProgress["phase"],
    rows: sum(chunks.map((chunk) => chunk.rows)),
    rowsTotal: plan.rows,
    rawBytes: sum(chunks.map((chunk) => chunk.rawBytes)),
    rawBytesTotal: plan.rawBytes,
    steps: sum(groups.filter((group) => done.has(group.key)).map((group) => group.steps.length)) +
      plan.loads.filter((load) => done.has(countKey(load))).length,
    stepsTotal: sum(groups.map((group) => group.steps.length)) + plan.loads.length,
  };
  return {
    phase(phase: RestoreProgress["phase"]) {
      now.phase = phase;
      report?.({ ...now });
    },
    add(amounts: Amounts) {
      now.rows += amounts.rows ?? 0;
      now.rawBytes += amounts.rawBytes ?? 0;
      now.steps += amounts.steps ?? 0;
      report?.({ ...now });
    },
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
