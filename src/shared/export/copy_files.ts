/** A person's files, from their buckets to the export: in ranges, each of a version that the database names before and after. */
import type { Budget } from "../backup/budget.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { blockBytes } from "./document_format.ts";
import {
  type ExportFile,
  type ExportFileFacts,
  exportFiles,
  type ExportLease,
  type ExportPart,
  recordExportFiles,
} from "./export_queries.ts";
import type { ExportTarget } from "./export_target.ts";

/** Bytes `from` to `to` of an object of the project's Storage, or all of it; null where Storage does not have it. */
export type ReadFile = (
  file: { readonly bucket: string; readonly name: string },
  range: { readonly from: number; readonly to: number; readonly whole: boolean },
) => Promise<Uint8Array | null>;

export interface CopyDeps {
  readonly connection: Connection;
  readonly target: ExportTarget;
  /** Errors: `setting_missing`, those of Storage. */
  readonly readFile: ReadFile;
}

export interface CopyOptions {
  readonly budget: Budget;
  readonly leaseSeconds: number;
  readonly signal?: AbortSignal;
}

/** Small files that are copied at a time; together they have no more bytes than a part. */
const atOnce = 8;
/** A file that is another one each time its copy is whole, is given up. */
const mostChanges = 3;

/**
 * `rest`: the budget is spent and files are left. Errors: `lease_lost`, `cancelled`, those of Storage and of the target. A file that is
 * gone meanwhile, or changes all the time, is recorded as missing with the reason.
 */
export async function copyFiles(
  deps: CopyDeps,
  lease: ExportLease,
  { budget, leaseSeconds, signal }: CopyOptions,
): Promise<"done" | "rest"> {
  for (;;) {
    const batch = batchOf(await exportFiles(deps.connection, lease.id, { open: true, limit: atOnce }));
    if (batch.length === 0) return "done";
    if (budget.spent()) return "rest";
    if (signal?.aborted === true) throw new HoldfastError("cancelled", "the export was cancelled");
    const copied = await Promise.all(batch.map(async (file) => ({ file, part: await copyPart(deps, file) })));
    const now = await presentVersions(deps.connection, batch);
    const facts = copied.map(({ file, part }) => ({
      number: file.number,
      ...factsOf(file, part, now.get(file.number)),
    }));
    await recordExportFiles(deps.connection, lease, facts, leaseSeconds);
    budget.spendText(0, copied.reduce((sum, { part }) => sum + (part?.bytes ?? 0), 0));
    budget.spendCalls(3 + 3 * batch.length);
  }
}

/** The first one, and those behind it that fit into a part beside it. */
function batchOf(files: readonly ExportFile[]): ExportFile[] {
  const batch: ExportFile[] = [];
  let bytes = 0;
  for (const file of files) {
    bytes += file.bytes;
    if (batch.length > 0 && bytes > blockBytes) break;
    batch.push(file);
  }
  return batch;
}

/** The next range of it; null: Storage has nothing there, or something of another length. */
async function copyPart({ target, readFile }: CopyDeps, file: ExportFile): Promise<ExportPart | null> {
  const from = file.parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const to = Math.min(file.bytes, from + blockBytes);
  const bytes = await readFile(file, { from, to, whole: file.bytes <= blockBytes });
  if (bytes === null || bytes.byteLength !== to - from) return null;
  await target.putFile(file, file.parts.length, from, bytes);
  return { bytes: bytes.byteLength, sha256: await sha256Hex(bytes) };
}

/** What Storage's table says of them now, by number; none of one that is gone. */
async function presentVersions(connection: Connection, files: readonly ExportFile[]): Promise<Map<number, Present>> {
  const rows = await connection.query(
    `select f.number, o.version, coalesce((o.metadata ->> 'size')::bigint, 0) as bytes
     from pg_catalog.jsonb_to_recordset($1::jsonb) as f (number integer, bucket text, name text)
     join storage.objects as o on o.bucket_id = f.bucket and o.name = f.name`,
    [JSON.stringify(files.map(({ number, bucket, name }) => ({ number, bucket, name })))],
  );
  return new Map(
    rows.map((row) => [Number(row["number"]), { version: row["version"] ?? null, bytes: Number(row["bytes"]) }]),
  );
}

interface Present {
  readonly version: string | null;
  readonly bytes: number;
}

function factsOf(file: ExportFile, part: ExportPart | null, now: Present | undefined): ExportFileFacts {
  if (now === undefined) return { state: "missing", why: "it was removed while the export was made", parts: [] };
  if (now.version !== file.version) {
    if (file.changed + 1 >= mostChanges) {
      return { state: "missing", why: "it kept changing while the export was made", parts: [] };
    }
    // From its beginning, as it is now.
    return { parts: [], version: now.version ?? "", bytes: now.bytes, changed: file.changed + 1 };
  }
  if (part === null) return { state: "missing", why: "Storage names it and does not have it", parts: [] };
  const parts = [...file.parts, part];
  const copied = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  return { parts, ...(copied >= file.bytes ? { state: "copied" } : {}) };
}
