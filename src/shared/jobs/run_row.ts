import { HoldfastError } from "../errors.ts";
import type { Row } from "../postgres/connection.ts";
import { runStates, type RunStatus } from "./states.ts";

/** A row of `backup.runs` as legs and front doors use it. Times are ISO 8601 with microseconds, in UTC. */
export interface RunRow {
  readonly id: string;
  readonly kind: string;
  readonly tiers: readonly string[];
  readonly status: RunStatus;
  readonly origin: string;
  readonly attempt: number;
  readonly concurrency: number;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly finishedAt: string | null;
  readonly consistentAt: string | null;
  readonly snapshot: string | null;
  readonly snapshotName: string | null;
  readonly walLsn: string | null;
  readonly fingerprint: string | null;
  /** When all that is read in the snapshot was read, and the definitions were still the same; null before. */
  readonly settledAt: string | null;
  readonly baseRun: string | null;
  /** The chain of the change stream that was open at the snapshot, or that an incremental is part of. */
  readonly chainId: string | null;
  readonly tables: number | null;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly newStoredBytes: number;
  readonly tasksTotal: number;
  readonly tasksDone: number;
  readonly bytesTotal: number | null;
  readonly bytesDone: number;
  readonly manifestName: string | null;
  readonly manifestHash: string | null;
  readonly generation: number | null;
  /** Seals the objects of the present attempt; null before its plan. */
  readonly epoch: string | null;
  /** Below which its objects are in the stores, since its plan; '': at their top. */
  readonly storePrefix: string;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly hint: string | null;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
  readonly quarantineReason: string | null;
}

const moment = (column: string) =>
  `pg_catalog.to_char(r.${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as ${column}`;

/** The select list for alias `r` of `backup.runs`. */
export const runColumns = [
  ...[
    "id",
    "kind",
    "status",
    "origin",
    "attempt",
    "concurrency",
    "snapshot",
    "snapshot_name",
    "wal_lsn",
    "fingerprint",
  ],
  ...[
    "base_run",
    "chain_id",
    "tables",
    "rows",
    "raw_bytes",
    "stored_bytes",
    "new_stored_bytes",
    "tasks_total",
    "tasks_done",
  ],
  ...[
    "bytes_total",
    "bytes_done",
    "manifest_name",
    "manifest_hash",
    "generation",
    "epoch",
    "store_prefix",
    "error_code",
    "error_message",
  ],
  ...["hint", "warnings", "quarantine_reason"],
].map((column) => `r.${column}`).concat(
  ["created_at", "started_at", "finished_at", "consistent_at", "settled_at"].map(moment),
  "pg_catalog.array_to_json(r.tiers) as tiers",
).join(", ");

export function runRowOf(row: Row): RunRow {
  return {
    id: text(row, "id"),
    kind: text(row, "kind"),
    tiers: JSON.parse(text(row, "tiers")) as string[],
    status: statusOf(text(row, "status")),
    origin: text(row, "origin"),
    attempt: Number(row["attempt"]),
    concurrency: Number(row["concurrency"]),
    createdAt: text(row, "created_at"),
    startedAt: row["started_at"] ?? null,
    finishedAt: row["finished_at"] ?? null,
    consistentAt: row["consistent_at"] ?? null,
    snapshot: row["snapshot"] ?? null,
    snapshotName: row["snapshot_name"] ?? null,
    walLsn: row["wal_lsn"] ?? null,
    fingerprint: row["fingerprint"] ?? null,
    settledAt: row["settled_at"] ?? null,
    baseRun: row["base_run"] ?? null,
    chainId: row["chain_id"] ?? null,
    tables: numberOrNull(row, "tables"),
    rows: Number(row["rows"]),
    rawBytes: Number(row["raw_bytes"]),
    storedBytes: Number(row["stored_bytes"]),
    newStoredBytes: Number(row["new_stored_bytes"]),
    tasksTotal: Number(row["tasks_total"]),
    tasksDone: Number(row["tasks_done"]),
    bytesTotal: numberOrNull(row, "bytes_total"),
    bytesDone: Number(row["bytes_done"]),
    manifestName: row["manifest_name"] ?? null,
    manifestHash: row["manifest_hash"] ?? null,
    generation: numberOrNull(row, "generation"),
    epoch: row["epoch"] ?? null,
    storePrefix: text(row, "store_prefix"),
    errorCode: row["error_code"] ?? null,
    errorMessage: row["error_message"] ?? null,
    hint: row["hint"] ?? null,
    warnings: JSON.parse(text(row, "warnings")) as RunRow["warnings"],
    quarantineReason: row["quarantine_reason"] ?? null,
  };
}

/** A column that the database never leaves null. */
export function text(row: Row, column: string): string {
  const value = row[column];
  if (value === null || value === undefined) throw new HoldfastError("internal", `${column} came back without a value`);
  return value;
}

export function numberOrNull(row: Row, column: string): number | null {
  const value = row[column];
  return value === null || value === undefined ? null : Number(value);
}

function statusOf(value: string): RunStatus {
  if (value in runStates) return value as RunStatus;
  throw new HoldfastError("internal", `a run has the unknown status ${value}`);
}
