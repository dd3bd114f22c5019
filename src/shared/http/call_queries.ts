/** The SQL functions that only the front door calls; those of runs and tasks are in `jobs/queries.ts`. */
import type { DrainResult } from "../changes/drain/drain.ts";
import { HoldfastError } from "../errors.ts";
import type { Requested } from "../jobs/queries.ts";
import { numberOrNull, text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Needs } from "./admission.ts";
import type { SignedCall } from "./caller.ts";
import type { PersonClaims } from "./person.ts";

/** The kinds of run that functions work on. */
export type CalledKind = "full" | "verify" | "replicate" | "prune" | "drill";

/** True exactly once for a nonce. */
export async function acceptCall(connection: Connection, functionName: string, call: SignedCall): Promise<boolean> {
  const [row] = await connection.query("select backup.accept_call($1, $2, $3::timestamptz) as accepted", [
    call.nonce,
    functionName,
    call.expiresAt.toISOString(),
  ]);
  return row?.["accepted"] === "t";
}

/** The run's status, once the call is known to work on it. `run_not_found`. */
export async function attachCall(
  connection: Connection,
  nonce: string,
  run: string,
  kind: CalledKind,
): Promise<string> {
  const [row] = await connection.query("select backup.attach_call($1, $2::uuid, $3) as status", [nonce, run, kind]);
  return row?.["status"] ?? "";
}

/** For calls without a leg. */
export async function endCall(connection: Connection, nonce: string, answer: string): Promise<void> {
  await connection.query("select backup.end_call($1, $2)", [nonce, answer]);
}

/** The leg is over; further legs are called where work is left. `failure`: what kept it from its tasks. */
export async function endLeg(
  connection: Connection,
  nonce: string,
  run: string,
  failure: HoldfastError | null,
): Promise<void> {
  const document = failure === null
    ? null
    : JSON.stringify({ code: failure.code, message: failure.message, hint: failure.hint, retry: failure.retry });
  await connection.query("select backup.end_leg($1, $2::uuid, $3::jsonb)", [nonce, run, document]);
}

/** The drain is over: goes on at once where work is left, orders a full backup for a chain that has none. */
export async function endDrain(
  connection: Connection,
  nonce: string,
  result: DrainResult | null,
  failure: HoldfastError | null,
): Promise<void> {
  await connection.query("select backup.end_drain($1, $2::jsonb, $3::jsonb)", [
    nonce,
    result === null ? null : JSON.stringify({ outcome: result.outcome, begun: result.begun, chain: result.chain }),
    failure === null ? null : JSON.stringify({ code: failure.code, message: failure.message }),
  ]);
}

/** Notices were delivered, as far as the budget went; what is left is called for at once. */
export async function endNotify(connection: Connection, nonce: string, failure: HoldfastError | null): Promise<void> {
  await connection.query("select backup.end_notify($1, $2::jsonb)", [
    nonce,
    failure === null ? null : JSON.stringify({ code: failure.code, message: failure.message }),
  ]);
}

/** The monitor's look is over; what kept it from it is an alert until the next one. */
export async function endLook(connection: Connection, nonce: string, failure: HoldfastError | null): Promise<void> {
  await connection.query("select backup.end_look($1, $2::jsonb)", [
    nonce,
    failure === null ? null : JSON.stringify({ code: failure.code, message: failure.message }),
  ]);
}

/** Calls as many legs as the run can use now; what keeps them from being called fails the run. */
export async function launchRun(connection: Connection, run: string): Promise<void> {
  await connection.query("select backup.launch_run($1::uuid)", [run]);
}

/** `backup_not_found`. */
export async function requestVerification(connection: Connection, backup: string): Promise<Requested> {
  const [row] = await connection.query("select run, joined from backup.request_verification($1::uuid, 'http')", [
    backup,
  ]);
  if (row === undefined) throw new HoldfastError("internal", "request_verification gave no run");
  return { run: text(row, "run"), joined: row["joined"] === "t" };
}

/** The backup that a run of kind verify is about; null: it makes checks. */
export async function subjectOf(connection: Connection, run: string): Promise<string | null> {
  const [row] = await connection.query("select subject_run from backup.runs where id = $1::uuid", [run]);
  if (row === undefined) throw new HoldfastError("run_not_found", `there is no run ${run}`);
  return row["subject_run"] ?? null;
}

/** True while objects are left to look at. `lease_lost`. */
export async function recordVerifyLeg(
  connection: Connection,
  task: { readonly id: string; readonly token: string },
  leg: unknown,
): Promise<boolean> {
  const [row] = await connection.query("select backup.record_verify_leg($1::bigint, $2::bigint, $3::jsonb) as left", [
    task.id,
    task.token,
    JSON.stringify(leg),
  ]);
  return row?.["left"] === "t";
}

/** Seconds until a task that was given back may be claimed again; null when nothing waits for that. */
export async function secondsUntilClaimable(connection: Connection, run: string): Promise<number | null> {
  const [row] = await connection.query("select backup.seconds_until_claimable($1::uuid) as seconds", [run]);
  return numberOrNull(row ?? {}, "seconds");
}

/** What `backup.accept_person` says; the SQL function tells when. */
export type Verdict =
  | "accepted"
  | "paused"
  | "session_over"
  | "sign_in_old"
  | "not_admin"
  | "one_factor"
  | "factor_old"
  | "machines_only";

/** May the person do this? Every other verdict than `accepted` is counted; `pauseSeconds`: how long they are told to wait. */
export async function acceptPerson(
  connection: Connection,
  person: PersonClaims,
  functionName: string,
  needs: Needs,
): Promise<{ readonly verdict: Verdict; readonly pauseSeconds: number }> {
  const [row] = await connection.query("select verdict, pause from backup.accept_person($1::jsonb, $2, $3)", [
    JSON.stringify(person),
    functionName,
    needs,
  ]);
  return { verdict: (row?.["verdict"] ?? "session_over") as Verdict, pauseSeconds: Number(row?.["pause"] ?? 0) };
}

/** Counts a call of nobody known. Seconds for which the address is told to wait. */
export async function refuseAddress(
  connection: Connection,
  address: string,
  functionName: string,
  reason: string,
): Promise<number> {
  const [row] = await connection.query("select backup.refuse_address($1, $2, $3) as pause", [
    address,
    functionName,
    reason,
  ]);
  return Number(row?.["pause"] ?? 0);
}

/** Tells the audit of a call of somebody who was let in and asked for what cannot be. */
export async function noteRefusal(
  connection: Connection,
  person: PersonClaims | null,
  functionName: string,
  reason: string,
): Promise<void> {
  await connection.query("select backup.note_refusal($1, $2, $3)", [person?.sub ?? null, functionName, reason]);
}

/** Calls that were refused without a session of the database, added up. */
export interface RefusedTimes {
  readonly person: string;
  readonly functionName: string;
  readonly reason: string;
  readonly times: number;
}

/** Tells the audit of them. */
export async function noteRefusals(connection: Connection, refusals: readonly RefusedTimes[]): Promise<void> {
  await connection.query(
    `select backup.note_refusal(r.person, r.function_name, r.reason, r.times)
     from pg_catalog.jsonb_to_recordset($1::jsonb) as r (person text, function_name text, reason text, times bigint)`,
    [JSON.stringify(refusals.map(({ functionName, ...one }) => ({ ...one, function_name: functionName })))],
  );
}
