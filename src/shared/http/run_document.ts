import type { RunRow } from "../jobs/run_row.ts";

/** A run as the functions show it. Times are ISO 8601 in UTC, sizes are bytes. */
export function runDocument(run: RunRow): Readonly<Record<string, unknown>> {
  return {
    run: run.id,
    kind: run.kind,
    tiers: run.tiers,
    status: run.status,
    attempt: run.attempt,
    createdAt: run.createdAt,
    startedAt: run.startedAt,
    finishedAt: run.finishedAt,
    consistentAt: run.consistentAt,
    rows: run.rows,
    rawBytes: run.rawBytes,
    storedBytes: run.storedBytes,
    tasksTotal: run.tasksTotal,
    tasksDone: run.tasksDone,
    bytesTotal: run.bytesTotal,
    bytesDone: run.bytesDone,
    warnings: run.warnings,
    quarantineReason: run.quarantineReason,
    error: run.errorCode === null ? null : { code: run.errorCode, message: run.errorMessage, hint: run.hint },
  };
}
