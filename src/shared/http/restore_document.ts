import type { RestoreRow } from "../jobs/restore_row.ts";

/** A restore as the function shows it. Times are ISO 8601 in UTC; no row's value is in it. */
export function restoreDocument(row: RestoreRow): Readonly<Record<string, unknown>> {
  return {
    restore: row.id,
    scope: row.scope,
    mode: row.mode,
    status: row.status,
    backup: row.sourceBackup,
    target: row.targetLabel,
    sideSchema: row.sideDroppedAt === null ? row.sideSchema : null,
    sideExpiresAt: row.sideDroppedAt === null ? row.sideExpiresAt : null,
    rowsDone: row.rowsDone,
    stepsDone: row.stepsDone,
    stepsTotal: row.stepsTotal,
    tables: row.tables,
    plan: row.state["plan"] ?? null,
    warnings: row.state["warnings"] ?? [],
    readBack: row.state["readBack"] ?? [],
    held: row.state["held"] ?? [],
    files: row.state["files"] ?? null,
    safetyRun: row.safetyRun,
    startedAt: row.startedAt,
    finishedAt: row.finishedAt,
    measuredSeconds: row.measuredSeconds,
    withinObjective: row.withinObjective,
    error: row.errorCode === null ? null : { code: row.errorCode, message: row.errorMessage, hint: row.errorHint },
  };
}
