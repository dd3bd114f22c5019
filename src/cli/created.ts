import type { RunStatus } from "../shared/jobs/states.ts";
import type { Context } from "./context.ts";
import type { Outcome } from "./output.ts";
import { amount, duration, type ProgressState } from "./progress.ts";

/** What progress needs of a run, from the database or from the function that shows it. */
export interface RunProgress {
  readonly status: RunStatus;
  readonly bytesDone: number;
  readonly bytesTotal: number | null;
  readonly rows: number;
}

export function progressOf(run: RunProgress): ProgressState {
  switch (run.status) {
    case "queued":
      return { label: "waiting for a worker", done: 0, total: null, unit: "bytes" };
    case "snapshotting":
      return { label: "taking the snapshot", done: 0, total: null, unit: "bytes" };
    case "copying":
      // The total is an estimate: it is never shown as passed.
      return {
        label: "reading",
        done: Math.min(run.bytesDone, run.bytesTotal ?? run.bytesDone),
        total: run.bytesTotal,
        unit: "bytes",
      };
    default:
      return { label: "finishing", done: run.bytesDone, total: null, unit: "bytes" };
  }
}

/** The document of a finished backup. */
export interface Created {
  readonly id: string;
  readonly tier: string;
  readonly status: string;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly durationMs: number | null;
  readonly consistentAt: string | null;
  readonly joined: boolean;
  readonly quarantineReason: string | null;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

/** Its document is an object that more can be added to. */
export type CreatedOutcome = Outcome & { readonly document: object };

export function createdOutcome(created: Created, context: Context): CreatedOutcome {
  for (const line of warningLines(created.warnings)) context.note(`warning: ${line}`);
  const took = created.durationMs === null ? "" : ` in ${duration(created.durationMs)}`;
  const lines = [
    `Backup ${created.id} (${created.tier}) ${created.status}${took}.`,
    `${amount(created.rows, "rows")}, ${amount(created.rawBytes, "bytes")} of text, ${
      amount(created.storedBytes, "bytes")
    } stored, consistent at ${created.consistentAt ?? "-"}.`,
  ];
  if (created.quarantineReason === null) return { exit: 0, document: created, lines };
  lines.push(
    `It is quarantined: ${created.quarantineReason}`,
    `If that is right: holdfast accept ${created.id.slice(0, 8)} --reason …`,
  );
  return { exit: 3, document: created, lines };
}

/** A line for each warning; of the many that a code may have, the first three and their number. The document has all. */
export function warningLines(warnings: Created["warnings"]): string[] {
  const byCode = new Map<string, string[]>();
  for (const { code, message } of warnings) byCode.set(code, [...(byCode.get(code) ?? []), message]);
  return [...byCode].flatMap(([code, messages]) => {
    const more = messages.length - 3;
    const lines = messages.slice(0, 3).map((message) => `${code}: ${message}`);
    return more > 0 ? [...lines, `${code}: and ${more} more, which --json lists`] : lines;
  });
}
