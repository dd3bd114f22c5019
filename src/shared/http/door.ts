/** What every function does with a request before and after its own action. */
import type { Anchor } from "../audit/anchor.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Random } from "../random.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { z } from "zod";
import { answer, errorAnswer, metricsAnswer } from "./answer.ts";
import type { DrainResult } from "../changes/drain/drain.ts";
import type { DownloadBucket } from "../download/bucket.ts";
import { type Caller, type Needs, recognise, tooMany } from "./admission.ts";
import { acceptCall, type CalledKind, endCall, endDrain, endLeg, noteRefusal } from "./call_queries.ts";
import { refusal } from "./caller.ts";
import { allowedOrigin, preflight, withOrigin } from "./cors.ts";
import { type Environment, optional, variables } from "./environment.ts";
import type { Requested } from "../jobs/queries.ts";
import type { PlanDocument } from "../retention/document.ts";
import type { FilesOutline } from "../files/files_outline.ts";
import type { FullOutline } from "../restore/legs.ts";
import type { IsolateBudget } from "./isolate_budget.ts";
import type { LegSlot } from "./leg_slot.ts";
import type { LetIn } from "./people.ts";
import type { CheckPerson, PersonClaims } from "./person.ts";
import { readBody } from "./read_body.ts";
import { addressOf, type CountRefusal } from "./refusals.ts";
import { parseRequest } from "./requests.ts";
import type { RequireStored } from "./require_backup.ts";

/**
 * Claims and finishes tasks of the run, as `worker`, until its budget is spent or nothing can be done. Throws what kept it
 * from them.
 */
export type Leg = (connection: Connection, run: string, worker: string) => Promise<void>;

/** What every door needs; `front.ts` makes it of a runtime. */
export interface FrontDeps {
  readonly environment: Environment;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Keeps the isolate alive for work that goes on after the answer. Gets native promises that never reject. */
  readonly waitUntil: (work: Promise<void>) => void;
  /** Of this isolate, the same for all its requests. */
  readonly slot: LegSlot;
  /** So is this one. */
  readonly budget: IsolateBudget;
  readonly checkPerson: CheckPerson;
  readonly letIn: LetIn;
  readonly countRefusal: CountRefusal;
  /** Opens nothing yet. Errors: `setting_missing`, `usage`. */
  readonly openDatabase: (environment: Environment) => Database;
}

/** What the function `backup` needs besides; `backup_deps.ts` makes it. So it is with the others: each carries its own rooms alone. */
export interface BackupDoorDeps extends FrontDeps {
  readonly legs: Readonly<Record<"full" | "replicate", Leg>>;
  /** Drains the change stream, as `worker`, until its end or the budget's. */
  readonly drain: (worker: string) => Promise<DrainResult>;
  /** Puts the head of the audit's chain into the store; null where it stands there. Errors: of key, store and database. */
  readonly anchor: (connection: Connection) => Promise<Anchor | null>;
  /** The run that copies what the second store lacks; null where there is none. Errors: those of settings and database. */
  readonly requestCopies: (connection: Connection) => Promise<Requested | null>;
}

export interface VerifyDoorDeps extends FrontDeps {
  readonly legs: Readonly<Record<"verify", Leg>>;
}

export interface RetentionDoorDeps extends FrontDeps {
  readonly legs: Readonly<Record<"prune", Leg>>;
  /** What a prune would remove now. Errors: those of settings, stores and database. */
  readonly planRetention: (connection: Connection) => Promise<PlanDocument>;
}

export interface RestoreDoorDeps extends FrontDeps {
  /** Is a full backup of that id in the store? Errors: `backup_not_found`, those of the store. */
  readonly requireStored: RequireStored;
  /** What a full restore into a new database would make. Errors: those of the store and the keys. */
  readonly outlineFull: (connection: Connection, backup: string) => Promise<FullOutline>;
  /** How many files a full backup has. Errors: those of the store and the keys. */
  readonly outlineFiles: (connection: Connection, backup: string) => Promise<FilesOutline>;
  /** Works on a restore, as `worker`, until its budget is spent or it has ended. Throws what ended it. */
  readonly restore: (connection: Connection, restore: string, worker: string) => Promise<void>;
}

export interface DownloadDoorDeps extends FrontDeps {
  /** As `RestoreDoorDeps` has it. */
  readonly requireStored: RequireStored;
  readonly downloads: {
    /** Errors: `setting_missing`. */
    readonly bucket: () => DownloadBucket;
    /** Lays out a download, as `worker`, until its budget is spent or it has ended. Throws what ended it. */
    readonly leg: (connection: Connection, download: string, worker: string) => Promise<void>;
  };
}

