import { json } from "./answer.ts";
import { type StoredBytes, TooManyBytes } from "./blobs.ts";
import type { Statements } from "./database.ts";
import { formParts } from "./multipart.ts";
import { type Bucket, findBucket } from "./storage_buckets.ts";
import { asCaller, rehearse, type StorageCall, type StorageDeps } from "./storage_context.ts";
import { alreadyExists, invalidInput, StorageFailure, tooLarge } from "./storage_errors.ts";
import { serviceCaller } from "./tokens.ts";

/** The characters Storage takes in a name: plain ASCII, without `%`, `#`, `~`, quotes, brackets and backslash. */
const validName = /^[A-Za-z0-9_/!\-.*'() &$@=;:+,?]{1,1024}$/;

export function checkName(name: string): void {
  if (!validName.test(name) || name.startsWith("/") || name.endsWith("/")) {
    throw new StorageFailure(400, "InvalidKey", `Invalid key: ${name}`);
  }
}

/** A file on its way in. */
interface Incoming {
  readonly body: ReadableStream<Uint8Array> | null;
  readonly mimeType: string;
  readonly cacheControl: string;
  /** JSON of the caller's own metadata, or null. */
  readonly userMetadata: string | null;
}

/**
 * Puts a file. The caller's rights are tried first, then the bytes go to the disk, and last the row commits: a row always
 * has its bytes. Without `upsert` it is an atomic create: of several at once one wins, the others get `409`.
 */
export async function upload(
  deps: StorageDeps,
  call: StorageCall,
  bucketId: string,
  name: string,
  upsert: boolean,
): Promise<Response> {
  checkName(name);
  const bucket = await findBucket(deps, call, bucketId);
  const sub = call.caller.claims.sub ?? null;
  const row: ObjectRow = { bucketId, name, owner: sub, upsert, metadata: "{}", userMetadata: null, version: null };
  await rehearse(deps, call, (sql) => writeRow(sql, row));

  const incoming = await open(call.request, bucket);
  let bytes: StoredBytes;
  try {
    bytes = await deps.blobs.put(incoming.body, bucket.fileSizeLimit);
  } catch (error) {
    throw error instanceof TooManyBytes ? tooLarge() : error;
  }
  const id = await commitBytes(deps, call, {
    ...row,
    version: bytes.version,
    metadata: JSON.stringify({
      eTag: `"${bytes.md5}"`,
      size: bytes.size,
      mimetype: incoming.mimeType,
      cacheControl: incoming.cacheControl,
      lastModified: new Date().toISOString(),
      contentLength: bytes.size,
      httpStatusCode: 200,
    }),
    userMetadata: incoming.userMetadata,
  });
  return json(200, { Id: id, Key: `${bucketId}/${name}` });
}

export interface ObjectRow {
  readonly bucketId: string;
  readonly name: string;
  /** The `sub` of whoever owns it: kept in `owner_id`, and in `owner` where it is a uuid. */
  readonly owner: string | null;
  readonly upsert: boolean;
  /** JSON. */
  readonly metadata: string;
  readonly userMetadata: string | null;
  readonly version: string | null;
}

/** Commits a row whose bytes are there; afterwards the bytes it replaced go, or its own where it did not come to be. */
export async function commitBytes(deps: StorageDeps, call: StorageCall, row: ObjectRow): Promise<string> {
  try {
    const { id, replaced } = await asCaller(deps, call, serviceCaller, async (sql) => {
      let before: string | null = null;
      if (row.upsert) {
        // Two upserts of one name come one after the other, so that each knows whose bytes it replaces.
        await sql.query("select pg_advisory_xact_lock(hashtextextended($1, 0))", [`${row.bucketId}/${row.name}`]);
        const [old] = await sql.query(
          "select version from storage.objects where bucket_id = $1 and name = $2 for update",
          [
            row.bucketId,
            row.name,
          ],
        );
        before = old?.["version"] ?? null;
      }
      return { id: await writeRow(sql, row), replaced: before };
    });
    if (replaced !== null) await deps.blobs.remove(replaced);
    return id;
  } catch (error) {
    if (row.version !== null) await deps.blobs.remove(row.version);
    throw error;
  }
}

/** Inserts the row (or, with `upsert`, replaces it) and returns its id; `409` when it is there already. */
export async function writeRow(sql: Statements, row: ObjectRow): Promise<string> {
  const replace = row.upsert
    ? `on conflict (bucket_id, name) do update
         set version = excluded.version, metadata = excluded.metadata, user_metadata = excluded.user_metadata,
             owner = excluded.owner, owner_id = excluded.owner_id, updated_at = now()`
    : "on conflict do nothing";
  const uuid = row.owner !== null && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(row.owner) ? row.owner : null;
  const [written] = await sql.query(
    `insert into storage.objects (bucket_id, name, owner, owner_id, version, metadata, user_metadata)
     values ($1, $2, $3::uuid, $4, $5, $6::jsonb, $7::jsonb) ${replace} returning id::text`,
    [row.bucketId, row.name, uuid, row.owner, row.version, row.metadata, row.userMetadata],
  );
  const id = written?.["id"];
  if (id == null) throw alreadyExists();
  return id;
}

async function open(request: Request, bucket: Bucket): Promise<Incoming> {
  const type = request.headers.get("content-type") ?? "application/octet-stream";
  const length = Number(request.headers.get("content-length") ?? "0");
  if (length > bucket.fileSizeLimit + (type.startsWith("multipart/") ? 1024 * 1024 : 0)) throw tooLarge();
  if (!type.startsWith("multipart/form-data")) {
    const cacheControl = request.headers.get("cache-control") ?? "no-cache";
    return allowed(bucket, { body: request.body, mimeType: type, cacheControl, userMetadata: userMetadata(request) });
  }
  // A form is held in memory; its length was bounded above, and one that does not say its length is refused.
  if (!request.headers.has("content-length")) {
    throw new StorageFailure(411, "MissingContentLength", "Missing content-length");
  }
  const parts = formParts(new Uint8Array(await request.arrayBuffer()), type) ?? [];
  const file = parts.find((part) => part.fileName !== null);
  if (file === undefined) throw invalidInput("no file in the form");
  const field = (name: string) => {
    const part = parts.find((one) => one.name === name && one.fileName === null);
    return part === undefined ? null : new TextDecoder().decode(part.bytes);
  };
  const seconds = field("cacheControl");
  return allowed(bucket, {
    body: new Blob([file.bytes]).stream(),
    mimeType: file.type,
    cacheControl: seconds === null ? "no-cache" : `max-age=${seconds}`,
    userMetadata: field("metadata"),
  });
}

function allowed(bucket: Bucket, incoming: Incoming): Incoming {
  const type = incoming.mimeType.split(";", 1)[0]?.trim() ?? "";
  const fits = bucket.mimeTypes.length === 0 ||
    bucket.mimeTypes.some((one) => one === type || (one.endsWith("/*") && type.startsWith(one.slice(0, -1))));
  if (!fits) throw new StorageFailure(415, "invalid_mime_type", `mime type ${type} is not supported`);
  return incoming;
}

function userMetadata(request: Request): string | null {
  const header = request.headers.get("x-metadata");
  return header === null ? null : new TextDecoder().decode(Uint8Array.from(atob(header), (one) => one.charCodeAt(0)));
}
