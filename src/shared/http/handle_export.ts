/** The function `export`: what the project holds of one person, for that person. docs/http.md, docs/exports.md. */
import { parseKeyRing } from "../crypto/key_ring.ts";
import { type DownloadBucket, downloadBucket } from "../download/bucket.ts";
import { HoldfastError } from "../errors.ts";
import { exportShown, linkShown, makeExportLink } from "../export/export_link.ts";
import {
  beginExport,
  dueExports,
  endExport,
  launchExports,
  listExports,
  readExport,
} from "../export/export_queries.ts";
import { runExportLeg } from "../export/leg.ts";
import { readStorageFile } from "../export/storage_file.ts";
import { sweepExports } from "../export/sweep_exports.ts";
import { recognise } from "../identity/identity_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { ownBuckets } from "../schema/own_objects.ts";
import type { Fetch } from "../store/http_call.ts";
import { admit, type Needs } from "./admission.ts";
import { endCall } from "./call_queries.ts";
import { type AcceptedCall, type FrontDeps, handle, type Outcome, type SlotWork, slotWork, workerOf } from "./door.ts";
import { optional, projectRef, required, storageKey, variables } from "./environment.ts";
import { databaseOf } from "./front.ts";
import { type ExportRequest, exportRequest } from "./requests.ts";

export interface ExportDoorDeps extends FrontDeps {
  /** Errors: `setting_missing`. */
  readonly bucket: () => DownloadBucket;
  /** Works on an export, as `worker`, until its budget is spent or it has ended. Throws what ended it. */
  readonly leg: (connection: Connection, id: string, worker: string) => Promise<void>;
}

export function exportDoorDeps(front: FrontDeps, fetch: Fetch): ExportDoorDeps {
  const { environment, clock, random, log, budget } = front;
  const place = () => ({
    projectUrl: required(environment, variables.projectUrl),
    serviceKey: storageKey(environment),
    publicUrl: optional(environment, variables.publicUrl),
  });
  const bucket = () => downloadBucket(place(), { fetch, clock, random, log }, ownBuckets.exports);
  return {
    ...front,
    bucket,
    leg: async (connection, id, worker) => {
      await recognise(connection, projectRef(environment));
      const deps = {
        database: databaseOf(environment),
        ring: () => parseKeyRing(environment[variables.keys]),
        bucket,
        readFile: () => readStorageFile(place(), { fetch, clock }),
        clock,
        log,
      };
      await runExportLeg(deps, connection, id, { worker, budget: budget.next() });
    },
  };
}

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `forbidden`, `user_not_found`, `export_too_often`,
 * `run_not_found`, `run_state`, those of Storage and the database. */
export function handleExport(request: Request, deps: ExportDoorDeps): Promise<Response> {
  return handle({ functionName: "export", schema: exportRequest, needs, least: "own session", act }, request, deps);
}

/** Whoever is signed in, for their own; what is another's, `act` lets administrators alone have. */
function needs({ action }: ExportRequest): Needs {
  return action === "leg" || action === "sweep" ? "machines" : "own session";
}

/** Newest first. */
const mostListed = 100;

async function act(action: ExportRequest, call: AcceptedCall, deps: ExportDoorDeps): Promise<Outcome> {
  const { connection } = call;
  requirePerson(action, call);
  switch (action.action) {
    case "request":
      return await order(action.user, call, deps);
    case "list": {
      const rows = await listExports(connection, { user: call.person?.sub ?? null, all: true, limit: mostListed });
      return { status: 200, document: { exports: rows.map(exportShown) } };
    }
    case "status":
      await requireOwn(action.export, call);
      return { status: 200, document: exportShown(await readExport(connection, action.export)) };
    case "link": {
      await requireOwn(action.export, call);
      const link = await makeExportLink(connection, deps.bucket(), action.export, {
        expirySeconds: action.expirySeconds ?? null,
        after: action.after ?? 0,
      });
      return { status: 200, document: linkShown(link) };
    }
    case "cancel": {
      await requireOwn(action.export, call);
      if (await endExport(connection, action.export)) await sweepExports(connection, deps.bucket()).catch(() => {});
      await launchExports(connection);
      const { status } = await readExport(connection, action.export);
      const document = { export: action.export, removed: status === "removed" };
      return { status: status === "removed" ? 200 : 202, document };
    }
    case "leg": {
      const { status, byFunction } = await readExport(connection, action.export);
      if (!byFunction) throw new HoldfastError("run_state", `export ${action.export} is the CLI's`);
      const document = { export: action.export, status };
      const work = exportWork(action.export, call, deps);
      return work === "busy"
        ? { status: 202, document: { ...document, leg: "busy" } }
        : { status: 202, document: { ...document, leg: "begun" }, work };
    }
    case "sweep":
      return { status: 200, document: { removed: await sweepExports(connection, deps.bucket()) } };
  }
}

/** The worker secret opens nobody's data. Errors: `forbidden`. */
function requirePerson({ action }: ExportRequest, { person }: AcceptedCall): void {
  if (person !== null || action !== "request" && action !== "link" && action !== "list") return;
  throw new HoldfastError("forbidden", "exports are ordered and fetched by people");
}

/** One's own without a second factor; anybody's by an administrator with a fresh one. */
async function order(wanted: string | undefined, call: AcceptedCall, deps: ExportDoorDeps): Promise<Outcome> {
  const { connection, person } = call;
  if (person === null) throw new HoldfastError("internal", "an export is ordered by nobody");
  const user = wanted?.toLowerCase() ?? person.sub;
  const isOwn = user === person.sub;
  if (!isOwn) await requireAdministrator(call);
  const { id, joined } = await beginExport(connection, {
    user,
    origin: isOwn ? "user" : "admin",
    worker: null,
    leaseSeconds: 0,
  });
  await launchExports(connection);
  if ((await dueExports(connection)).length > 0) await sweepExports(connection, deps.bucket()).catch(() => {});
  return { status: 202, document: { export: id, joined } };
}

/** Whose it is not, learns nothing of it: not even whether it is there. */
async function requireOwn(id: string, call: AcceptedCall): Promise<void> {
  const { connection, person } = call;
  const [row] = await connection.query("select user_id::text as owner from backup.exports where id = $1::uuid", [id]);
  if (person === null || row?.["owner"] !== person.sub) await requireAdministrator(call);
}

/** Counted as any refusal, where it is one. A signed call is nobody's, and may. */
async function requireAdministrator({ connection, person }: AcceptedCall): Promise<void> {
  if (person !== null) await admit(connection, person, "export", "fresh second factor");
}

/** The leg of an export. What goes wrong is written to the export; nothing is thrown. */
function exportWork(id: string, call: AcceptedCall, deps: ExportDoorDeps): SlotWork {
  return slotWork(
    { name: "export", of: { export: id } },
    deps,
    async () => await deps.leg(call.connection, id, workerOf(call)),
    (_, failure) => endCall(call.connection, call.nonce, failure?.code ?? "done"),
  );
}
