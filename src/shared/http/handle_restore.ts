/** The function `restore`: lays rows of then beside the live ones, puts them into place when told to. docs/http.md. */
import { HoldfastError } from "../errors.ts";
import {
  beginRestore,
  cancelRestore,
  launchRestore,
  newestFull,
  orderApply,
  readRestore,
} from "../jobs/restore_queries.ts";
import { inTransaction } from "../rows/beside/lay_steps.ts";
import { makeSideSchema } from "../rows/beside/side_tables.ts";
import { type AcceptedCall, type DoorDeps, handle, type Outcome, restoreWork } from "./door.ts";
import { type PlanRequest, type RestoreRequest, restoreRequest } from "./requests.ts";
import { restoreDocument } from "./restore_document.ts";
import { keepRequest, legRequestOf } from "./restore_request.ts";

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `backup_not_found`, `run_not_found`, `run_state`,
 * `confirmation_wrong`, those of the database. */
export function handleRestore(request: Request, deps: DoorDeps): Promise<Response> {
  return handle({ functionName: "restore", schema: restoreRequest, act }, request, deps);
}

async function act(action: RestoreRequest, call: AcceptedCall, deps: DoorDeps): Promise<Outcome> {
  const { connection } = call;
  switch (action.action) {
    case "plan":
      return await begun(await plan(action, call, deps), call, deps);
    case "apply":
      return await begun(await order(action, call), call, deps);
    case "status":
      return { status: 200, document: restoreDocument(await readRestore(connection, action.restore)) };
    case "cancel": {
      const cancelled = await cancelRestore(connection, action.restore);
      return { status: cancelled ? 200 : 202, document: { restore: action.restore, cancelled } };
    }
    case "leg": {
      const { status } = await readRestore(connection, action.restore);
      const document = { restore: action.restore, status };
      const work = restoreWork(action.restore, call, deps);
      return work === "busy"
        ? { status: 202, document: { ...document, leg: "busy" } }
        : { status: 202, document: { ...document, leg: "begun" }, work };
    }
  }
}

async function plan(request: PlanRequest, { connection }: AcceptedCall, deps: DoorDeps): Promise<string> {
  const { asked } = legRequestOf(request);
  const sourceBackup = request.backup === "latest" ? await newestFull(connection) : request.backup;
  return await inTransaction(connection, async () => {
    const { id, sideSchema } = await beginRestore(connection, {
      scope: asked.scope,
      mode: "beside",
      sourceBackup,
      pointAt: null,
      targetLabel: deps.openDatabase(deps.environment).label,
      targetIsHere: true,
      userId: asked.scope === "user" ? asked.choice.user : null,
      worker: "http",
      leaseSeconds: 1,
      byFunction: true,
    });
    if (sideSchema === null) throw new HoldfastError("internal", "the restore has no side schema");
    await makeSideSchema(connection, sideSchema, "holdfast: rows of a backup, being laid");
    await keepRequest(connection, sideSchema, request);
    return id;
  });
}

async function order(
  { restore, mode, confirm, skipSafetyBackup, fireTriggers }: Extract<RestoreRequest, { action: "apply" }>,
  { connection }: AcceptedCall,
): Promise<string> {
  if (skipSafetyBackup !== undefined && skipSafetyBackup !== confirm) {
    throw new HoldfastError("confirmation_wrong", "skipSafetyBackup names another database than confirm");
  }
  await orderApply(connection, restore, {
    mode,
    target: confirm,
    options: { safety: skipSafetyBackup === undefined, fireTriggers: fireTriggers ?? false },
  });
  return restore;
}

/** Its first leg is this isolate's own work, where it has none yet. */
async function begun(restore: string, call: AcceptedCall, deps: DoorDeps): Promise<Outcome> {
  const work = restoreWork(restore, call, deps);
  if (work !== "busy") return { status: 202, document: { restore }, work };
  await launchRestore(call.connection, restore);
  return { status: 202, document: { restore } };
}
