/** What people see of a restore: its plan, its progress, what it left switched off. */
import { HoldfastError } from "../shared/errors.ts";
import type { RestoreProgress, RestoreResult } from "../shared/restore/run.ts";
import { columns, type Outcome } from "./output.ts";
import type { ProgressState } from "./progress.ts";
import type { Place } from "./restore_place.ts";

export interface ShownPlan {
  readonly steps: readonly { readonly step: string; readonly count: number; readonly reason: string }[];
  readonly warnings: readonly string[];
  readonly lines: readonly string[];
}

export function shownPlan(head: string, steps: ShownPlan["steps"], warnings: readonly string[]): ShownPlan {
  const lines = [
    `${head}:`,
    ...columns(steps.map(({ step, count, reason }) => [`  ${count.toLocaleString("en-GB")}`, step, reason])),
    ...warnings.map((warning) => `  warning: ${warning}`),
  ];
  return { steps, warnings, lines };
}

/** The document of a restore that was only planned: `{dryRun: true, id, database, plan[], warnings[], …, error}`. */
export function notConfirmed(id: string, place: Place, plan: ShownPlan, more: object = {}): Outcome {
  const missing = new HoldfastError("confirmation_missing", "nothing was restored");
  const { steps, warnings } = plan;
  const document = {
    dryRun: true,
    id,
    database: place.database.label,
    plan: steps,
    warnings,
    ...more,
    ...missing.toDocument(),
  };
  return { exit: missing.exit, document, lines: [`Nothing was restored. ${missing.hint}`] };
}

export function restoreState(at: RestoreProgress): ProgressState {
  return at.phase === "rows"
    ? { label: "loading rows", done: at.rawBytes, total: at.rawBytesTotal, unit: "bytes" }
    : { label: at.phase, done: at.steps, total: Math.max(at.steps, at.stepsTotal), unit: "steps" };
}

/** What stands below the first line of a finished restore. */
export function afterLines({ warnings, held }: Pick<RestoreResult, "warnings" | "held">): string[] {
  const lines = warnings.length > 0 ? [`Warnings, listed above: ${warnings.length}.`] : [];
  if (held.length === 0) return lines;
  return [
    ...lines,
    "Switched off until `holdfast release`:",
    ...columns(held.map((one) => [`  ${one.kind}`, one.identity])),
  ];
}
