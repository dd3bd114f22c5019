import { isObject, json, jsonObject } from "./answer.ts";
import { findBucket } from "./storage_buckets.ts";
import { asCaller, moment, rehearse, type StorageCall, type StorageDeps } from "./storage_context.ts";
import { findObject } from "./storage_download.ts";
import { invalidInput, objectNotFound } from "./storage_errors.ts";
import { checkName, commitBytes, writeRow } from "./storage_upload.ts";

/** Names taken by one removal or one batch of signatures. */
const namesAtMost = 1_000;

/** `POST /object/list/<bucket>`: what lies right below a prefix, folders first; 100 unless asked otherwise. */
export async function list(deps: StorageDeps, call: StorageCall, bucketId: string): Promise<Response> {
  const body = await jsonObject(call.request);
  if (body === null) throw invalidInput("body must be object");
  const given = typeof body["prefix"] === "string" ? body["prefix"] : "";
  const prefix = given === "" || given.endsWith("/") ? given : `${given}/`;
  const search = typeof body["search"] === "string" ? body["search"] : "";
  const sort = isObject(body["sortBy"]) ? body["sortBy"] : {};
  const column = ["name", "updated_at", "created_at", "last_accessed_at"].find((one) => one === sort["column"]) ??
    "name";
  const direction = sort["order"] === "desc" ? "desc" : "asc";
  const [row] = await asCaller(deps, call, call.caller, (sql) =>
    sql.query(
      `with hits as (
         select o.*, substr(o.name, length($2) + 1) as rest from storage.objects o
          where o.bucket_id = $1 and o.name like $3
       ), entries as (
         select split_part(rest, '/', 1) as name, null::uuid as id, null::timestamptz as updated_at,
                null::timestamptz as created_at, null::timestamptz as last_accessed_at, null::jsonb as metadata, 0 as rank
           from hits where strpos(rest, '/') > 0 group by 1
         union all
         select rest, id, updated_at, created_at, last_accessed_at, metadata, 1 from hits where strpos(rest, '/') = 0
       ), page as (
         select row_number() over (order by rank, ${column} ${direction}, name) as place, * from entries
          order by place limit $4::bigint offset $5::bigint
       )
       select coalesce(json_agg(json_build_object('name', name, 'id', id, 'updated_at', ${moment("updated_at")},
                'created_at', ${moment("created_at")}, 'last_accessed_at', ${moment("last_accessed_at")},
                'metadata', metadata) order by place), '[]')::text as body from page`,
      [
        bucketId,
        prefix,
        `${(prefix + search).replace(/[\\%_]/g, "\\$&")}%`,
        String(wholeNumber(body["limit"], 100)),
        String(wholeNumber(body["offset"], 0)),
      ],
    ));
  return json(200, JSON.parse(row?.["body"] ?? "[]"));
}

function wholeNumber(value: unknown, otherwise: number): number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : otherwise;
}

/** `DELETE /object/<bucket>` with names: those that are there and theirs go, and are the answer. No error for the others. */
export async function remove(deps: StorageDeps, call: StorageCall, bucketId: string): Promise<Response> {
  const names = namesOf((await jsonObject(call.request))?.["prefixes"], "prefixes");
  await findBucket(deps, call, bucketId);
  return json(200, await removeNames(deps, call, bucketId, names));
}

/** `DELETE /object/<bucket>/<name>`. */
export async function removeOne(
  deps: StorageDeps,
  call: StorageCall,
  bucketId: string,
  name: string,
): Promise<Response> {
  const gone = await removeNames(deps, call, bucketId, [name]);
  if (gone.length === 0) throw objectNotFound();
  return json(200, { message: "Successfully deleted" });
}

/** The rows go first: bytes without a row do no harm, a row without bytes does. */
async function removeNames(
  deps: StorageDeps,
  call: StorageCall,
  bucketId: string,
  names: string[],
): Promise<unknown[]> {
  const rows = await asCaller(deps, call, call.caller, (sql) =>
    sql.query(
      `delete from storage.objects
        where bucket_id = $1 and name = any (array(select json_array_elements_text($2::json)))
       returning version, json_build_object('name', name, 'bucket_id', bucket_id, 'owner', owner, 'owner_id', owner_id,
         'version', version, 'id', id, 'updated_at', ${moment("updated_at")}, 'created_at', ${moment("created_at")},
         'last_accessed_at', ${
        moment("last_accessed_at")
      }, 'metadata', metadata, 'user_metadata', user_metadata)::text as body`,
      [bucketId, JSON.stringify(names)],
    ));
  for (const row of rows) await deps.blobs.remove(row["version"] ?? "");
  return rows.map((row) => JSON.parse(row["body"] ?? "null"));
}

