import { json, jsonObject } from "./answer.ts";
import { asCaller, moment, type StorageCall, type StorageDeps } from "./storage_context.ts";
import { bucketNotFound, invalidInput, StorageFailure } from "./storage_errors.ts";
import { serviceCaller } from "./tokens.ts";

/** What uploads need to know of a bucket. */
export interface Bucket {
  readonly id: string;
  readonly public: boolean;
  readonly fileSizeLimit: number;
  /** Empty: any. `image/*` stands for all of a kind. */
  readonly mimeTypes: readonly string[];
}

/** The bucket whatever the caller's rights; a `404` failure when there is none. */
export async function findBucket(
  deps: StorageDeps,
  call: Pick<StorageCall, "request" | "path">,
  id: string,
): Promise<Bucket> {
  const [row] = await asCaller(deps, call, serviceCaller, (sql) =>
    sql.query(
      `select public::text, file_size_limit::text, to_json(allowed_mime_types)::text as mime_types
         from storage.buckets where id = $1`,
      [id],
    ));
  if (row === undefined) throw bucketNotFound();
  return {
    id,
    public: row["public"] === "true",
    fileSizeLimit: row["file_size_limit"] == null ? deps.fileSizeLimit : Number(row["file_size_limit"]),
    mimeTypes: JSON.parse(row["mime_types"] ?? "[]"),
  };
}

const bucketJson = `json_build_object('id', id, 'name', name, 'owner', coalesce(owner_id, ''), 'public', public,
  'file_size_limit', file_size_limit, 'allowed_mime_types', allowed_mime_types,
  'created_at', ${moment("created_at")}, 'updated_at', ${moment("updated_at")})`;

/** `/bucket…`, or null when this is no such request. */
export async function bucketRoute(deps: StorageDeps, call: StorageCall): Promise<Response | null> {
  const { method } = call.request;
  const [, id, act] = /^\/bucket(?:\/([^/]+))?(?:\/(empty))?$/.exec(call.path) ?? [undefined, undefined, undefined];
  if (!call.path.startsWith("/bucket")) return null;
  if (id === undefined) {
    if (method === "POST") return await createBucket(deps, call);
    if (method === "GET") return await listBuckets(deps, call);
    return null;
  }
  if (act === "empty") return method === "POST" ? await emptyBucket(deps, call, id) : null;
  if (method === "GET") return await getBucket(deps, call, id);
  if (method === "PUT") return await updateBucket(deps, call, id);
  if (method === "DELETE") return await deleteBucket(deps, call, id);
  return null;
}

async function createBucket(deps: StorageDeps, call: StorageCall): Promise<Response> {
  const body = await jsonObject(call.request) ?? {};
  const name = typeof body["name"] === "string" ? body["name"] : "";
  const id = typeof body["id"] === "string" ? body["id"] : name;
  if (!/^[\w!\-.*'() &$@=;:+,?]{1,100}$/.test(id)) throw invalidInput("Bucket name invalid");
  await asCaller(deps, call, call.caller, (sql) =>
    sql.query(
      `insert into storage.buckets (id, name, owner, owner_id, public, file_size_limit, allowed_mime_types)
       values ($1, $2, $3::uuid, $4, $5::boolean, $6::bigint, (select array_agg(m) from json_array_elements_text($7::json) m))`,
      [
        id,
        name,
        call.caller.claims.sub ?? null,
        call.caller.claims.sub ?? null,
        String(body["public"] === true),
        ...rules(body),
      ],
    ));
  return json(200, { name });
}

async function listBuckets(deps: StorageDeps, call: StorageCall): Promise<Response> {
  const [row] = await asCaller(
    deps,
    call,
    call.caller,
    (sql) =>
      sql.query(`select coalesce(json_agg(${bucketJson} order by name), '[]')::text as body from storage.buckets`),
  );
  return json(200, JSON.parse(row?.["body"] ?? "[]"));
}

async function getBucket(deps: StorageDeps, call: StorageCall, id: string): Promise<Response> {
  const [row] = await asCaller(
    deps,
    call,
    call.caller,
    (sql) => sql.query(`select ${bucketJson}::text as body from storage.buckets where id = $1`, [id]),
  );
  if (row === undefined) throw bucketNotFound();
  return json(200, JSON.parse(row["body"] ?? "null"));
}

async function updateBucket(deps: StorageDeps, call: StorageCall, id: string): Promise<Response> {
  const body = await jsonObject(call.request) ?? {};
  const rows = await asCaller(deps, call, call.caller, (sql) =>
    sql.query(
      `update storage.buckets set public = coalesce($2::boolean, public),
              file_size_limit = case when $5 = 'true' then $3::bigint else file_size_limit end,
              allowed_mime_types = case when $6 = 'true' then (select array_agg(m) from json_array_elements_text($4::json) m)
                                        else allowed_mime_types end,
              updated_at = now()
        where id = $1 returning id`,
      [
        id,
        typeof body["public"] === "boolean" ? String(body["public"]) : null,
        ...rules(body),
        String("file_size_limit" in body),
        String("allowed_mime_types" in body),
      ],
    ));
  if (rows.length === 0) throw bucketNotFound();
  return json(200, { message: "Successfully updated" });
}

async function emptyBucket(deps: StorageDeps, call: StorageCall, id: string): Promise<Response> {
  await findBucket(deps, call, id);
  for (let gone = 1; gone > 0;) { // ends when nothing the caller may delete is left
    const rows = await asCaller(deps, call, call.caller, (sql) =>
      sql.query(
        `delete from storage.objects where id in (select id from storage.objects where bucket_id = $1 limit 1000)
         returning version`,
        [id],
      ));
    for (const row of rows) await deps.blobs.remove(row["version"] ?? "");
    gone = rows.length;
  }
  return json(200, { message: "Successfully emptied" });
}

async function deleteBucket(deps: StorageDeps, call: StorageCall, id: string): Promise<Response> {
  const [held] = await asCaller(
    deps,
    call,
    serviceCaller,
    (sql) => sql.query("select 1 as one from storage.objects where bucket_id = $1 limit 1", [id]),
  );
  if (held !== undefined) {
    throw new StorageFailure(409, "InvalidRequest", "The bucket you tried to delete is not empty");
  }
  const rows = await asCaller(
    deps,
    call,
    call.caller,
    (sql) => sql.query("delete from storage.buckets where id = $1 returning id", [id]),
  );
  if (rows.length === 0) throw bucketNotFound();
  return json(200, { message: "Successfully deleted" });
}

/** Limit in bytes and types as JSON, both as text or null. */
function rules(body: Record<string, unknown>): [string | null, string | null] {
  const limit = body["file_size_limit"];
  const types = body["allowed_mime_types"];
  return [
    limit == null ? null : String(bytesOf(limit)),
    Array.isArray(types) ? JSON.stringify(types.map(String)) : null,
  ];
}

/** `52428800`, `"50MB"` and `"1 GB"` are all taken, as Storage does. */
function bytesOf(limit: unknown): number {
  const [, figure, unit] = /^\s*([0-9.]+)\s*([KMG]?)i?B?\s*$/i.exec(String(limit)) ?? [];
  if (figure === undefined) throw invalidInput("file_size_limit must be a size");
  const scale = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[(unit ?? "").toUpperCase()] ?? 1;
  return Math.floor(Number(figure) * scale);
}
