/** All calls of the SQL functions that change exports, and their rows. docs/architecture.md, "Exports". */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { call } from "../jobs/call.ts";
import { numberOrNull, text } from "../jobs/run_row.ts";
import type { Connection, Row } from "../postgres/connection.ts";

/** Who makes which export: comes with every call. With an older token each is `lease_lost`. */
export interface ExportLease {
  readonly id: string;
  readonly token: string;
}

/** `check`: of a sample person, by the weekly verification, thrown away at once. */
export type ExportOrigin = "user" | "admin" | "cli" | "check";
export type ExportStage = "rows" | "files" | "document";

const part = z.object({ bytes: z.int().nonnegative(), sha256: z.string() });
const parts = z.array(part);
/** Bytes that lie in one place; `sha256` in hex. */
export type ExportPart = z.output<typeof part>;

/** A row of `backup.exports`. Times are ISO 8601 in UTC. */
export interface ExportRow {
  readonly id: string;
  readonly user: string;
  readonly origin: ExportOrigin;
  readonly status: "queued" | "making" | "ready" | "failed" | "ending" | "removed";
  readonly stage: ExportStage;
  readonly byFunction: boolean;
  readonly createdAt: string;
  readonly consistentAt: string | null;
  readonly readyAt: string | null;
  readonly expiresAt: string | null;
  readonly removedAt: string | null;
  readonly tables: number | null;
  readonly rows: number | null;
  readonly files: number | null;
  readonly filesDone: number;
  readonly fileBytes: number;
  readonly documentBytes: number | null;
  /** Of the document, one after the other. */
  readonly parts: readonly ExportPart[];
  readonly links: number;
  readonly mail: string | null;
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null } | null;
}

/** A row of `backup.export_files`. */
export interface ExportFile {
  readonly number: number;
  readonly bucket: string;
  readonly name: string;
  /** Where it lies beside the document. */
  readonly path: string;
  readonly version: string | null;
  readonly bytes: number;
  readonly state: "open" | "copied" | "missing";
  readonly parts: readonly ExportPart[];
  readonly changed: number;
}

/** Joined where one is under way: then there is no lease. Errors: `user_not_found`, `export_too_often`. */
export async function beginExport(
  connection: Connection,
  { user, origin, worker, leaseSeconds }: {
    readonly user: string;
    readonly origin: ExportOrigin;
    /** Null: legs of the function claim it. */
    readonly worker: string | null;
    readonly leaseSeconds: number;
  },
): Promise<{ readonly id: string; readonly lease: ExportLease | null; readonly joined: boolean }> {
  const [row] = await call(
    connection,
    "select id, token, joined from backup.begin_export($1::uuid, $2, $3, $4::double precision * interval '1 second')",
    [user, origin, worker, worker === null ? null : String(leaseSeconds)],
  );
  if (row === undefined) throw new HoldfastError("internal", "begin_export gave no export");
  const id = text(row, "id");
  const joined = row["joined"] === "t";
  return { id, joined, lease: joined || worker === null ? null : { id, token: text(row, "token") } };
}

/** Null while another has it, and once it is not being made any more. Errors: `run_not_found`. */
export async function claimExport(
  connection: Connection,
  id: string,
  { worker, leaseSeconds }: { readonly worker: string; readonly leaseSeconds: number },
): Promise<ExportLease | null> {
  const [row] = await call(connection, `select backup.claim_export($1::uuid, $2, ${seconds(3)}) as token`, [
    id,
    worker,
    String(leaseSeconds),
  ]);
  const token = row?.["token"];
  return token === null || token === undefined ? null : { id, token };
}

const seconds = (place: number) => `$${place}::double precision * interval '1 second'`;

/** Renews the lease. Errors: `lease_lost`, `user_not_found` once its person is gone. */
export async function holdExport(connection: Connection, { id, token }: ExportLease, leaseSeconds: number) {
  await call(connection, `select backup.holding_export($1::uuid, $2::bigint, ${seconds(3)})`, [
    id,
    token,
    String(leaseSeconds),
  ]);
}

/** How far a file is; what is left out stays. */
export interface ExportFileFacts {
  readonly state?: "copied" | "missing";
  readonly parts?: readonly ExportPart[];
  readonly why?: string;
  readonly version?: string;
  readonly bytes?: number;
  readonly changed?: number;
}

