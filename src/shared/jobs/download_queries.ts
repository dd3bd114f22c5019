/** All calls of the SQL functions that change downloads, and their rows. docs/architecture.md, "Downloads". */
import { z } from "zod";
import type { DownloadFormat } from "../download/format.ts";
import type { FilesNamed } from "../files/files_named.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection, Row } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { numberOrNull, text } from "./run_row.ts";

/** Who makes which download: comes with every call. With an older token each is `lease_lost`. */
export interface DownloadLease {
  readonly id: string;
  readonly token: string;
}

export interface DownloadRequest {
  /** Id of a full backup or of an incremental. */
  readonly backup: string;
  /** `schema.table`, quoted where needed; null: the whole backup. */
  readonly table: string | null;
  readonly format: DownloadFormat;
  /** For the format `files`; null or absent for all others. */
  readonly files?: FilesNamed | null;
  readonly fileName: string;
  readonly expirySeconds: number;
  readonly worker: string;
  readonly leaseSeconds: number;
  /** Nobody has it yet: legs of the function claim it. */
  readonly byFunction: boolean;
}

/** An object of the bucket. */
export interface DownloadPart {
  readonly object: string;
  readonly bytes: number;
  /** In hex. */
  readonly sha256: string;
}

/** Parts that were put behind the first `kept` of the row: any others that it had are among them, gone on with. */
export interface PutParts {
  readonly kept: number;
  readonly parts: readonly DownloadPart[];
}

export type DownloadStatus = "making" | "ready" | "failed" | "ending" | "removed";

/** A row of `backup.downloads`. Times are ISO 8601 in UTC. */
export interface DownloadRow {
  readonly id: string;
  readonly backup: string;
  readonly table: string | null;
  readonly format: DownloadFormat;
  /** Of the format `files`: the bucket, and the file's name, which is forgotten with the file; null: all of the bucket. */
  readonly bucket: string | null;
  readonly file: string | null;
  readonly fileName: string;
  readonly status: DownloadStatus;
  readonly byFunction: boolean;
  readonly parts: readonly DownloadPart[];
  readonly bytes: number;
  readonly sha256: string | null;
  readonly actor: string;
  readonly createdAt: string;
  readonly readyAt: string | null;
  readonly expiresAt: string | null;
  readonly links: number;
  readonly removedAt: string | null;
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null } | null;
  /** From where the next leg goes on. */
  readonly mark: unknown;
}

/** The row and its audit, in one transaction. Errors: `payload_invalid` for a time that is too long, and for files without a bucket. */
export async function beginDownload(connection: Connection, request: DownloadRequest): Promise<DownloadLease> {
  const facts = {
    backup: request.backup,
    table: request.table,
    format: request.format,
    bucket: request.files?.bucket ?? null,
    file: request.files?.name ?? null,
    file_name: request.fileName,
    expires_seconds: request.expirySeconds,
    by_function: request.byFunction,
    worker: request.worker,
    lease_seconds: request.leaseSeconds,
  };
  const [row] = await call(connection, "select id, token from backup.begin_download($1::jsonb)", [
    JSON.stringify(facts),
  ]);
  if (row === undefined) throw new HoldfastError("internal", "begin_download gave no download");
  return { id: text(row, "id"), token: text(row, "token") };
}

/** Null while another has it, and once it is not being made any more. Errors: `run_not_found`. */
export async function claimDownload(
  connection: Connection,
  id: string,
  { worker, leaseSeconds }: { readonly worker: string; readonly leaseSeconds: number },
): Promise<DownloadLease | null> {
  const [row] = await call(
    connection,
    "select backup.claim_download($1::uuid, $2, $3::double precision * interval '1 second') as token",
    [id, worker, String(leaseSeconds)],
  );
  const token = row?.["token"];
  return token === null || token === undefined ? null : { id, token };
}

/** Parts that lie in the bucket, and where to go on; renews the lease. Errors: `lease_lost`. */
export async function recordDownload(
  connection: Connection,
  { id, token }: DownloadLease,
  { kept, parts }: PutParts,
  mark: unknown,
  leaseSeconds: number,
): Promise<void> {
  await call(
    connection,
    `select backup.record_download(
       $1::uuid, $2::bigint, $3::int, $4::jsonb, $5::jsonb, $6::double precision * interval '1 second'
     )`,
    [id, token, String(kept), JSON.stringify(parts), JSON.stringify(mark), String(leaseSeconds)],
  );
}

/** `sha256` of the whole file; null: no one process has seen all of it. Errors: `lease_lost`. */
export async function finishDownload(
  connection: Connection,
  { id, token }: DownloadLease,
  sha256: string | null,
): Promise<void> {
  await call(connection, "select backup.finish_download($1::uuid, $2::bigint, $3)", [id, token, sha256]);
}

/** Errors: `lease_lost`. */
export async function failDownload(
  connection: Connection,
  { id, token }: DownloadLease,
  { code, message, hint }: HoldfastError,
): Promise<void> {
  await call(connection, "select backup.fail_download($1::uuid, $2::bigint, $3, $4, $5)", [
    id,
    token,
    code,
    message,
    hint,
  ]);
}

