/** All calls of the SQL functions that change runs and tasks. docs/architecture.md, "Runs and tasks". */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { runColumns, type RunRow, runRowOf, text } from "./run_row.ts";

export type RunOrigin = "schedule" | "cli" | "dashboard" | "http";
export type TaskKind =
  | "plan"
  | "chunks"
  | "counts"
  | "look"
  | "files"
  | "manifest"
  | "verify"
  | "replicate"
  | "prune"
  | "drill";

export interface Task {
  readonly id: string;
  readonly run: string;
  readonly attempt: number;
  readonly kind: TaskKind;
  /** What `add_tasks` was given for it; its reader checks the shape. */
  readonly detail: unknown;
  readonly estimatedBytes: number;
  /** Fencing token of this lease. */
  readonly token: string;
  readonly tries: number;
}

export interface Requested {
  readonly run: string;
  /** True when it is a run that was there already. */
  readonly joined: boolean;
}

export async function requestRun(
  connection: Connection,
  request: {
    readonly kind: string;
    readonly tiers: readonly string[];
    readonly origin: RunOrigin;
    /** The same key gives the same run; null: every request is its own. */
    readonly requestKey: string | null;
  },
): Promise<Requested> {
  const [row] = await call(connection, "select run, joined from backup.request_run($1, $2::text[], $3, $4)", [
    request.kind,
    `{${request.tiers.join(",")}}`,
    request.origin,
    request.requestKey,
  ]);
  if (row === undefined) throw new HoldfastError("internal", "request_run gave no run");
  return { run: text(row, "run"), joined: row["joined"] === "t" };
}

/** `run_not_found` when there is none of that id. */
export async function readRun(connection: Connection, run: string): Promise<RunRow> {
  const [row] = await call(connection, `select ${runColumns} from backup.runs as r where r.id = $1::uuid`, [run]);
  if (row === undefined) throw new HoldfastError("run_not_found", `there is no run ${run}`);
  return runRowOf(row);
}

/** Null: nothing can be done now. */
export async function claimTask(
  connection: Connection,
  run: string,
  worker: string,
  leaseSeconds: number,
): Promise<Task | null> {
  const [row] = await call(
    connection,
    "select id, run_id, attempt, kind, detail, estimated_bytes, token, tries from backup.claim_task($1::uuid, $2, $3::interval)",
    [run, worker, `${leaseSeconds} seconds`],
  );
  if (row === undefined) return null;
  return {
    id: text(row, "id"),
    run: text(row, "run_id"),
    attempt: Number(row["attempt"]),
    kind: text(row, "kind") as TaskKind,
    detail: JSON.parse(text(row, "detail")),
    estimatedBytes: Number(row["estimated_bytes"]),
    token: text(row, "token"),
    tries: Number(row["tries"]),
  };
}

/** Has the run a task that somebody works on or can claim later? */
export async function hasWork(connection: Connection, run: string): Promise<boolean> {
  const [row] = await call(
    connection,
    `select exists (
       select from backup.tasks as t join backup.runs as r on r.id = t.run_id
       where t.run_id = $1::uuid and t.status in ('open', 'leased') and t.attempt in (0, r.attempt)
         and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
     ) as work`,
    [run],
  );
  return row?.["work"] === "t";
}

export async function renewLease(connection: Connection, task: Task, leaseSeconds: number): Promise<void> {
  await call(connection, "select backup.renew_lease($1::bigint, $2::bigint, $3::interval)", [
    task.id,
    task.token,
    `${leaseSeconds} seconds`,
  ]);
}

export async function completeTask(connection: Connection, task: Task, result: unknown): Promise<void> {
  await call(connection, "select backup.complete_task($1::bigint, $2::bigint, $3::jsonb)", [
    task.id,
    task.token,
    JSON.stringify(result),
  ]);
}

/** Gives the task back; `null` for a leg that ran out of its budget, else the failure. */
export async function returnTask(connection: Connection, task: Task, failure: HoldfastError | null): Promise<void> {
  const error = failure === null
    ? null
    : JSON.stringify({ code: failure.code, message: failure.message, hint: failure.hint, retry: failure.retry });
  await call(connection, "select backup.return_task($1::bigint, $2::bigint, $3::jsonb)", [task.id, task.token, error]);
}

export async function beginAttempt(connection: Connection, task: Task): Promise<number> {
  const [row] = await call(connection, "select backup.begin_attempt($1::uuid, $2::bigint, $3::bigint) as attempt", [
    task.run,
    task.id,
    task.token,
  ]);
  return Number(row?.["attempt"]);
}

export async function recordSnapshot(connection: Connection, task: Task, facts: SnapshotFacts): Promise<void> {
  const document = {
    snapshot_name: facts.name,
    snapshot: facts.text,
    wal_lsn: facts.walLsn,
    consistent_at: facts.consistentAt,
    keeper_pid: facts.keeperPid,
    keeper_started_at: facts.keeperStartedAt,
    keeper_until: facts.keeperUntil,
    fingerprint: facts.fingerprint,
    server_version: facts.serverVersion,
  };
  await call(connection, "select backup.record_snapshot($1::uuid, $2::bigint, $3::bigint, $4::jsonb)", [
    task.run,
    task.id,
    task.token,
    JSON.stringify(document),
  ]);
}

/** What a snapshot is and who holds it. Times as the server wrote them. */
export interface SnapshotFacts {
  readonly name: string;
  /** `pg_current_snapshot()`. */
  readonly text: string;
  readonly walLsn: string;
  readonly consistentAt: string;
  readonly keeperPid: number;
  readonly keeperStartedAt: string;
  readonly keeperUntil: string;
  /** Of the catalog, taken before the snapshot by a fresh one. */
  readonly fingerprint: string;
  readonly serverVersion: number;
}

export async function addTasks(connection: Connection, task: Task, plan: unknown): Promise<void> {
  await call(connection, "select backup.add_tasks($1::uuid, $2::bigint, $3::bigint, $4::jsonb)", [
    task.run,
    task.id,
    task.token,
    JSON.stringify(plan),
  ]);
}

export async function finishRun(connection: Connection, task: Task, manifest: unknown): Promise<string> {
  const [row] = await call(
    connection,
    "select backup.finish_run($1::uuid, $2::bigint, $3::bigint, $4::jsonb) as status",
    [
      task.run,
      task.id,
      task.token,
      JSON.stringify(manifest),
    ],
  );
  return row?.["status"] ?? "";
}

/** False when the run had ended already. */
export async function failRun(connection: Connection, run: string, failure: HoldfastError): Promise<boolean> {
  const [row] = await call(connection, "select backup.fail_run($1::uuid, $2, $3, $4) as failed", [
    run,
    failure.code,
    failure.message,
    failure.hint,
  ]);
  return row?.["failed"] === "t";
}

export async function cancelRun(connection: Connection, run: string): Promise<void> {
  await call(connection, "select backup.cancel_run($1::uuid)", [run]);
}

export async function acceptRun(connection: Connection, run: string, reason: string): Promise<void> {
  await call(connection, "select backup.accept_run($1::uuid, $2)", [run, reason]);
}

export async function recordVerification(
  connection: Connection,
  run: string,
  problems: readonly unknown[],
): Promise<void> {
  await call(connection, "select backup.record_verification($1::uuid, $2::jsonb)", [run, JSON.stringify(problems)]);
}