/** `POST /object/copy`. */
export async function copy(deps: StorageDeps, call: StorageCall): Promise<Response> {
  const { from, to } = await fromTo(call);
  const source = await findObject(deps, call, call.caller, from.bucketId, from.name);
  await findBucket(deps, call, to.bucketId);
  const [kept] = await asCaller(
    deps,
    call,
    call.caller,
    (sql) =>
      sql.query("select metadata::text, user_metadata::text from storage.objects where id = $1::uuid", [source.id]),
  );
  const row = {
    ...to,
    owner: call.caller.claims.sub ?? null,
    upsert: call.request.headers.get("x-upsert") === "true",
    metadata: kept?.["metadata"] ?? "{}",
    userMetadata: kept?.["user_metadata"] ?? null,
    version: null,
  };
  await rehearse(deps, call, (sql) => writeRow(sql, row));
  const version = source.version === null ? null : await deps.blobs.copy(source.version);
  if (version === null) throw objectNotFound();
  const id = await commitBytes(deps, call, { ...row, version });
  return json(200, { Id: id, Key: `${to.bucketId}/${to.name}` });
}

/** `POST /object/move`: the bytes stay where they are, the row gets another name. */
export async function move(deps: StorageDeps, call: StorageCall): Promise<Response> {
  const { from, to } = await fromTo(call);
  await findBucket(deps, call, to.bucketId);
  const rows = await asCaller(deps, call, call.caller, (sql) =>
    sql.query(
      "update storage.objects set bucket_id = $3, name = $4, updated_at = now() where bucket_id = $1 and name = $2 returning id::text",
      [from.bucketId, from.name, to.bucketId, to.name],
    ));
  if (rows.length === 0) throw objectNotFound();
  return json(200, { message: "Successfully moved", Id: rows[0]?.["id"], Key: `${to.bucketId}/${to.name}` });
}

interface Place {
  readonly bucketId: string;
  readonly name: string;
}

async function fromTo(call: StorageCall): Promise<{ from: Place; to: Place }> {
  const body = await jsonObject(call.request) ?? {};
  const text = (key: string) => typeof body[key] === "string" ? body[key] : "";
  const [bucketId, source, destination] = [text("bucketId"), text("sourceKey"), text("destinationKey")];
  if (bucketId === "" || source === "") throw invalidInput("bucketId, sourceKey and destinationKey are required");
  checkName(destination);
  return {
    from: { bucketId, name: source },
    to: { bucketId: text("destinationBucket") || bucketId, name: destination },
  };
}

/** `POST /object/sign/<bucket>/<name>`: whoever may read it may pass on a link. */
export async function sign(deps: StorageDeps, call: StorageCall, bucketId: string, name: string): Promise<Response> {
  const seconds = lifetime(await jsonObject(call.request));
  await findObject(deps, call, call.caller, bucketId, name);
  return json(200, { signedURL: await signedUrl(deps, bucketId, name, seconds) });
}

/** `POST /object/sign/<bucket>` with `paths`: one answer a path, with an error for those that cannot be read. */
export async function signMany(deps: StorageDeps, call: StorageCall, bucketId: string): Promise<Response> {
  const body = await jsonObject(call.request);
  const paths = namesOf(body?.["paths"], "paths");
  const seconds = lifetime(body);
  const rows = await asCaller(deps, call, call.caller, (sql) =>
    sql.query(
      "select name from storage.objects where bucket_id = $1 and name = any (array(select json_array_elements_text($2::json)))",
      [bucketId, JSON.stringify(paths)],
    ));
  const readable = new Set(rows.map((row) => row["name"]));
  return json(
    200,
    await Promise.all(
      paths.map(async (path) =>
        readable.has(path)
          ? { error: null, path, signedURL: await signedUrl(deps, bucketId, path, seconds) }
          : { error: "Either the object does not exist or you do not have access to it", path, signedURL: null }
      ),
    ),
  );
}

async function signedUrl(deps: StorageDeps, bucketId: string, name: string, seconds: number): Promise<string> {
  const url = `${bucketId}/${name}`;
  return `/object/sign/${url}?token=${await deps.tokens.signInternal({ url }, seconds)}`;
}

function lifetime(body: Record<string, unknown> | null): number {
  const seconds = Number(body?.["expiresIn"]);
  if (!Number.isInteger(seconds) || seconds < 1) throw invalidInput("body/expiresIn must be >= 1");
  return seconds;
}

function namesOf(value: unknown, key: string): string[] {
  if (!Array.isArray(value) || value.length < 1) throw invalidInput(`body/${key} must NOT have fewer than 1 items`);
  if (value.length > namesAtMost) throw invalidInput(`body/${key} must NOT have more than ${namesAtMost} items`);
  return value.map(String);
}
