import { json } from "./answer.ts";
import { asCaller, moment, type StorageCall, type StorageDeps } from "./storage_context.ts";
import { objectNotFound, StorageFailure } from "./storage_errors.ts";
import type { Caller } from "./tokens.ts";

export interface ObjectInfo {
  readonly id: string;
  readonly name: string;
  readonly bucketId: string;
  readonly version: string | null;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly size: number;
  readonly mimeType: string;
  readonly cacheControl: string;
  readonly eTag: string;
  readonly lastModified: string;
  readonly userMetadata: unknown;
}

/** The object as `caller` sees it; a `404` failure when it is not there or not theirs. */
export async function findObject(
  deps: StorageDeps,
  call: Pick<StorageCall, "request" | "path">,
  caller: Caller,
  bucketId: string,
  name: string,
): Promise<ObjectInfo> {
  const [row] = await asCaller(deps, call, caller, (sql) =>
    sql.query(
      `select id::text, version, metadata::text, user_metadata::text, ${moment("created_at")} as created_at,
              ${moment("updated_at")} as updated_at
         from storage.objects where bucket_id = $1 and name = $2`,
      [bucketId, name],
    ));
  if (row === undefined) throw objectNotFound();
  const metadata: Record<string, unknown> = JSON.parse(row["metadata"] ?? "null") ?? {};
  const text = (key: string, otherwise: string) => typeof metadata[key] === "string" ? metadata[key] : otherwise;
  return {
    id: row["id"] ?? "",
    name,
    bucketId,
    version: row["version"] ?? null,
    createdAt: row["created_at"] ?? "",
    updatedAt: row["updated_at"] ?? "",
    size: Number(metadata["size"] ?? 0),
    mimeType: text("mimetype", "application/octet-stream"),
    cacheControl: text("cacheControl", "no-cache"),
    eTag: text("eTag", '""'),
    lastModified: text("lastModified", row["updated_at"] ?? ""),
    userMetadata: JSON.parse(row["user_metadata"] ?? "null"),
  };
}

/** The object's bytes, or the range asked for; `HEAD` the same without them. */
export async function serve(deps: StorageDeps, request: Request, info: ObjectInfo): Promise<Response> {
  const headers = new Headers({
    "content-type": info.mimeType,
    "cache-control": info.cacheControl,
    etag: info.eTag,
    "last-modified": new Date(info.lastModified).toUTCString(),
    "accept-ranges": "bytes",
    "content-encoding": "identity", // or Deno.serve compresses what calls itself text, at ten times the cost of sending it
  });
  const asked = new URL(request.url).searchParams.get("download");
  if (asked !== null) {
    const file = encodeURIComponent(asked === "" ? info.name.split("/").at(-1) ?? "" : asked);
    headers.set("content-disposition", `attachment; filename=${file}; filename*=UTF-8''${file};`);
  }
  if (request.headers.get("if-none-match") === info.eTag) return new Response(null, { status: 304, headers });
  const range = rangeOf(request.headers.get("range"), info.size);
  const { start, end } = range ?? { start: 0, end: info.size };
  headers.set("content-length", String(end - start));
  if (range !== null) headers.set("content-range", `bytes ${start}-${end - 1}/${info.size}`);
  if (request.method === "HEAD") return new Response(null, { status: 200, headers });
  const body = info.version === null ? null : await deps.blobs.read(info.version, start, end - start);
  if (body === null) throw new StorageFailure(500, "InternalError", "The object's bytes are missing");
  return new Response(body, { status: range === null ? 200 : 206, headers });
}

/** First and one past the last byte, or null for all; a `416` failure for a range outside the object. */
export function rangeOf(header: string | null, size: number): { readonly start: number; readonly end: number } | null {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (from === undefined || to === undefined || (from === "" && to === "")) return null;
  const start = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === "" || to === "" ? size : Math.min(size, Number(to) + 1);
  if (start >= end) throw new StorageFailure(416, "InvalidRange", "The requested range is not satisfiable");
  return { start, end };
}

export function infoAnswer(info: ObjectInfo): Response {
  return json(200, {
    id: info.id,
    name: info.name,
    version: info.version,
    bucket_id: info.bucketId,
    size: info.size,
    content_type: info.mimeType,
    cache_control: info.cacheControl,
    etag: info.eTag,
    metadata: info.userMetadata ?? {},
    last_modified: info.lastModified,
    created_at: info.createdAt,
    updated_at: info.updatedAt,
  });
}
