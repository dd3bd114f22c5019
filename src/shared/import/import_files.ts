/** Files of an export that lie beside its document: what of them goes into the project's Storage, and that they are whole. */
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { ExportDocument } from "../export/document_format.ts";
import { openProjectFiles } from "../files/project_files.ts";
import { isHalfSql, putBack, type PutBackDeps } from "../files/put_back.ts";
import type { ReadPart } from "../verify/read_file_list.ts";
import type { FilePart, ListedFile } from "../format/file_list.ts";
import type { Connection, Row } from "../postgres/connection.ts";

type ExportedFile = ExportDocument["files"][number];

/** Bytes `from` to `to` of a file beside the document. Errors: `object_missing`. */
export type ReadBeside = (path: string, from: number, to: number) => Promise<Uint8Array>;

export interface FileToPut {
  readonly file: ExportedFile;
  /** What an earlier try has left in its place. */
  readonly replaces: boolean;
}

export interface FilesPlan {
  readonly put: readonly FileToPut[];
  /** In Storage there is a file of the same name. */
  readonly there: readonly ExportedFile[];
  /** Of which the export holds no content. */
  readonly missing: readonly ExportedFile[];
  /** Buckets that are not there: the document says nothing of how they were set up. */
  readonly buckets: readonly string[];
  /** That is put. */
  readonly bytes: number;
}

/** Errors: those of the connection; `target_differs` where there are files and no Storage. */
export async function planFiles(session: Connection, files: readonly ExportedFile[]): Promise<FilesPlan> {
  const missing = files.filter(({ state }) => state === "missing");
  const copied = files.filter(({ state }) => state === "copied");
  if (copied.length === 0) return { put: [], there: [], missing, buckets: [], bytes: 0 };
  const [storage] = await session.query("select pg_catalog.to_regclass('storage.objects') is not null as yes");
  if (storage?.["yes"] !== "t") {
    throw new HoldfastError("target_differs", "the document has files, and there is no Storage");
  }
  const rows = await session.query(
    `select f.number, o.id is not null as there, ${isHalfSql} as half,
            exists (select from storage.buckets as b where b.id = f.bucket) as bucket
       from pg_catalog.jsonb_to_recordset($1::jsonb) as f (number integer, bucket text, name text)
            left join storage.objects as o on o.bucket_id = f.bucket and o.name = f.name`,
    [JSON.stringify(copied.map(({ number, bucket, name }) => ({ number, bucket, name })))],
  );
  const facts = new Map(rows.map((row) => [Number(row["number"]), row]));
  const isHalf = ({ number }: ExportedFile) => facts.get(number)?.["half"] === "t";
  const isThere = (file: ExportedFile) => facts.get(file.number)?.["there"] === "t" && !isHalf(file);
  const put = copied.filter((file) => !isThere(file)).map((file) => ({ file, replaces: isHalf(file) }));
  const lost = put.filter(({ file }) => facts.get(file.number)?.["bucket"] !== "t").map(({ file }) => file.bucket);
  return {
    put,
    there: copied.filter(isThere),
    missing,
    buckets: [...new Set(lost)].sort(),
    bytes: put.reduce((sum, { file }) => sum + file.bytes, 0),
  };
}

/** Every byte of them, before anything is changed. Errors: `export_unsigned` where one is not as the document says. */
export async function verifyFiles(files: readonly ExportedFile[], read: ReadBeside): Promise<void> {
  for (const file of files) {
    const readPart = partsOf(file, read);
    for (const part of listed(file, "").parts) await readPart(part);
  }
}

/** Into Storage, read back, with their owner and dates. Errors: those of `putBack`. */
export async function putFile(
  deps: Omit<PutBackDeps, "reader">,
  { file, replaces }: FileToPut,
  user: string,
  read: ReadBeside,
): Promise<void> {
  await putBack({ ...deps, reader: partsOf(file, read) }, listed(file, user), replaces);
}

/**
 * What an earlier try has made of a file that was not there before it: `put`, with its owner; `half`: its bytes, and nobody's yet;
 * `strange`: not that. Errors: those of Storage.
 */
export async function putBefore(
  deps: Omit<PutBackDeps, "reader">,
  file: ExportedFile,
  user: string,
): Promise<"put" | "half" | "strange"> {
  const [row] = await deps.session.query(
    `select o.version, o.metadata ->> 'size' as size, nullif(pg_catalog.to_jsonb(o) ->> 'owner_id', '') as owner
       from storage.objects as o where o.bucket_id = $1 and o.name = $2`,
    [file.bucket, file.name],
  );
  const owner = row?.["owner"] ?? null;
  if (row === undefined || owner !== null && owner !== user || !(await isEqual(deps, file, row))) return "strange";
  return owner === null ? "half" : "put";
}

async function isEqual(deps: Omit<PutBackDeps, "reader">, file: ExportedFile, row: Row): Promise<boolean> {
  if (Number(row["size"]) !== file.bytes) return false;
  const storage = openProjectFiles(deps.target, deps.fetch);
  const { bucket, name } = file;
  const version = row["version"] ?? "";
  const whole = file.parts.length === 1;
  let from = 0;
  for (const { bytes, sha256 } of file.parts) {
    const to = from + bytes;
    const there = await storage.read({ bucket, name, version, etag: null, from, to, whole });
    if (await sha256Hex(there) !== sha256) return false;
    from = to;
  }
  return true;
}

/** A part is named by its place. */
function partsOf({ path, parts }: ExportedFile, read: ReadBeside): ReadPart {
  return async ({ object, rawBytes, hash }: FilePart) => {
    const from = parts.slice(0, Number(object)).reduce((sum, { bytes }) => sum + bytes, 0);
    const bytes = await read(path, from, from + rawBytes);
    if (bytes.byteLength === rawBytes && await sha256Hex(bytes) === hash) return bytes;
    throw new HoldfastError("export_unsigned", `${path} is not as the document says`);
  };
}

/** As a backup would list it. */
function listed(file: ExportedFile, user: string): ListedFile {
  const { bucket, name, bytes, contentType, cacheControl, metadata, createdAt, updatedAt, parts } = file;
  return {
    bucket,
    name,
    id: "",
    size: bytes,
    inSnapshot: true,
    missed: null,
    parts: bytes === 0 ? [] : parts.map((part, at) => ({
      object: String(at),
      rawBytes: part.bytes,
      storedBytes: part.bytes,
      hash: part.sha256,
      storedHash: part.sha256,
    })),
    row: JSON.stringify({
      metadata: { mimetype: contentType, cacheControl },
      owner: user,
      owner_id: user,
      created_at: utc(createdAt),
      updated_at: utc(updatedAt),
      user_metadata: metadata ?? null,
    }),
  };
}

/** The document's dates are in UTC and do not say so. */
function utc(moment: string | null): string | null {
  return moment === null || /(Z|[+-]\d\d(:?\d\d)?)$/.test(moment) ? moment : `${moment}Z`;
}
