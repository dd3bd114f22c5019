/** What every function does with a request before and after its own action. */
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { z } from "zod";
import { answer, errorAnswer } from "./answer.ts";
import type { DrainResult } from "../changes/drain/drain.ts";
import { acceptCall, type CalledKind, endCall, endDrain, endLeg } from "./call_queries.ts";
import { checkSignature, refusal } from "./caller.ts";
import { type Environment, optional, variables } from "./environment.ts";
import type { LegSlot } from "./leg_slot.ts";
import { readBody } from "./read_body.ts";
import { parseRequest } from "./requests.ts";

/**
 * Claims and finishes tasks of the run, as `worker`, until its budget is spent or nothing can be done. Throws what kept it
 * from them.
 */
export type Leg = (connection: Connection, run: string, worker: string) => Promise<void>;

export interface DoorDeps {
  readonly environment: Environment;
  readonly clock: Clock;
  readonly log: Log;
  /** Keeps the isolate alive for work that goes on after the answer. Gets native promises that never reject. */
  readonly waitUntil: (work: Promise<void>) => void;
  /** Of this isolate, the same for all its requests. */
  readonly slot: LegSlot;
  /** Opens nothing yet. Errors: `setting_missing`, `usage`. */
  readonly openDatabase: (environment: Environment) => Database;
  readonly legs: Readonly<Record<CalledKind, Leg>>;
  /** Drains the change stream, as `worker`, until its end or the budget's. */
  readonly drain: (worker: string) => Promise<DrainResult>;
}

/** A call that was accepted: signed, understood, and brought for the first time. */
export interface AcceptedCall {
  readonly nonce: string;
  readonly connection: Connection;
}

export interface Outcome {
  readonly status: 200 | 202;
  readonly document: unknown;
  /** Run once the answer is on its way. It never rejects, and ends the call itself. */
  readonly work?: () => Promise<void>;
}

export interface Door<T> {
  readonly functionName: string;
  readonly schema: z.ZodType<T>;
  readonly act: (action: T, call: AcceptedCall, deps: DoorDeps) => Promise<Outcome>;
}

/** Never rejects: every failure is an answer with code, message and hint. */
export async function handle<T>(door: Door<T>, request: Request, deps: DoorDeps): Promise<Response> {
  let known = false;
  try {
    if (request.method !== "POST") throw new HoldfastError("method_not_allowed", "a function takes POST only");
    const body = await readBody(request);
    const secret = optional(deps.environment, variables.workerSecret);
    if (secret === undefined) deps.log.error("caller.secret_missing", { variable: variables.workerSecret });
    const signed = await checkSignature({
      functionName: door.functionName,
      headers: request.headers,
      body,
      secret,
      now: deps.clock.now(),
    });
    known = true;
    const action = parseRequest(door.schema, body);
    const connection = await deps.openDatabase(deps.environment).connect("holdfast:function");
    return await act(door, action, { nonce: signed.nonce, connection }, signed.expiresAt, deps);
  } catch (error) {
    return refused(door, error, known, deps);
  }
}

async function act<T>(
  door: Door<T>,
  action: T,
  call: AcceptedCall,
  expiresAt: Date,
  deps: DoorDeps,
): Promise<Response> {
  let working = false;
  let accepted = false;
  try {
    accepted = await acceptCall(call.connection, door.functionName, { nonce: call.nonce, expiresAt });
    if (!accepted) throw refusal();
    const outcome = await door.act(action, call, deps);
    if (outcome.work === undefined) {
      await endCall(call.connection, call.nonce, `answered ${outcome.status}`);
    } else {
      working = true;
      deps.waitUntil(outcome.work().finally(() => call.connection.close()));
    }
    return answer(outcome.status, outcome.document);
  } catch (error) {
    // The call's row is for people to look at; an answer that is on its way does not wait for it to be right.
    if (accepted) await endCall(call.connection, call.nonce, asHoldfastError(error).code).catch(() => {});
    return refused(door, error, true, deps);
  } finally {
    if (!working) await call.connection.close();
  }
}

function refused<T>(door: Door<T>, error: unknown, known: boolean, deps: DoorDeps): Response {
  const ours = asHoldfastError(error);
  deps.log.warn("call.refused", { function: door.functionName, code: ours.code, status: ours.status });
  return errorAnswer(ours, known);
}

/**
 * The leg of a run as work after the answer, or `busy` while another leg has this isolate: that one calls the next when
 * it is over. What goes wrong is written to the run or raises an alert; nothing is thrown.
 */
export function legWork(
  kind: CalledKind,
  run: string,
  call: AcceptedCall,
  deps: DoorDeps,
): "busy" | (() => Promise<void>) {
  if (!deps.slot.enter()) return "busy";
  return async () => {
    let failure: HoldfastError | null = null;
    try {
      await deps.legs[kind](call.connection, run, workerOf(call));
    } catch (error) {
      const ours = asHoldfastError(error);
      deps.log.error("leg.failed", { run, code: ours.code, message: ours.message });
      // Another worker has the task now: nothing is wrong with the run.
      if (ours.code !== "lease_lost") failure = ours;
    }
    deps.slot.leave();
    try {
      await endLeg(call.connection, call.nonce, run, failure);
    } catch (error) {
      // The database is gone or slow: the watchdog finds a leg that never ended and sends another.
      deps.log.error("leg.not_reported", { run, code: asHoldfastError(error).code });
    }
  };
}

/**
 * A drain as work after the answer, or `busy` while a leg has this isolate: the next minute brings another. What goes
 * wrong raises an alert; nothing is thrown.
 */
export function drainWork(call: AcceptedCall, deps: DoorDeps): "busy" | (() => Promise<void>) {
  if (!deps.slot.enter()) return "busy";
  return async () => {
    let failure: HoldfastError | null = null;
    let result: DrainResult | null = null;
    try {
      result = await deps.drain(workerOf(call));
    } catch (error) {
      failure = asHoldfastError(error);
      deps.log.error("drain.failed", { code: failure.code, message: failure.message });
    }
    deps.slot.leave();
    try {
      await endDrain(call.connection, call.nonce, result, failure);
    } catch (error) {
      deps.log.error("drain.not_reported", { code: asHoldfastError(error).code });
    }
  };
}

/** The watchdog ends the leases of a call's worker together with the call. */
function workerOf(call: AcceptedCall): string {
  return `call:${call.nonce}`;
}
