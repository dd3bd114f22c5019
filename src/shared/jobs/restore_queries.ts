/** All calls of the SQL functions that change restores. docs/architecture.md, "Restores". */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import {
  restoreColumns,
  type RestoreMode,
  type RestoreRow,
  restoreRowOf,
  type RestoreScope,
  type RestoreStage,
  type RestoreTable,
} from "./restore_row.ts";
import { text } from "./run_row.ts";

/** Who works on which restore: comes with every call. */
export interface RestoreLease {
  readonly id: string;
  /** Fencing token: with an older one every call is `lease_lost`. */
  readonly token: string;
}

export interface BegunRestore extends RestoreLease {
  /** Named, not yet made; null: this restore has none. */
  readonly sideSchema: string | null;
}

export interface RestoreRequest {
  readonly scope: RestoreScope;
  readonly mode: RestoreMode;
  /** Of the full backup that is read. */
  readonly sourceBackup: string;
  /** ISO 8601; null: as the backup is. */
  readonly pointAt: string | null;
  /** Host and name of the target, for people; no password. */
  readonly targetLabel: string;
  /** Is the target the database that this connection leads to? */
  readonly targetIsHere: boolean;
  /** For the scope `user` alone. */
  readonly userId: string | null;
  /** With a side schema? Default: for tables, records and users. */
  readonly side?: boolean;
  /** How long its rows stay once the restore has ended; default: the setting `side_schema_seconds`. */
  readonly sideSeconds?: number;
  readonly tables?: readonly RestoreTable[];
  readonly stepsTotal?: number;
  readonly safetyRun?: string;
  /** What a worker needs to go on; never a row's value. */
  readonly state?: Readonly<Record<string, unknown>>;
  readonly worker: string;
  readonly leaseSeconds: number;
  /** Nobody has it yet: legs of the function claim it, one after the other. */
  readonly byFunction?: boolean;
  /** Default: the signed-in person's keyed hash, else the role. */
  readonly requestedBy?: string;
}

export interface RestoreFacts {
  /** Never back: planned, loading, applying. */
  readonly status?: RestoreStage;
  readonly tables?: readonly RestoreTable[];
  readonly stepsDone?: number;
  readonly stepsTotal?: number;
  readonly rowsDone?: number;
  readonly safetyRun?: string;
  readonly state?: Readonly<Record<string, unknown>>;
  /** Default: 90. */
  readonly leaseSeconds?: number;
}

export interface RestoreEnd {
  readonly tables?: readonly RestoreTable[];
  readonly stepsDone?: number;
  readonly rowsDone?: number;
  readonly safetyRun?: string;
  /** Default: the time since it began. */
  readonly measuredSeconds?: number;
}

/**
 * `run_state` when another restore in place is at work on one of the same tables; rows that name no tables yet are looked
 * at again when they do (`restoreProgress`).
 */
export async function beginRestore(connection: Connection, request: RestoreRequest): Promise<BegunRestore> {
  const [row] = await call(connection, "select id, side_schema, token from backup.begin_restore($1::jsonb)", [
    JSON.stringify({
      scope: request.scope,
      mode: request.mode,
      source_backup: request.sourceBackup,
      point_at: request.pointAt,
      target_label: request.targetLabel,
      target_is_here: request.targetIsHere,
      user_id: request.userId,
      side: request.side,
      side_seconds: request.sideSeconds,
      tables: request.tables ?? [],
      steps_total: request.stepsTotal,
      safety_run: request.safetyRun,
      state: request.state ?? {},
      worker: request.worker,
      lease_seconds: request.leaseSeconds,
      by_function: request.byFunction ?? false,
      requested_by: request.requestedBy,
    }),
  ]);
  if (row === undefined) throw new HoldfastError("internal", "begin_restore gave no restore");
  return { id: text(row, "id"), token: text(row, "token"), sideSchema: row["side_schema"] ?? null };
}

/**
 * Renews the lease and records how far it is. In a transaction that is about to commit, the record commits with it; the row
 * stays locked until then, so that no other session of this worker can call it meanwhile.
 * Errors: `cancelled` once somebody asked for it (this call's record then stands if its transaction commits; the worker
 * undoes what is not committed, then `failRestore` with that error); `lease_lost`; `run_state` for a step back or tables
 * that another restore in place is at work on.
 */
