/** What people see of a restore: its plan, its progress, what it left switched off. */
import { HoldfastError } from "../shared/errors.ts";
import type { Manifest } from "../shared/format/manifest.ts";
import { roomOf } from "../shared/restore/room.ts";
import type { RestoreProgress, RestoreResult } from "../shared/restore/run.ts";
import type { Context } from "./context.ts";
import { columns, type Outcome } from "./output.ts";
import { amount, type ProgressState } from "./progress.ts";
import type { Place } from "./restore_place.ts";

export interface ShownPlan {
  /** Of the full backup that is loaded. */
  readonly totals: Pick<Manifest["totals"], "tables" | "rows" | "rawBytes">;
  readonly steps: readonly { readonly step: string; readonly count: number; readonly reason: string }[];
  readonly warnings: readonly string[];
  readonly lines: readonly string[];
}

export function shownPlan(
  head: string,
  { totals, steps, warnings }: Pick<ShownPlan, "totals" | "steps" | "warnings">,
): ShownPlan {
  const lines = [
    `${head}:`,
    ...columns(steps.map(({ step, count, reason }) => [`  ${count.toLocaleString("en-GB")}`, step, reason])),
    `  about ${amount(roomOf(totals.rawBytes), "bytes")} of room`,
    ...warnings.map((warning) => `  warning: ${warning}`),
  ];
  return { totals, steps, warnings, lines };
}

/**
 * Null once it is confirmed, by --yes or by the person who has seen the plan; else the outcome, with nothing made. The
 * document: `{dryRun: true, id, database, isNew, tables, rows, bytes, room, plan[], warnings[], …}`, `bytes` of text and `room`
 * on the disk being estimates; `error` with exit 2 where it was to be done and nobody confirmed it.
 */
export async function onlyPlanned(
  context: Context,
  id: string,
  { place, plan, more }: { readonly place: Place; readonly plan: ShownPlan; readonly more: object },
): Promise<Outcome | null> {
  const { settings } = context;
  const { steps, warnings, lines, totals } = plan;
  const document = {
    dryRun: true,
    id,
    database: place.database.label,
    isNew: place.isNew,
    tables: totals.tables,
    rows: totals.rows,
    bytes: totals.rawBytes,
    room: roomOf(totals.rawBytes),
    plan: steps,
    warnings,
    ...more,
  };
  if (settings.has("dry-run")) return { exit: 0, document, lines };
  if (settings.has("yes")) return null;
  context.note(lines.join("\n"));
  if (await context.confirm(`This fills ${place.database.label}.`, "restore")) return null;
  const missing = new HoldfastError("confirmation_missing", "nothing was restored");
  return {
    exit: missing.exit,
    document: { ...document, ...missing.toDocument() },
    lines: [`Nothing was restored. ${missing.hint}`],
  };
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
