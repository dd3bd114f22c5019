import { HoldfastError } from "../errors.ts";
import type { Row } from "../postgres/connection.ts";
import { restoreStates, type RestoreStatus } from "./restore_states.ts";
import { numberOrNull, text } from "./run_row.ts";

export type RestoreScope = "table" | "record" | "user" | "full" | "point" | "files";
export type RestoreMode = "beside" | "missing" | "merge" | "replace" | "in_place";
/** Where a restore is at work; never back. */
export type RestoreStage = "planned" | "loading" | "applying";

/** A table of a restore, with counts of rows; those that are not known are left out. */
export interface RestoreTable {
  readonly schema: string;
  readonly name: string;
  /** In the side schema, or loaded. */
  readonly rows?: number;
  readonly inserted?: number;
  readonly updated?: number;
  readonly deleted?: number;
  readonly conflicts?: number;
}

/** A row of `backup.restores`. Times are ISO 8601 with microseconds, in UTC. */
export interface RestoreRow {
  readonly id: string;
  readonly scope: RestoreScope;
  readonly mode: RestoreMode;
  readonly status: RestoreStatus;
  /** The last of its stages; a resumed one goes on there. */
  readonly stage: RestoreStage;
  readonly sourceBackup: string;
  readonly pointAt: string | null;
  readonly targetLabel: string;
  readonly targetIsHere: boolean;
  readonly userId: string | null;
  readonly sideSchema: string | null;
  readonly sideExpiresAt: string | null;
  readonly sideDroppedAt: string | null;
  readonly tables: readonly RestoreTable[];
  readonly safetyRun: string | null;
  readonly state: Readonly<Record<string, unknown>>;
  readonly stepsDone: number;
  readonly stepsTotal: number | null;
  readonly rowsDone: number;
  /** Legs of the function work on it; false: the CLI does. */
  readonly byFunction: boolean;
  readonly cancelRequestedAt: string | null;
  readonly requestedBy: string;
  readonly startedAt: string;
  readonly heartbeatAt: string;
  readonly finishedAt: string | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly errorHint: string | null;
  readonly measuredSeconds: number | null;
  readonly objectiveSeconds: number | null;
  /** Null before its good end. */
  readonly withinObjective: boolean | null;
}

const plain = [
  ...["id", "scope", "mode", "status", "stage", "source_backup", "target_label", "target_is_here", "user_id"],
  ...["side_schema", "tables", "safety_run", "state", "steps_done", "steps_total", "rows_done", "requested_by"],
  ...["error_code", "error_message", "error_hint", "measured_seconds", "objective_seconds", "within_objective"],
];
const moments = [
  ...["point_at", "side_expires_at", "side_dropped_at", "cancel_requested_at", "started_at", "heartbeat_at"],
  "finished_at",
];

/** The select list for alias `r` of `backup.restores`. */
export const restoreColumns = [
  ...plain.map((column) => `r.${column}`),
  "r.next_leg_at is not null as by_function",
  ...moments.map((column) =>
    `pg_catalog.to_char(r.${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as ${column}`
  ),
].join(", ");

export function restoreRowOf(row: Row): RestoreRow {
  const within = row["within_objective"] ?? null;
  return {
    id: text(row, "id"),
    scope: oneOf(["table", "record", "user", "full", "point", "files"], row, "scope"),
    mode: oneOf(["beside", "missing", "merge", "replace", "in_place"], row, "mode"),
    status: oneOf(Object.keys(restoreStates) as RestoreStatus[], row, "status"),
    stage: oneOf(["planned", "loading", "applying"], row, "stage"),
    sourceBackup: text(row, "source_backup"),
    pointAt: row["point_at"] ?? null,
    targetLabel: text(row, "target_label"),
    targetIsHere: row["target_is_here"] === "t",
    userId: row["user_id"] ?? null,
    sideSchema: row["side_schema"] ?? null,
    sideExpiresAt: row["side_expires_at"] ?? null,
    sideDroppedAt: row["side_dropped_at"] ?? null,
    tables: JSON.parse(text(row, "tables")) as RestoreTable[],
    safetyRun: row["safety_run"] ?? null,
    state: JSON.parse(text(row, "state")) as RestoreRow["state"],
    stepsDone: Number(row["steps_done"]),
    stepsTotal: numberOrNull(row, "steps_total"),
    rowsDone: Number(row["rows_done"]),
    byFunction: row["by_function"] === "t",
    cancelRequestedAt: row["cancel_requested_at"] ?? null,
    requestedBy: text(row, "requested_by"),
    startedAt: text(row, "started_at"),
    heartbeatAt: text(row, "heartbeat_at"),
    finishedAt: row["finished_at"] ?? null,
    errorCode: row["error_code"] ?? null,
    errorMessage: row["error_message"] ?? null,
    errorHint: row["error_hint"] ?? null,
    measuredSeconds: numberOrNull(row, "measured_seconds"),
    objectiveSeconds: numberOrNull(row, "objective_seconds"),
    withinObjective: within === null ? null : within === "t",
  };
}

function oneOf<const Word extends string>(words: readonly Word[], row: Row, column: string): Word {
  const value = text(row, column);
  const word = words.find((each) => each === value);
  if (word === undefined) throw new HoldfastError("internal", `a restore has the unknown ${column} ${value}`);
  return word;
}