export async function restoreProgress(connection: Connection, lease: RestoreLease, facts: RestoreFacts): Promise<void> {
  const [row] = await call(
    connection,
    "select backup.restore_progress($1::uuid, $2::bigint, $3::jsonb) as cancel_asked",
    [
      lease.id,
      lease.token,
      JSON.stringify({
        status: facts.status,
        tables: facts.tables,
        steps_done: facts.stepsDone,
        steps_total: facts.stepsTotal,
        rows_done: facts.rowsDone,
        safety_run: facts.safetyRun,
        state: facts.state,
        lease_seconds: facts.leaseSeconds,
      }),
    ],
  );
  if (row?.["cancel_asked"] === "t") {
    throw new HoldfastError("cancelled", `restore ${lease.id} was cancelled`, {
      hint: "What it had committed stays; the same restore can be resumed.",
    });
  }
}

/** `beside` for rows in a side schema that are left there, else `succeeded`. Errors: `lease_lost`. */
export async function finishRestore(
  connection: Connection,
  lease: RestoreLease,
  end: RestoreEnd,
): Promise<"beside" | "succeeded"> {
  const [row] = await call(connection, "select backup.finish_restore($1::uuid, $2::bigint, $3::jsonb) as status", [
    lease.id,
    lease.token,
    JSON.stringify({
      tables: end.tables,
      steps_done: end.stepsDone,
      rows_done: end.rowsDone,
      safety_run: end.safetyRun,
      measured_seconds: end.measuredSeconds,
    }),
  ]);
  return row?.["status"] === "beside" ? "beside" : "succeeded";
}

/**
 * The code `cancelled` makes it cancelled, any other failed; with an alert unless it is known to have changed nothing.
 * Errors: `lease_lost`.
 */
export async function failRestore(
  connection: Connection,
  lease: RestoreLease,
  failure: HoldfastError,
  changed = true,
): Promise<void> {
  await call(connection, "select backup.fail_restore($1::uuid, $2::bigint, $3::jsonb)", [
    lease.id,
    lease.token,
    JSON.stringify({ code: failure.code, message: failure.message, hint: failure.hint, changed }),
  ]);
}

/** Writes into the audit which keys opened something for a restore or a download, by their ids; each set of them once. */
export async function keysUsed(
  connection: Connection,
  { what, id }: { readonly what: "restore" | "download"; readonly id: string },
  ring: { readonly used: readonly string[] },
): Promise<void> {
  await call(connection, "select backup.keys_used($1, array(select json_array_elements_text($2::json)))", [
    `${what}:${id}`,
    JSON.stringify(ring.used),
  ]);
}

/** Returns true when it is cancelled now; false: its worker will see it. Errors: `run_not_found`, `run_state`. */
export async function cancelRestore(connection: Connection, id: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.cancel_restore($1::uuid) as status", [id]);
  return row?.["status"] === "cancelled";
}

/**
 * Goes on with a restore that nobody works on. Null while another worker has it, and for one that was asked to end, which
 * ends now. Errors: `run_not_found`; `run_state` for a state that does not allow it, for a side schema that is gone, and for
 * tables that another restore in place is at work on.
 */
export async function claimRestore(
  connection: Connection,
  id: string,
  claim: {
    readonly worker: string;
    readonly leaseSeconds: number;
    /** Also one that failed or was cancelled: a person asks for it. */
    readonly resume?: boolean;
    /** Puts the rows of one that stands beside into place, in this mode. */
    readonly apply?: "missing" | "merge" | "replace";
  },
): Promise<RestoreLease | null> {
  const [row] = await call(
    connection,
    "select backup.claim_restore($1::uuid, $2, $3::interval, $4::boolean, $5) as token",
    [id, claim.worker, `${claim.leaseSeconds} seconds`, String(claim.resume ?? false), claim.apply ?? null],
  );
  const token = row?.["token"] ?? null;
  return token === null ? null : { id, token };
}

/** A leg is over and its restore is not: the function is called again, at once or after so long. Errors: `lease_lost`. */
export async function restRestore(connection: Connection, lease: RestoreLease, waitSeconds: number): Promise<void> {
  await call(connection, "select backup.rest_restore($1::uuid, $2::bigint, $3::interval)", [
    lease.id,
    lease.token,
    `${waitSeconds} seconds`,
  ]);
}