/** A call that was accepted: its caller is known, it is understood, and brought for the first time. */
export interface AcceptedCall {
  readonly nonce: string;
  readonly connection: Connection;
  /** An administrator's; else whoever has the worker secret signed it. */
  readonly byPerson: boolean;
  /** Who they are; null where it was signed. */
  readonly person: PersonClaims | null;
}

export interface Outcome {
  readonly status: 200 | 202;
  readonly document: unknown;
  /** Figures, which are the answer in the place of the document. */
  readonly metrics?: string;
  /** Run once the answer is on its way. It never rejects, and ends the call itself. */
  readonly work?: () => Promise<void>;
}

export interface Door<T, D extends FrontDeps> {
  readonly functionName: string;
  readonly schema: z.ZodType<T>;
  /** What a person needs for the action. A call that the worker secret signed may do everything. */
  readonly needs: (action: T) => Needs;
  /** What a person needs to be told what is wrong with a request. Default: a second factor. */
  readonly least?: Needs;
  readonly act: (action: T, call: AcceptedCall, deps: D) => Promise<Outcome>;
}

/** Never rejects: every failure is an answer with code, message and hint. */
export async function handle<T, D extends FrontDeps>(door: Door<T, D>, request: Request, deps: D): Promise<Response> {
  deps.budget.called();
  const origin = allowedOrigin(request, deps.environment);
  const response = request.method === "OPTIONS" ? preflight() : await answered(door, request, deps);
  return withOrigin(response, origin);
}

async function answered<T, D extends FrontDeps>(door: Door<T, D>, request: Request, deps: D): Promise<Response> {
  const { functionName } = door;
  let known: Awaited<ReturnType<typeof recognise>>;
  try {
    if (request.method !== "POST") throw new HoldfastError("method_not_allowed", "a function takes POST only");
    const secret = optional(deps.environment, variables.workerSecret);
    if (secret === undefined) deps.log.error("caller.secret_missing", { variable: variables.workerSecret });
    const { checkPerson, random } = deps;
    const { headers } = request;
    const now = deps.clock.now();
    known = await recognise({
      functionName,
      headers,
      readBody: () => readBody(request),
      secret,
      now,
      checkPerson,
      random,
    });
  } catch (error) {
    return await turnedAway(door, request.headers, error, deps);
  }
  const { caller, body } = known;
  const action = understood(door, body);
  let connection: Connection;
  try {
    connection = await admitted(door, caller, action, deps);
  } catch (error) {
    return refused(door, error, caller.person === null, deps);
  }
  return await act(door, caller, action, connection, deps);
}

/** A session in which the caller may act. Calls that are signed never wait behind people. */
async function admitted<T, D extends FrontDeps>(
  door: Door<T, D>,
  { person }: Caller,
  action: T | HoldfastError,
  deps: D,
): Promise<Connection> {
  const open = () => deps.openDatabase(deps.environment);
  if (person === null) return await open().connect("holdfast:function");
  // Whoever may not do anything here learns nothing of what was wrong with the request.
  const needs = action instanceof HoldfastError ? door.least ?? "second factor" : door.needs(action);
  return await deps.letIn(open, person, door.functionName, needs);
}

async function act<T, D extends FrontDeps>(
  door: Door<T, D>,
  { person, nonce, expiresAt }: Caller,
  action: T | HoldfastError,
  connection: Connection,
  deps: D,
): Promise<Response> {
  const { functionName } = door;
  const call: AcceptedCall = { nonce, connection, byPerson: person !== null, person };
  let [working, accepted] = [false, false];
  try {
    accepted = await acceptCall(connection, functionName, { nonce, expiresAt });
    if (!accepted) throw refusal();
    if (action instanceof HoldfastError) throw action;
    const outcome = await door.act(action, call, deps);
    if (outcome.work === undefined) {
      await endCall(connection, nonce, `answered ${outcome.status}`);
    } else {
      working = true;
      deps.waitUntil(outcome.work().finally(() => connection.close()));
    }
    return outcome.metrics === undefined ? answer(outcome.status, outcome.document) : metricsAnswer(outcome.metrics);
  } catch (error) {
    const { code, status } = asHoldfastError(error);
    // These rows are for people to look at; an answer that is on its way does not wait for them to be right.
    if (status < 500) await noteRefusal(connection, person, functionName, code).catch(() => {});
    if (accepted) await endCall(connection, nonce, code).catch(() => {});
    return refused(door, error, true, deps);
  } finally {
    if (!working) await connection.close();
  }
}