/** Errors: `lease_lost`. */
export async function recordExportFiles(
  connection: Connection,
  { id, token }: ExportLease,
  files: readonly (ExportFileFacts & { readonly number: number })[],
  leaseSeconds: number,
): Promise<void> {
  await call(connection, `select backup.record_export_files($1::uuid, $2::bigint, $3::jsonb, ${seconds(4)})`, [
    id,
    token,
    JSON.stringify(files),
    String(leaseSeconds),
  ]);
}

/** False where what was laid is not all there any more. Errors: `lease_lost`, `run_state` while files are to be copied. */
export async function closeDocument(connection: Connection, { id, token }: ExportLease): Promise<boolean> {
  const [row] = await call(connection, "select backup.close_document($1::uuid, $2::bigint) as closed", [id, token]);
  return row?.["closed"] === "t";
}

/** Errors: `lease_lost`. */
export async function recordExportPart(
  connection: Connection,
  { id, token }: ExportLease,
  one: ExportPart,
  leaseSeconds: number,
): Promise<void> {
  await call(connection, `select backup.record_export_part($1::uuid, $2::bigint, $3::jsonb, ${seconds(4)})`, [
    id,
    token,
    JSON.stringify(one),
    String(leaseSeconds),
  ]);
}

/** From `stage` on again. Errors: `lease_lost`, `export_undone` where that has happened too often. */
export async function redoExport(
  connection: Connection,
  { id, token }: ExportLease,
  { stage, files, why }: { readonly stage: ExportStage; readonly files: readonly number[]; readonly why: string },
): Promise<void> {
  await call(connection, "select backup.redo_export($1::uuid, $2::bigint, $3, $4::int[], $5)", [
    id,
    token,
    stage,
    `{${files.join(",")}}`,
    why,
  ]);
}

/** `byHand`: it lies in a folder, and in no bucket. Errors: `lease_lost`. */
export async function finishExport(connection: Connection, { id, token }: ExportLease, byHand: boolean): Promise<void> {
  await call(connection, "select backup.finish_export($1::uuid, $2::bigint, $3::boolean)", [id, token, String(byHand)]);
}

/** Errors: `lease_lost`. */
export async function failExport(connection: Connection, { id, token }: ExportLease, failure: HoldfastError) {
  const { code, message, hint } = failure;
  await call(connection, "select backup.fail_export($1::uuid, $2::bigint, $3, $4, $5)", [
    id,
    token,
    code,
    message,
    hint,
  ]);
}

/** The leg is over, work is left: the next one is called. Errors: `lease_lost`. */
export async function restExport(connection: Connection, { id, token }: ExportLease): Promise<void> {
  await call(connection, "select backup.rest_export($1::uuid, $2::bigint)", [id, token]);
}

/** Legs for those that wait, as many as may be made at once. */
export async function launchExports(connection: Connection): Promise<void> {
  await call(connection, "select backup.launch_exports()", []);
}

/**
 * Counts and audits the link that is about to be made; when this returns, both are committed. `expiresAt`: its end; `seconds`: until
 * then. Errors: `run_not_found`, `run_state` unless it is ready, `payload_invalid` for a time that is too long.
 */
export async function linkExport(
  connection: Connection,
  id: string,
  expirySeconds: number | null,
): Promise<{ readonly expiresAt: string; readonly seconds: number }> {
  const [row] = await call(
    connection,
    `select ${moment("l.until")} as until, floor(extract(epoch from l.until - backup.clock_now())) as seconds
       from (select backup.link_export($1::uuid, ${seconds(2)}) as until) as l`,
    [id, expirySeconds === null ? null : String(expirySeconds)],
  );
  return { expiresAt: row?.["until"] ?? "", seconds: Math.max(1, Number(row?.["seconds"])) };
}

/** False when its objects are gone already. Errors: `run_not_found`. */
export async function endExport(connection: Connection, id: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.end_export($1::uuid) as due", [id]);
  return row?.["due"] === "t";
}

/** Ids of those whose objects have to be removed. */
export async function dueExports(connection: Connection): Promise<string[]> {
  const rows = await call(connection, "select export from backup.due_exports() order by due_since", []);
  return rows.map((row) => text(row, "export"));
}