/** The newest full backup that this database recorded, but none that a restore took. Errors: `backup_not_found`. */
export async function newestFull(connection: Connection): Promise<string> {
  const [row] = await call(
    connection,
    `select r.id from backup.runs as r
      where r.kind = 'full' and r.status = 'succeeded' and r.tiers <> array['safety']
      order by r.consistent_at desc limit 1`,
    [],
  );
  if (row === undefined) throw new HoldfastError("backup_not_found", "this database has no full backup yet");
  return text(row, "id");
}

/** The newest full backup that shows a moment before this one (ISO 8601). Errors: `point_uncovered`. */
export async function fullBefore(connection: Connection, moment: string): Promise<string> {
  const [row] = await call(
    connection,
    `select r.id from backup.runs as r
      where r.kind = 'full' and r.status = 'succeeded' and r.chain_id is not null and r.consistent_at <= $1::timestamptz
      order by r.consistent_at desc limit 1`,
    [moment],
  );
  if (row === undefined) throw new HoldfastError("point_uncovered", `no full backup is from before ${moment}`);
  return text(row, "id");
}

/** The restore by which legs of the function are making this new database; null: none is at work. */
export async function fullUnderWay(connection: Connection, database: string): Promise<string | null> {
  const [row] = await call(
    connection,
    `select r.id from backup.restores as r
      where r.scope = 'full' and not r.target_is_here and r.target_label = $1 and r.finished_at is null
        and r.next_leg_at is not null`,
    [database],
  );
  return row === undefined ? null : text(row, "id");
}

/** How the safety backup of a restore stands. */
export interface RestoreSafety {
  readonly run: string | null;
  /** Of its run; `waiting` until it has begun. */
  readonly status: string;
  /** The error of one that failed. */
  readonly told: string | null;
}

/** Orders the safety backup of a restore, once, or says how it stands; one that ended well is recorded. Errors: `lease_lost`. */
export async function restoreSafety(connection: Connection, lease: RestoreLease): Promise<RestoreSafety> {
  const [row] = await call(connection, "select run, status, told from backup.restore_safety($1::uuid, $2::bigint)", [
    lease.id,
    lease.token,
  ]);
  return { run: row?.["run"] ?? null, status: row?.["status"] ?? "", told: row?.["told"] ?? null };
}

/** Calls the function for a restore that waits for its next leg; what keeps it from being called fails the restore. */
export async function launchRestore(connection: Connection, id: string): Promise<void> {
  await call(connection, "select backup.launch_restore($1::uuid)", [id]);
}

/**
 * The rows that a restore left beside are to be put into place, by legs of the function. `target`: the name of the database, as
 * whoever wants it typed it. Errors: `confirmation_wrong`, `run_not_found`, `run_state`.
 */
export async function orderApply(
  connection: Connection,
  id: string,
  order: {
    readonly mode: "missing" | "merge" | "replace";
    readonly target: string;
    readonly options: Readonly<Record<string, unknown>>;
  },
): Promise<void> {
  await call(connection, "select backup.order_apply($1::uuid, $2, $3, $4::jsonb)", [
    id,
    order.mode,
    order.target,
    JSON.stringify(order.options),
  ]);
}

/** Errors: `run_not_found`. */
export async function readRestore(connection: Connection, id: string): Promise<RestoreRow> {
  const [row] = await call(
    connection,
    `select ${restoreColumns} from backup.restores as r where r.id = $1::uuid`,
    [id],
  );
  if (row === undefined) throw new HoldfastError("run_not_found", `there is no restore ${id}`);
  return restoreRowOf(row);
}

/** Newest first; `latest` is at least 1. */
export async function listRestores(connection: Connection, latest: number): Promise<RestoreRow[]> {
  const rows = await call(
    connection,
    `select ${restoreColumns} from backup.restores as r order by r.started_at desc, r.id limit $1::integer`,
    [String(latest)],
  );
  return rows.map(restoreRowOf);
}

/** False when it was gone already. Errors: `run_not_found`; `run_state` while it is in use or something depends on it. */
export async function dropSide(connection: Connection, id: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.drop_side($1::uuid) as dropped", [id]);
  return row?.["dropped"] === "t";
}

/** `until`: ISO 8601. Errors: `run_not_found`, `run_state`, `payload_invalid`. */
export async function extendSide(connection: Connection, id: string, until: string): Promise<void> {
  await call(connection, "select backup.extend_side($1::uuid, $2::timestamptz)", [id, until]);
}