function understood<T, D extends FrontDeps>(door: Door<T, D>, body: Uint8Array): T | HoldfastError {
  try {
    return parseRequest(door.schema, body);
  } catch (error) {
    return asHoldfastError(error);
  }
}

/** The call of nobody known: counted, so that whoever tries again and again has to wait. */
export async function turnedAway(
  door: { readonly functionName: string },
  headers: Headers,
  error: unknown,
  deps: FrontDeps,
): Promise<Response> {
  const { code, status } = asHoldfastError(error);
  if (status >= 500) return refused(door, error, false, deps);
  const open = () => deps.openDatabase(deps.environment);
  const call = { address: addressOf(headers), functionName: door.functionName, reason: code };
  const pause = await deps.countRefusal(open, call);
  return refused(door, pause > 0 ? tooMany(pause) : error, false, deps);
}

export function refused(
  door: { readonly functionName: string },
  error: unknown,
  known: boolean,
  deps: FrontDeps,
): Response {
  const ours = asHoldfastError(error);
  deps.log.warn("call.refused", { function: door.functionName, code: ours.code, status: ours.status });
  return errorAnswer(ours, known);
}

/** Work after the answer, or that this isolate has other work: whoever has it calls the next when it is over. */
export type SlotWork = "busy" | (() => Promise<void>);

/** The leg of a run. What goes wrong is written to the run or raises an alert; nothing is thrown. */
export function legWork<K extends CalledKind>(
  kind: K,
  run: string,
  call: AcceptedCall,
  deps: Pick<FrontDeps, "slot" | "log"> & { readonly legs: Readonly<Record<K, Leg>> },
): SlotWork {
  return slotWork(
    { name: "leg", of: { run } },
    deps,
    async () => await deps.legs[kind](call.connection, run, workerOf(call)),
    // Another worker has the task now: nothing is wrong with the run.
    (_, failure) => endLeg(call.connection, call.nonce, run, failure?.code === "lease_lost" ? null : failure),
  );
}

/** A drain; where it is busy the next minute brings another. What goes wrong raises an alert; nothing is thrown. */
export function drainWork(call: AcceptedCall, deps: BackupDoorDeps): SlotWork {
  return slotWork(
    { name: "drain", of: {} },
    deps,
    async () => await deps.drain(workerOf(call)),
    (result, failure) => endDrain(call.connection, call.nonce, result, failure),
  );
}

/** The leg of a restore. What goes wrong is written to the restore; nothing is thrown. */
export function restoreWork(restore: string, call: AcceptedCall, deps: RestoreDoorDeps): SlotWork {
  return slotWork(
    { name: "restore", of: { restore } },
    deps,
    async () => await deps.restore(call.connection, restore, workerOf(call)),
    (_, failure) => endCall(call.connection, call.nonce, failure?.code ?? "done"),
  );
}

/** The leg of a download. What goes wrong is written to the download; nothing is thrown. */
export function downloadWork(download: string, call: AcceptedCall, deps: DownloadDoorDeps): SlotWork {
  return slotWork(
    { name: "download", of: { download } },
    deps,
    async () => await deps.downloads.leg(call.connection, download, workerOf(call)),
    (_, failure) => endCall(call.connection, call.nonce, failure?.code ?? "done"),
  );
}

/** Takes the isolate's slot for `work`, and tells its end once the slot is free again. */
export function slotWork<T>(
  what: { readonly name: string; readonly of: Readonly<Record<string, string>> },
  { slot, log }: Pick<FrontDeps, "slot" | "log">,
  work: () => Promise<T>,
  tell: (result: T | null, failure: HoldfastError | null) => Promise<void>,
): SlotWork {
  if (!slot.enter()) return "busy";
  return async () => {
    let result: T | null = null;
    let failure: HoldfastError | null = null;
    try {
      result = await work();
    } catch (error) {
      failure = asHoldfastError(error);
      log.error(`${what.name}.failed`, { ...what.of, code: failure.code, message: failure.message });
    }
    slot.leave();
    try {
      await tell(result, failure);
    } catch (error) {
      // The database is gone or slow: the watchdog finds a leg that never ended and sends another.
      log.error(`${what.name}.not_reported`, { ...what.of, code: asHoldfastError(error).code });
    }
  };
}

/** The watchdog ends the leases of a call's worker together with the call. */
export function workerOf(call: AcceptedCall): string {
  return `call:${call.nonce}`;
}
