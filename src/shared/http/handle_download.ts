/** The function `download`: lays a backup, or rows of it, out in a bucket, and links to it. docs/http.md. */
import { downloadDocument, linkDocument } from "../download/document.ts";
import { type DownloadFormat, fileNameOf, tableLabel, usualExpirySeconds } from "../download/format.ts";
import { makeLink } from "../download/link.ts";
import { needsReplay } from "../download/open_contents.ts";
import { sweepDownloads } from "../download/sweep.ts";
import { HoldfastError } from "../errors.ts";
import { filesFileName, type FilesNamed, parseFilesNamed } from "../files/files_named.ts";
import {
  beginDownload,
  dueDownloads,
  endDownload,
  launchDownload,
  listDownloads,
  readDownload,
} from "../jobs/download_queries.ts";
import { newestFull } from "../jobs/restore_queries.ts";
import { requireBackup } from "./require_backup.ts";
import { tableAsked } from "./restore_request.ts";
import type { Needs } from "./admission.ts";
import { type AcceptedCall, type DownloadDoorDeps, downloadWork, handle, type Outcome } from "./door.ts";
import { type DownloadRequest, downloadRequest } from "./requests.ts";

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `backup_not_found`, `run_not_found`, `run_state`, `usage`
 * for rows of an incremental, those of the stores and the database. */
export function handleDownload(request: Request, deps: DownloadDoorDeps): Promise<Response> {
  return handle({ functionName: "download", schema: downloadRequest, needs, act }, request, deps);
}

function needs({ action }: DownloadRequest): Needs {
  if (action === "leg" || action === "sweep") return "machines";
  return action === "status" || action === "list" ? "second factor" : "fresh second factor";
}

/** Metadata, newest first. */
const mostListed = 200;

async function act(action: DownloadRequest, call: AcceptedCall, deps: DownloadDoorDeps): Promise<Outcome> {
  const { connection } = call;
  switch (action.action) {
    case "start": {
      const download = await start(action, call, deps);
      await sweepDue(call, deps);
      return await begun(download, call, deps);
    }
    case "status":
      return { status: 200, document: downloadDocument(await readDownload(connection, action.download)) };
    case "link": {
      requirePerson((await readDownload(connection, action.download)).format, call);
      const link = await makeLink(connection, deps.downloads.bucket(), action.download, action.expirySeconds ?? null);
      return { status: 200, document: linkDocument(link) };
    }
    case "list": {
      const rows = await listDownloads(connection, { all: false, limit: mostListed });
      return { status: 200, document: { downloads: rows.map(downloadDocument) } };
    }
    case "remove":
      return await remove(action.download, call, deps);
    case "leg": {
      const { status, byFunction } = await readDownload(connection, action.download);
      if (!byFunction) throw new HoldfastError("run_state", `download ${action.download} is the CLI's`);
      const document = { download: action.download, status };
      const work = downloadWork(action.download, call, deps);
      return work === "busy"
        ? { status: 202, document: { ...document, leg: "busy" } }
        : { status: 202, document: { ...document, leg: "begun" }, work };
    }
    case "sweep":
      return { status: 200, document: { removed: await sweepDownloads(connection, deps.downloads.bucket()) } };
  }
}

async function start(
  { backup, at, format, table, files, expirySeconds }: Extract<DownloadRequest, { action: "start" }>,
  call: AcceptedCall,
  deps: DownloadDoorDeps,
): Promise<string> {
  requirePerson(format, call);
  if (at !== undefined) throw needsReplay("what stood there at a moment");
  if (backup === undefined) throw new HoldfastError("payload_invalid", "not as expected: backup");
  const { connection } = call;
  const named = table === undefined ? null : tableAsked(table);
  const ofFiles = filesAsked(format, files);
  const id = backup === "latest" ? await newestFull(connection) : backup;
  const kind = await requireBackup(connection, id, deps.requireStored);
  if (kind === "incremental" && format !== "bundle") throw needsReplay(`what is in the incremental ${id}`);
  const begun = await beginDownload(connection, {
    backup: id,
    table: tableLabel(named),
    format,
    files: ofFiles,
    fileName: format === "files" ? filesFileName(ofFiles ?? noFile, id) : fileNameOf(format, id, named),
    expirySeconds: expirySeconds ?? usualExpirySeconds,
    worker: "http",
    leaseSeconds: -1,
    byFunction: true,
  });
  return begun.id;
}

const noFile: FilesNamed = { bucket: null, name: null };

/** Errors: `payload_invalid` where format and files do not fit each other. */
function filesAsked(format: DownloadFormat, files: string | undefined): FilesNamed | null {
  if (format !== "files" && files === undefined) return null;
  const named = format === "files" && files !== undefined ? parseFilesNamed(files) : null;
  if (named !== null && named.bucket !== null) return named;
  throw new HoldfastError("payload_invalid", "not as expected: files", {
    hint: "The format `files`, and no other, takes `bucket/name` or `bucket/`.",
  });
}

/** The worker secret opens no backup: what it gets is sealed. Errors: `forbidden`. */
function requirePerson(format: DownloadFormat, { byPerson }: AcceptedCall): void {
  if (byPerson || format === "bundle") return;
  throw new HoldfastError("forbidden", "rows in plain text and files are for an administrator with a second factor", {
    hint: "Sign in, or ask for a bundle, which is of use to whoever has the keys.",
  });
}

/** Its first leg is this isolate's own work, where it has none yet. */
async function begun(download: string, call: AcceptedCall, deps: DownloadDoorDeps): Promise<Outcome> {
  const work = downloadWork(download, call, deps);
  if (work !== "busy") return { status: 202, document: { download }, work };
  await launchDownload(call.connection, download);
  return { status: 202, document: { download } };
}

/** Where no watchdog has sent a sweep, whoever comes next does it. What does not go is told by its alert. */
async function sweepDue({ connection }: AcceptedCall, deps: DownloadDoorDeps): Promise<void> {
  if ((await dueDownloads(connection)).length === 0) return;
  await sweepDownloads(connection, deps.downloads.bucket()).catch(() => {});
}

/** What Storage does not let go now goes with a later sweep, and is told by an alert. */
async function remove(download: string, { connection }: AcceptedCall, deps: DownloadDoorDeps): Promise<Outcome> {
  if (await endDownload(connection, download)) {
    await sweepDownloads(connection, deps.downloads.bucket()).catch(() => {});
  }
  const { status } = await readDownload(connection, download);
  return { status: status === "removed" ? 200 : 202, document: { download, removed: status === "removed" } };
}
