/** The function `restore`: lays rows of then beside the live ones, puts them into place when told to. docs/http.md. */
import { HoldfastError } from "../errors.ts";
import { momentOf } from "../changes/decode/moment.ts";
import { parsePoint } from "../changes/plan/point.ts";
import type { Point } from "../changes/replay/replay.ts";
import {
  beginRestore,
  cancelRestore,
  fullBefore,
  fullUnderWay,
  launchRestore,
  newestFull,
  orderApply,
  readRestore,
} from "../jobs/restore_queries.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { makeSideSchema } from "../rows/beside/side_tables.ts";
import { refuseUnplanned } from "../rows/leg.ts";
import type { Needs } from "./admission.ts";
import { type AcceptedCall, handle, type Outcome, type RestoreDoorDeps, restoreWork } from "./door.ts";
import { type PlanRequest, type RestoreRequest, restoreRequest } from "./requests.ts";
import { requireBackup } from "./require_backup.ts";
import { restoreDocument } from "./restore_document.ts";
import { keepRequest, legRequestOf, readLegRequest } from "./restore_request.ts";

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `backup_not_found`, `run_not_found`, `run_state`,
 * `confirmation_wrong`, those of the store and of the database. */
export function handleRestore(request: Request, deps: RestoreDoorDeps): Promise<Response> {
  return handle({ functionName: "restore", schema: restoreRequest, needs, act }, request, deps);
}

/** A plan lays rows of then open already. */
function needs({ action }: RestoreRequest): Needs {
  if (action === "leg") return "machines";
  return action === "status" ? "second factor" : "fresh second factor";
}

async function act(action: RestoreRequest, call: AcceptedCall, deps: RestoreDoorDeps): Promise<Outcome> {
  const { connection } = call;
  switch (action.action) {
    case "plan":
      return await begun(await plan(action, call, deps), call, deps);
    case "full":
      return await full(action, call, deps);
    case "files":
      return await files(action, call, deps);
    case "apply":
      return await begun(await order(action, call), call, deps);
    case "status":
      return { status: 200, document: restoreDocument(await readRestore(connection, action.restore)) };
    case "cancel": {
      const cancelled = await cancelRestore(connection, action.restore);
      return { status: cancelled ? 200 : 202, document: { restore: action.restore, cancelled } };
    }
    case "leg": {
      const { status, byFunction } = await readRestore(connection, action.restore);
      if (!byFunction) throw new HoldfastError("run_state", `restore ${action.restore} is the CLI's`);
      const document = { restore: action.restore, status };
      const work = restoreWork(action.restore, call, deps);
      return work === "busy"
        ? { status: 202, document: { ...document, leg: "busy" } }
        : { status: 202, document: { ...document, leg: "begun" }, work };
    }
  }
}

