import { json } from "./answer.ts";
import { bucketRoute, findBucket } from "./storage_buckets.ts";
import type { StorageCall, StorageDeps } from "./storage_context.ts";
import { findObject, infoAnswer, serve } from "./storage_download.ts";
import { bucketNotFound, StorageFailure, storageFailureAnswer } from "./storage_errors.ts";
import { copy, list, move, remove, removeOne, sign, signMany } from "./storage_objects.ts";
import { upload } from "./storage_upload.ts";
import { NotLetIn, serviceCaller } from "./tokens.ts";

/** `/storage/v1` as the hosted one answers; every row is read and written under the caller's role. */
export async function storageRoute(deps: StorageDeps, request: Request, path: string): Promise<Response> {
  try {
    const decoded = decodeURIComponent(path.split("?", 1)[0] ?? "");
    const open = await openRoute(deps, request, decoded);
    if (open !== null) return open;
    const call = { request, path: decoded, caller: await deps.tokens.callerOf(request) };
    return await bucketRoute(deps, call) ?? await objectRoute(deps, call) ??
      json(404, { statusCode: "404", error: "Not Found", message: `Route ${request.method}:${decoded} not found` });
  } catch (error) {
    const answer = storageFailureAnswer(error);
    if (answer === null) throw error;
    await drain(request);
    return answer;
  }
}

/** A client that is still sending when the connection closes sees a broken pipe instead of the answer. */
const drainedBytes = 64 * 1024 * 1024;

/** Reads away what is left of a refused request's body, up to a bound. */
async function drain(request: Request): Promise<void> {
  if (request.body === null || request.bodyUsed) return;
  let left = drainedBytes;
  try {
    for await (const bytes of request.body) if ((left -= bytes.byteLength) < 0) return;
  } catch {
    // the client went away
  }
}

/** Downloads that need no key: from public buckets, and by signed URL. */
async function openRoute(deps: StorageDeps, request: Request, path: string): Promise<Response | null> {
  if (request.method !== "GET" && request.method !== "HEAD") return null;
  const [, kind, bucketId, name] = /^\/object\/(public|info\/public|sign)\/([^/]+)\/(.+)$/.exec(path) ?? [];
  if (kind === undefined || bucketId === undefined || name === undefined) return null;
  const call = { request, path };
  if (kind === "sign") {
    await checkSignature(deps, request, `${bucketId}/${name}`);
  } else if (!(await findBucket(deps, call, bucketId)).public) {
    throw bucketNotFound();
  }
  const info = await findObject(deps, call, serviceCaller, bucketId, name);
  return kind === "info/public" ? infoAnswer(info) : await serve(deps, request, info);
}

async function checkSignature(deps: StorageDeps, request: Request, url: string): Promise<void> {
  try {
    const claims = await deps.tokens.verify(new URL(request.url).searchParams.get("token") ?? "");
    if (claims["url"] !== url) throw new NotLetIn("bad_token", "signature of another object");
  } catch (error) {
    if (!(error instanceof NotLetIn)) throw error;
    throw new StorageFailure(
      400,
      "InvalidJWT",
      error.kind === "expired" ? '"exp" claim timestamp check failed' : error.message,
    );
  }
}

async function objectRoute(deps: StorageDeps, call: StorageCall): Promise<Response | null> {
  const { request, path } = call;
  const { method } = request;
  if (!path.startsWith("/object/")) return null;
  const at = path.slice("/object/".length);
  if (method === "POST" && at === "copy") return await copy(deps, call);
  if (method === "POST" && at === "move") return await move(deps, call);
  const [, act, rest = ""] = /^(list|sign|info\/authenticated|info|authenticated)\/(.+)$/.exec(at) ?? [];
  const [bucketId = "", name] = split(act === undefined ? at : rest);
  if (method === "POST") {
    if (act === "list") return name === undefined ? await list(deps, call, bucketId) : null;
    if (act === "sign") {
      return await (name === undefined ? signMany(deps, call, bucketId) : sign(deps, call, bucketId, name));
    }
  }
  if (method === "DELETE" && act === undefined) {
    return await (name === undefined ? remove(deps, call, bucketId) : removeOne(deps, call, bucketId, name));
  }
  if (name === undefined) return null;
  if (act === undefined && method === "POST") {
    return await upload(deps, call, bucketId, name, request.headers.get("x-upsert") === "true");
  }
  if (act === undefined && method === "PUT") return await upload(deps, call, bucketId, name, true);
  if (method !== "GET" && method !== "HEAD") return null;
  if (act === "list" || act === "sign") return null;
  const info = await findObject(deps, call, call.caller, bucketId, name);
  return act?.startsWith("info") ? infoAnswer(info) : await serve(deps, request, info);
}

function split(path: string): [string, string | undefined] {
  const slash = path.indexOf("/");
  return slash < 0 ? [path, undefined] : [path.slice(0, slash), path.slice(slash + 1)];
}