/** Ids of those whose objects have to stay. */
export async function keptExports(connection: Connection): Promise<Set<string>> {
  const rows = await call(
    connection,
    `select e.id from backup.exports as e
     where e.status <> 'removed' and e.id not in (select due.export from backup.due_exports() as due)`,
    [],
  );
  return new Set(rows.map((row) => text(row, "id")));
}

export async function exportRemoved(connection: Connection, id: string): Promise<void> {
  await call(connection, "select backup.export_removed($1::uuid)", [id]);
}

export async function exportsStay(connection: Connection, message: string): Promise<void> {
  await call(connection, "select backup.exports_stay($1)", [message]);
}

const moment = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

const columns = `e.id, e.user_id, e.origin, e.status, e.stage, e.by_function, e.tables, e.rows, e.files, e.files_done,
  e.file_bytes, e.document_bytes, e.parts::text as parts, e.links, e.mail, e.error_code, e.error_message, e.error_hint, ${
  ["created_at", "consistent_at", "ready_at", "expires_at", "removed_at"].map((one) =>
    `${moment(`e.${one}`)} as ${one}`
  )
    .join(", ")
}`;

/** Errors: `run_not_found`. */
export async function readExport(connection: Connection, id: string): Promise<ExportRow> {
  const [row] = await call(connection, `select ${columns} from backup.exports as e where e.id = $1::uuid`, [id]);
  if (row !== undefined) return exportOf(row);
  throw new HoldfastError("run_not_found", `there is no export ${id}`, {
    hint: "`holdfast export list` shows those that are there.",
  });
}

/** Newest first; `user`: of this one alone; those whose objects are gone only with `all`. */
export async function listExports(
  connection: Connection,
  { user, all, limit }: { readonly user: string | null; readonly all: boolean; readonly limit: number },
): Promise<ExportRow[]> {
  const rows = await call(
    connection,
    `select ${columns} from backup.exports as e
     where ($1::uuid is null or e.user_id = $1::uuid) and ($2::boolean or e.status <> 'removed')
     order by e.created_at desc limit $3::int`,
    [user, String(all), String(limit)],
  );
  return rows.map(exportOf);
}

const fileColumns =
  `f.number, f.bucket_id, f.name, f.path, f.version, f.bytes, f.state, f.parts::text as parts, f.changed`;

/** In their order; `open`: those that are still to be copied; `after`: behind the one of this number. */
export async function exportFiles(
  connection: Connection,
  id: string,
  { open, limit, after = 0 }: { readonly open: boolean; readonly limit: number; readonly after?: number },
): Promise<ExportFile[]> {
  const rows = await call(
    connection,
    `select ${fileColumns} from backup.export_files as f
     where f.export_id = $1::uuid and (f.state = 'open' or not $2::boolean) and f.number > $4::int order by f.number limit $3::int`,
    [id, String(open), String(limit), String(after)],
  );
  return rows.map((row) => ({
    number: Number(row["number"]),
    bucket: text(row, "bucket_id"),
    name: text(row, "name"),
    path: text(row, "path"),
    version: row["version"] ?? null,
    bytes: Number(row["bytes"]),
    state: text(row, "state") as ExportFile["state"],
    parts: parts.parse(JSON.parse(text(row, "parts"))),
    changed: Number(row["changed"]),
  }));
}

function exportOf(row: Row): ExportRow {
  const code = row["error_code"] ?? null;
  return {
    id: text(row, "id"),
    user: text(row, "user_id"),
    origin: text(row, "origin") as ExportOrigin,
    status: text(row, "status") as ExportRow["status"],
    stage: text(row, "stage") as ExportStage,
    byFunction: row["by_function"] === "t",
    createdAt: text(row, "created_at"),
    consistentAt: row["consistent_at"] ?? null,
    readyAt: row["ready_at"] ?? null,
    expiresAt: row["expires_at"] ?? null,
    removedAt: row["removed_at"] ?? null,
    tables: numberOrNull(row, "tables"),
    rows: numberOrNull(row, "rows"),
    files: numberOrNull(row, "files"),
    filesDone: Number(row["files_done"]),
    fileBytes: Number(row["file_bytes"]),
    documentBytes: numberOrNull(row, "document_bytes"),
    parts: parts.parse(JSON.parse(text(row, "parts"))),
    links: Number(row["links"]),
    mail: row["mail"] ?? null,
    error: code === null ? null : { code, message: row["error_message"] ?? "", hint: row["error_hint"] ?? null },
  };
}