async function plan(request: PlanRequest, { connection }: AcceptedCall, deps: RestoreDoorDeps): Promise<string> {
  const { asked } = legRequestOf(request);
  const sourceBackup = request.backup === "latest" ? await newestFull(connection) : request.backup;
  if (await requireBackup(connection, sourceBackup, deps.requireStored) !== "full") {
    throw new HoldfastError("backup_not_found", `${sourceBackup} is an incremental, and no full backup`, {
      hint: "The CLI restores rows as of a moment; or name the full backup before it.",
    });
  }
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

/** A new database is made by whoever types its name; without that, what it would be. */
async function full(
  { backup, confirm }: Extract<RestoreRequest, { action: "full" }>,
  call: AcceptedCall,
  deps: RestoreDoorDeps,
): Promise<Outcome> {
  const { connection } = call;
  const wanted = backup === "latest" ? await newestFull(connection) : backup;
  const outline = await deps.outlineFull(connection, wanted);
  if (confirm === undefined) return { status: 200, document: outline };
  if (confirm !== outline.database) {
    throw new HoldfastError("confirmation_wrong", "the new database is not called that", {
      hint: `Its name is ${outline.database}.`,
    });
  }
  const underWay = await fullUnderWay(connection, outline.database);
  if (underWay !== null) return await begun(underWay, call, deps);
  const { id } = await beginRestore(connection, {
    scope: "full",
    mode: "beside",
    sourceBackup: outline.backup,
    pointAt: null,
    targetLabel: outline.database,
    targetIsHere: false,
    userId: null,
    worker: "http",
    leaseSeconds: 1,
    byFunction: true,
  });
  return await begun(id, call, deps);
}

/** Files into the project's own Storage: by whoever types the database's name; without that, how many the backup has, or that
 * before the moment. */
async function files(
  { backup, at, bucket, mode, confirm }: Extract<RestoreRequest, { action: "files" }>,
  call: AcceptedCall,
  deps: RestoreDoorDeps,
): Promise<Outcome> {
  const { connection } = call;
  const moment = momentAsked(backup, at);
  const sourceBackup = moment !== null
    ? await fullBefore(connection, moment)
    : backup === undefined || backup === "latest"
    ? await newestFull(connection)
    : backup;
  const outline = {
    ...await deps.outlineFiles(connection, sourceBackup),
    at: moment,
    bucket: bucket ?? null,
    mode: mode ?? "missing",
  };
  if (confirm === undefined) return { status: 200, document: outline };
  if (confirm !== outline.database) {
    throw new HoldfastError("confirmation_wrong", "the database is not called that", {
      hint: `Its name is ${outline.database}.`,
    });
  }
  const { id } = await beginRestore(connection, {
    scope: "files",
    mode: outline.mode,
    sourceBackup: outline.backup,
    pointAt: moment,
    targetLabel: deps.openDatabase(deps.environment).label,
    targetIsHere: true,
    userId: null,
    state: { bucket: outline.bucket, at: moment },
    worker: "http",
    leaseSeconds: 1,
    byFunction: true,
  });
  return await begun(id, call, deps);
}

/** ISO 8601 with microseconds; null: a backup is named. Errors: `payload_invalid` for both or none, and for what is no moment. */
function momentAsked(backup: string | undefined, at: string | undefined): string | null {
  if ((backup === undefined) === (at === undefined)) {
    throw new HoldfastError("payload_invalid", "not as expected: backup, at", { hint: "Name one of the two." });
  }
  if (at === undefined) return null;
  const point = pointOf(at);
  const moment = point?.by === "time" ? momentOf(point.at) : null;
  if (moment !== null) return moment;
  throw new HoldfastError("payload_invalid", "not as expected: at", {
    hint: "A moment in ISO 8601 with its zone; `restore-file --at` of the CLI takes a position in the log too.",
  });
}

/** Nothing of what a caller sent is said again. */
function pointOf(text: string): Point | null {
  try {
    return parsePoint(text, () => 0);
  } catch {
    return null;
  }
}

async function order(
  { restore, mode, confirm, skipSafetyBackup, fireTriggers, withoutFiles }: Extract<
    RestoreRequest,
    { action: "apply" }
  >,
  { connection }: AcceptedCall,
): Promise<string> {
  if (skipSafetyBackup !== undefined && skipSafetyBackup !== confirm) {
    throw new HoldfastError("confirmation_wrong", "skipSafetyBackup names another database than confirm");
  }
  const { sideSchema, sideDroppedAt, status } = await readRestore(connection, restore);
  if (status === "beside" && sideSchema !== null && sideDroppedAt === null) {
    refuseUnplanned(await readLegRequest(connection, sideSchema), mode);
  }
  await orderApply(connection, restore, {
    mode,
    target: confirm,
    options: {
      safety: skipSafetyBackup === undefined,
      fireTriggers: fireTriggers ?? false,
      withFiles: withoutFiles !== true,
    },
  });
  return restore;
}

/** Its first leg is this isolate's own work, where it has none yet. */
async function begun(restore: string, call: AcceptedCall, deps: RestoreDoorDeps): Promise<Outcome> {
  const work = restoreWork(restore, call, deps);
  if (work !== "busy") return { status: 202, document: { restore }, work };
  await launchRestore(call.connection, restore);
  return { status: 202, document: { restore } };
}