/** The leg is over, work is left: the next one is called. Errors: `lease_lost`. */
export async function restDownload(connection: Connection, { id, token }: DownloadLease): Promise<void> {
  await call(connection, "select backup.rest_download($1::uuid, $2::bigint)", [id, token]);
}

export async function launchDownload(connection: Connection, id: string): Promise<void> {
  await call(connection, "select backup.launch_download($1::uuid)", [id]);
}

/**
 * Counts and audits the link that is about to be made; when this returns, both are committed. `expiresAt`: its end, ISO 8601;
 * `seconds`: until then. Errors: `run_not_found`, `run_state` unless it is ready, `payload_invalid` for a time that is too long.
 */
export async function linkDownload(
  connection: Connection,
  id: string,
  expirySeconds: number | null,
): Promise<{ readonly expiresAt: string; readonly seconds: number }> {
  const [row] = await call(
    connection,
    `select ${moment("l.until")} as until, floor(extract(epoch from l.until - backup.clock_now())) as seconds
       from (select backup.link_download($1::uuid, $2::double precision * interval '1 second') as until) as l`,
    [id, expirySeconds === null ? null : String(expirySeconds)],
  );
  return { expiresAt: row?.["until"] ?? "", seconds: Math.max(1, Number(row?.["seconds"])) };
}

/** False when its files are gone already. Errors: `run_not_found`. */
export async function endDownload(connection: Connection, id: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.end_download($1::uuid) as due", [id]);
  return row?.["due"] === "t";
}

/** Ids of those whose files have to be removed. */
export async function dueDownloads(connection: Connection): Promise<string[]> {
  const rows = await call(connection, "select download from backup.due_downloads() order by due_since", []);
  return rows.map((row) => text(row, "download"));
}

/** Ids of those whose files have to stay. */
export async function keptDownloads(connection: Connection): Promise<Set<string>> {
  const rows = await call(
    connection,
    `select d.id from backup.downloads as d
     where d.status <> 'removed' and d.id not in (select due.download from backup.due_downloads() as due)`,
    [],
  );
  return new Set(rows.map((row) => text(row, "id")));
}

export async function downloadRemoved(connection: Connection, id: string): Promise<void> {
  await call(connection, "select backup.download_removed($1::uuid)", [id]);
}

export async function downloadsStay(connection: Connection, message: string): Promise<void> {
  await call(connection, "select backup.downloads_stay($1)", [message]);
}

const moment = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

const columns =
  `d.id, d.backup_id, d.table_name, d.format, d.bucket, d.file, d.file_name, d.status, d.by_function, d.parts::text as parts,
  d.bytes, d.sha256, d.actor, ${moment("d.created_at")} as created_at, ${moment("d.ready_at")} as ready_at,
  ${moment("d.expires_at")} as expires_at, d.links, ${
    moment("d.removed_at")
  } as removed_at, d.error_code, d.error_message,
  d.error_hint, d.mark::text as mark`;

/** Errors: `run_not_found`. */
export async function readDownload(connection: Connection, id: string): Promise<DownloadRow> {
  const [row] = await call(connection, `select ${columns} from backup.downloads as d where d.id = $1::uuid`, [id]);
  if (row === undefined) throw unknownDownload(id);
  return downloadOf(row);
}

export function unknownDownload(id: string): HoldfastError {
  return new HoldfastError("run_not_found", `there is no download ${id}`, {
    hint: "`holdfast download list` shows those that are there.",
  });
}

/** Newest first; those whose files are gone only with `all`. */
export async function listDownloads(
  connection: Connection,
  { all, limit }: { readonly all: boolean; readonly limit: number },
): Promise<DownloadRow[]> {
  const rows = await call(
    connection,
    `select ${columns} from backup.downloads as d where $1::boolean or d.status <> 'removed'
     order by d.created_at desc limit $2::int`,
    [String(all), String(limit)],
  );
  return rows.map(downloadOf);
}

const partsFormat = z.array(z.object({ object: z.string(), bytes: z.int().nonnegative(), sha256: z.string() }));

function downloadOf(row: Row): DownloadRow {
  const code = row["error_code"] ?? null;
  return {
    id: text(row, "id"),
    backup: text(row, "backup_id"),
    table: row["table_name"] ?? null,
    format: text(row, "format") as DownloadFormat,
    bucket: row["bucket"] ?? null,
    file: row["file"] ?? null,
    fileName: text(row, "file_name"),
    status: text(row, "status") as DownloadStatus,
    byFunction: row["by_function"] === "t",
    parts: partsFormat.parse(JSON.parse(text(row, "parts"))),
    bytes: Number(row["bytes"]),
    sha256: row["sha256"] ?? null,
    actor: text(row, "actor"),
    createdAt: text(row, "created_at"),
    readyAt: row["ready_at"] ?? null,
    expiresAt: row["expires_at"] ?? null,
    links: numberOrNull(row, "links") ?? 0,
    removedAt: row["removed_at"] ?? null,
    error: code === null ? null : { code, message: row["error_message"] ?? "", hint: row["error_hint"] ?? null },
    mark: row["mark"] === null || row["mark"] === undefined ? null : JSON.parse(row["mark"]) as unknown,
  };
}
