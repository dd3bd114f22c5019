/** The function `verify`: reads every object of a backup again, and makes the daily and weekly checks, leg by leg. docs/http.md. */
import { requestChecks } from "../jobs/check_queries.ts";
import type { Requested } from "../jobs/queries.ts";
import type { Needs } from "./admission.ts";
import { attachCall, launchRun, requestVerification } from "./call_queries.ts";
import { type AcceptedCall, handle, legWork, type Outcome, type VerifyDoorDeps } from "./door.ts";
import { type VerifyRequest, verifyRequest } from "./requests.ts";

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `backup_not_found`, `run_not_found`, those of the database. */
export function handleVerify(request: Request, deps: VerifyDoorDeps): Promise<Response> {
  return handle({ functionName: "verify", schema: verifyRequest, needs, act }, request, deps);
}

function needs({ action }: VerifyRequest): Needs {
  return action === "leg" ? "machines" : "second factor";
}

async function act(action: VerifyRequest, call: AcceptedCall, deps: VerifyDoorDeps): Promise<Outcome> {
  if (action.action === "start") return await begin(await requestVerification(call.connection, action.id), call, deps);
  if (action.action === "check") {
    const requested = await requestChecks(call.connection, action.cadence, "http");
    return requested === null ? { status: 200, document: { run: null } } : await begin(requested, call, deps);
  }
  const status = await attachCall(call.connection, call.nonce, action.run, "verify");
  const work = legWork("verify", action.run, call, deps);
  if (work === "busy") return { status: 202, document: { run: action.run, status, leg: "busy" } };
  return { status: 202, document: { run: action.run, status, leg: "begun" }, work };
}

/** The first leg of a run, unless somebody has begun it. */
async function begin({ run, joined }: Requested, call: AcceptedCall, deps: VerifyDoorDeps): Promise<Outcome> {
  const document = { run, joined };
  if (joined) return { status: 202, document };
  await attachCall(call.connection, call.nonce, run, "verify");
  const work = legWork("verify", run, call, deps);
  if (work !== "busy") return { status: 202, document, work };
  await launchRun(call.connection, run);
  return { status: 202, document };
}
