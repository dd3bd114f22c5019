/** Whose call it is, and whether they may do what they ask for. docs/http.md says who may do what. */
import { HoldfastError } from "../errors.ts";
import type { Random } from "../random.ts";
import type { Connection } from "../postgres/connection.ts";
import { acceptPerson, type Verdict } from "./call_queries.ts";
import { callHeaders, callValidMs, checkSignature, refusal, requireForm } from "./caller.ts";
import type { CheckPerson, PersonClaims } from "./person.ts";
import { addressOf } from "./refusals.ts";

/**
 * What a person needs for an action besides being an administrator: their second factor, or their second factor within the
 * last minutes (the setting `second_factor_seconds`). `own session`: anybody who is signed in, for what is theirs alone;
 * `fresh sign-in`: the same, where they have signed in within those minutes. `machines`: no person may.
 */
export type Needs = "machines" | "own session" | "fresh sign-in" | "second factor" | "fresh second factor";

/** Somebody whose signature held. `person`: null for whoever has the worker secret. */
export interface Caller {
  readonly person: PersonClaims | null;
  /** Taken once: the signature alone does not tell a repeated call. A person's call gets one of its own. */
  readonly nonce: string;
  readonly expiresAt: Date;
}

export interface CallToRecognise {
  readonly functionName: string;
  readonly headers: Headers;
  /** Read only once the headers say that it may be worth it. Errors: `payload_too_large`, `payload_late`. */
  readonly readBody: () => Promise<Uint8Array>;
  readonly secret: string | undefined;
  readonly now: Date;
  readonly checkPerson: CheckPerson;
  readonly random: Random;
}

/**
 * Who calls, and the call's body. Errors: `unauthorised`; those of `readBody`; `project_unreachable` and `too_many_calls` where a
 * person cannot be recognised now.
 */
export async function recognise(
  call: CallToRecognise,
): Promise<{ readonly caller: Caller; readonly body: Uint8Array }> {
  const { headers, now, readBody } = call;
  if (headers.has(callHeaders.signature)) {
    requireForm(call);
    const body = await readBody();
    return { caller: { person: null, ...await checkSignature({ ...call, body }) }, body };
  }
  const token = /^Bearer ([A-Za-z0-9._-]+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  if (token === undefined) throw refusal();
  const person = await call.checkPerson(token, now, addressOf(headers));
  const nonce = Array.from(call.random(16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { caller: { person, nonce, expiresAt: new Date(now.getTime() + callValidMs) }, body: await readBody() };
}

/**
 * Lets the person in: from here on what this session of the database does is theirs in the audit. Errors: `unauthorised`,
 * `forbidden`, `sign_in_old`, `second_factor_missing`, `second_factor_old`, `too_many_refusals`, each of them counted.
 */
export async function admit(
  connection: Connection,
  person: PersonClaims,
  functionName: string,
  needs: Needs,
): Promise<void> {
  const { verdict, pauseSeconds } = await acceptPerson(connection, person, functionName, needs);
  if (verdict === "accepted") return;
  if (pauseSeconds > 0) throw tooMany(pauseSeconds);
  throw refused(verdict);
}

function refused(verdict: Exclude<Verdict, "accepted">): HoldfastError {
  switch (verdict) {
    case "paused":
    case "session_over":
      return refusal();
    case "not_admin":
      return new HoldfastError("forbidden", "this person is no administrator of the backups");
    case "machines_only":
      return new HoldfastError("forbidden", "only a call that the worker secret signed may do this");
    case "one_factor":
      return new HoldfastError("second_factor_missing", "this person is signed in without a second factor");
    case "sign_in_old":
      return new HoldfastError("sign_in_old", "this person signed in too long ago for this");
    case "factor_old":
      return new HoldfastError("second_factor_old", "the second factor was used too long ago for this");
  }
}

/** Whoever is refused too often. */
export function tooMany(seconds: number): HoldfastError {
  return new HoldfastError("too_many_refusals", "this caller was refused too often", {
    hint: `Wait ${seconds} seconds, then call with what is accepted.`,
    waitSeconds: seconds,
  });
}
