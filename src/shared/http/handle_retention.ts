/** The function `retention`: removes what the policy does not keep, leg by leg, and says beforehand what that is. docs/http.md. */
import { requestPrune } from "../jobs/retention_queries.ts";
import type { Needs } from "./admission.ts";
import { attachCall, launchRun } from "./call_queries.ts";
import { type AcceptedCall, handle, legWork, type Outcome, type RetentionDoorDeps } from "./door.ts";
import { type RetentionRequest, retentionRequest } from "./requests.ts";

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `run_not_found`, those of the database and the stores. */
export function handleRetention(request: Request, deps: RetentionDoorDeps): Promise<Response> {
  return handle({ functionName: "retention", schema: retentionRequest, needs, act }, request, deps);
}

function needs({ action }: RetentionRequest): Needs {
  if (action === "leg") return "machines";
  return action === "start" ? "fresh second factor" : "second factor";
}

async function act(action: RetentionRequest, call: AcceptedCall, deps: RetentionDoorDeps): Promise<Outcome> {
  switch (action.action) {
    case "plan":
      return { status: 200, document: await deps.planRetention(call.connection) };
    case "start": {
      const requested = await requestPrune(call.connection, "http");
      if (requested === null) return { status: 200, document: { run: null } };
      const { run, joined } = requested;
      const document = { run, joined };
      if (joined) return { status: 202, document };
      await attachCall(call.connection, call.nonce, run, "prune");
      const work = legWork("prune", run, call, deps);
      if (work !== "busy") return { status: 202, document, work };
      await launchRun(call.connection, run);
      return { status: 202, document };
    }
    case "leg": {
      const status = await attachCall(call.connection, call.nonce, action.run, "prune");
      const work = legWork("prune", action.run, call, deps);
      if (work === "busy") return { status: 202, document: { run: action.run, status, leg: "busy" } };
      return { status: 202, document: { run: action.run, status, leg: "begun" }, work };
    }
  }
}
