/** The function `backup`: starts a full backup, works on one, shows a run, drains the change stream,
 * anchors the audit, copies into the second store. docs/http.md. */
import { readRun, type Requested, requestRun } from "../jobs/queries.ts";
import type { Needs } from "./admission.ts";
import { attachCall, launchRun } from "./call_queries.ts";
import { type AcceptedCall, type BackupDoorDeps, drainWork, handle, legWork, type Outcome } from "./door.ts";
import { type BackupRequest, backupRequest } from "./requests.ts";
import { runDocument } from "./run_document.ts";

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `run_not_found`, those of the database. */
export function handleBackup(request: Request, deps: BackupDoorDeps): Promise<Response> {
  return handle({ functionName: "backup", schema: backupRequest, needs, act }, request, deps);
}

function needs({ action }: BackupRequest): Needs {
  return action === "start" || action === "status" || action === "replicate" ? "second factor" : "machines";
}

async function act(action: BackupRequest, call: AcceptedCall, deps: BackupDoorDeps): Promise<Outcome> {
  switch (action.action) {
    case "start":
      return await start(action, call, deps);
    case "leg":
      return await leg("full", action.run, call, deps);
    case "copy":
      return await leg("replicate", action.run, call, deps);
    case "replicate": {
      const requested = await deps.requestCopies(call.connection);
      if (requested === null) return { status: 200, document: { run: null } };
      return await begun("replicate", requested, call, deps);
    }
    case "status":
      return { status: 200, document: runDocument(await readRun(call.connection, action.run)) };
    case "anchor": {
      const anchor = await deps.anchor(call.connection);
      return { status: 200, document: { place: anchor?.place ?? null } };
    }
    case "drain": {
      const work = drainWork(call, deps);
      return work === "busy"
        ? { status: 202, document: { drain: "busy" } }
        : { status: 202, document: { drain: "begun" }, work };
    }
  }
}

async function start(
  action: Extract<BackupRequest, { action: "start" }>,
  call: AcceptedCall,
  deps: BackupDoorDeps,
): Promise<Outcome> {
  const requested = await requestRun(call.connection, {
    kind: "full",
    tiers: [action.tier],
    origin: "http",
    requestKey: action.requestKey ?? null,
  });
  return await begun("full", requested, call, deps);
}

/** The first leg of a run that is new, in this isolate where it has none. */
async function begun(
  kind: "full" | "replicate",
  { run, joined }: Requested,
  call: AcceptedCall,
  deps: BackupDoorDeps,
): Promise<Outcome> {
  const document = { run, joined };
  if (joined) return { status: 202, document };
  await attachCall(call.connection, call.nonce, run, kind);
  const work = legWork(kind, run, call, deps);
  if (work !== "busy") return { status: 202, document, work };
  await launchRun(call.connection, run);
  return { status: 202, document };
}

async function leg(
  kind: "full" | "replicate",
  run: string,
  call: AcceptedCall,
  deps: BackupDoorDeps,
): Promise<Outcome> {
  const status = await attachCall(call.connection, call.nonce, run, kind);
  const work = legWork(kind, run, call, deps);
  if (work === "busy") return { status: 202, document: { run, status, leg: "busy" } };
  return { status: 202, document: { run, status, leg: "begun" }, work };
}
