import type { RetentionPlan } from "./plan.ts";

/** The plan as people and scripts get it. */
export interface PlanDocument {
  readonly dryRun: boolean;
  /** Why nothing is removed; null: nothing is in the way. */
  readonly refused: string | null;
  readonly remove: readonly { readonly object: string; readonly reason: string }[];
  /** `reason`: all of them, one after the other. */
  readonly keep: readonly { readonly object: string; readonly reason: string }[];
}

export function planDocument({ refused, remove, keep }: RetentionPlan, dryRun: boolean): PlanDocument {
  return {
    dryRun,
    refused,
    remove: remove.map(({ object, reason }) => ({ object, reason })),
    keep: keep.map(({ object, reasons }) => ({ object, reason: reasons.join("; ") })),
  };
}
