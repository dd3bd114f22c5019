/**
 * A real S3 server for tests: s3rver, behind a door that checks what s3rver does not.
 *
 * s3rver 3.7.1 takes any signature of version 4 ("unimplemented" in its source) and ignores `If-None-Match` on PUT. The door
 * computes each signature again from the specification with node:crypto, checks the hash of the body, the clock and
 * Content-MD5, lets puts of one key take turns, and, unless told to leave it to s3rver, keeps `If-None-Match: *`. Pages of a listing are short, so that a
 * few dozen objects make several.
 */
import { Buffer } from "node:buffer";
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type BucketLocks, VersionedBucket } from "./versioned_bucket.ts";

export interface S3Server {
  /** `http://127.0.0.1:<port>` */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Requests whose signature held, and those that were refused. */
  readonly counts: { accepted: number; refused: number };
  /** What lies in the bucket, where `locks` were asked for. */
  readonly versioned: VersionedBucket | null;
  close(): Promise<void>;
}

export interface S3ServerOptions {
  /** Whether `If-None-Match: *` is kept, as AWS does, or ignored, as s3rver does. Default true. */
  readonly conditions?: boolean;
  /** A bucket with versions and locks in the place of s3rver's, which knows neither. */
  readonly locks?: BucketLocks;
}

interface InnerObject {
  readonly bucket: string;
  readonly key: string;
  readonly content: Uint8Array | AsyncIterable<Uint8Array>;
  readonly metadata: unknown;
}

interface InnerStore {
  deleteObject(bucket: string, key: string): Promise<void>;
  putObject(object: InnerObject): Promise<{ size: number; md5: string }>;
  getResourcePath(bucket: string, key: string, resource: "object"): string;
  putMetadata(bucket: string, key: string, metadata: unknown, md5: string): Promise<void>;
}

/** What is used of s3rver, which brings no types. */
const S3rver: new (options: {
  address: string;
  port: number;
  silent: boolean;
  directory: string;
  configureBuckets: { name: string; configs: never[] }[];
}) => {
  run(): Promise<AddressInfo>;
  close(): Promise<void>;
  readonly store: InnerStore;
} = createRequire(import.meta.url)("s3rver");

const region = "us-east-1";
const namesPerPage = 40;
/** s3rver knows this one account. */
const innerKey = "S3RVER";
const maxBodyBytes = 64 * 1024 * 1024;
const maxSkewMs = 15 * 60 * 1000;

/**
 * s3rver makes its continuation tokens with single DES, which OpenSSL 3 no longer has: every listing of more than a page
 * would be its error 500. A token is opaque to clients, so another cipher in this process does as well.
 */
function lendCipher(): void {
  const crypto: typeof import("node:crypto") = createRequire(import.meta.url)("node:crypto");
  const { createCipheriv, createDecipheriv } = crypto;
  const padded = (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.alloc(16 - bytes.length)]);
  const lend =
    (make: (name: string, key: Uint8Array, iv: Uint8Array) => unknown) =>
    (name: string, key: Uint8Array, iv: Uint8Array, ...rest: unknown[]) =>
      name === "des"
        ? make("aes-128-cbc", padded(key), padded(iv))
        : Reflect.apply(make, crypto, [name, key, iv, ...rest]);
  Object.assign(crypto, { createCipheriv: lend(createCipheriv), createDecipheriv: lend(createDecipheriv) });
}

export async function startS3Server({ conditions = true, locks }: S3ServerOptions = {}): Promise<S3Server> {
  lendCipher();
  const bucket = "backups";
  const folder = await mkdtemp(join(tmpdir(), "holdfast-s3-"));
  const inner = new S3rver({
    address: "127.0.0.1",
    port: 0,
    silent: true,
    directory: folder,
    configureBuckets: [{ name: bucket, configs: [] }],
  });
  deleteOneByOne(inner.store);
  putWhole(inner.store, folder);
  const { port: innerPort } = await inner.run();
  const accessKeyId = `AK${randomBytes(8).toString("hex").toUpperCase()}`;
  const secretAccessKey = randomBytes(30).toString("base64");
  const counts = { accepted: 0, refused: 0 };
  const versioned = locks === undefined ? null : new VersionedBucket(locks);
  const turns = new Map<string, Promise<void>>();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readBody(request);
    const refusal = body === null
      ? "EntityTooLarge"
      : whyRefused(request, body, { accessKeyId, secretAccessKey, nowMs: versioned?.now().getTime() ?? Date.now() });
    if (refusal !== null || body === null) {
      counts.refused++;
      return sendError(
        request,
        response,
        refusal === "BadDigest" || refusal === "XAmzContentSHA256Mismatch" ? 400 : 403,
        refusal ?? "",
      );
    }
    counts.accepted++;
    if (versioned !== null) return answerOf(versioned, request, body, response);
    if (request.method !== "PUT") return await pass(innerPort, accessKeyId, request, body, response);
    // A PUT to S3 is whole: s3rver writes two of one key at once into each other.
    const key = request.url ?? "";
    const onlyNew = conditions && request.headers["if-none-match"] === "*";
    const turn = (turns.get(key) ?? Promise.resolve()).then(async () => {
      if (onlyNew && await exists(innerPort, accessKeyId, request)) {
        sendError(request, response, 412, "PreconditionFailed");
      } else await pass(innerPort, accessKeyId, request, body, response);
    });
    turns.set(key, turn.catch(() => {}));
    await turn;
  }

  const door = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve));
  const { port } = door.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    region,
    bucket,
    accessKeyId,
    secretAccessKey,
    counts,
    versioned,
    async close() {
      door.closeAllConnections();
      await new Promise((resolve) => door.close(resolve));
      await inner.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** From the bucket that knows versions and locks. */
function answerOf(bucket: VersionedBucket, request: IncomingMessage, body: Uint8Array, response: ServerResponse): void {
  const { pathname, searchParams: query } = new URL(request.url ?? "/", "http://unused");
  const key = decodeURIComponent(pathname).split("/").slice(2).join("/");
  const { method = "GET", headers } = request;
  const said = bucket.answer({ method, key, query, headers, body });
  response.writeHead(said.status, said.headers);
  response.end(method === "HEAD" ? undefined : said.body);
}

/** s3rver removes the keys of a batch at once and trips over the folders that its own deletions emptied (error 500). */
function deleteOneByOne(store: InnerStore): void {
  const remove = store.deleteObject.bind(store);
  let last = Promise.resolve();
  store.deleteObject = (bucket, key) => {
    const done = last.then(() => remove(bucket, key));
    last = done.catch(() => {});
    return done;
  };
}

/** s3rver answers before its file is written: whoever reads right behind gets what was there before. S3 is consistent. */
function putWhole(store: InnerStore, folder: string): void {
  let puts = 0;
  store.putObject = async (object) => {
    const { bucket, key, content, metadata } = object;
    const parts: Uint8Array[] = [];
    if (content instanceof Uint8Array) parts.push(content);
    else for await (const part of content) parts.push(part);
    const body = Buffer.concat(parts);
    const path = store.getResourcePath(bucket, key, "object");
    const fresh = join(folder, `.put-${puts++}`);
    await writeFile(fresh, body);
    await mkdir(dirname(path), { recursive: true });
    await rename(fresh, path);
    const md5 = createHash("md5").update(body).digest("hex");
    await store.putMetadata(bucket, key, metadata, md5);
    return { size: body.length, md5 };
  };
}

/** The code of the refusal by AWS Signature Version 4, or null. */
function whyRefused(
  request: IncomingMessage,
  body: Uint8Array,
  { accessKeyId, secretAccessKey: secret, nowMs }: {
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly nowMs: number;
  },
): string | null {
  const header = request.headers.authorization ?? "";
  const parts = /^AWS4-HMAC-SHA256 Credential=([^,/]+)\/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
    header,
  );
  const [, key = "", scope = "", names = "", signature = ""] = parts ?? [];
  if (parts === null) return "AccessDenied";
  if (key !== accessKeyId) return "InvalidAccessKeyId";
  const date = String(request.headers["x-amz-date"] ?? "");
  const iso = date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z");
  if (!(Math.abs(Date.parse(iso) - nowMs) < maxSkewMs)) return "RequestTimeTooSkewed";
  const signed = names.split(";");
  if (!["host", "x-amz-content-sha256", "x-amz-date"].every((name) => signed.includes(name))) return "AccessDenied";
  const bodyHash = sha256(body);
  if (request.headers["x-amz-content-sha256"] !== bodyHash) return "XAmzContentSHA256Mismatch";
  const md5 = request.headers["content-md5"];
  if (md5 !== undefined && md5 !== createHash("md5").update(body).digest("base64")) return "BadDigest";
  const url = new URL(request.url ?? "/", "http://unused");
  const query = [...url.searchParams].map(([name, value]) => `${encode(name)}=${encode(value)}`).sort().join("&");
  const headers = signed.map((name) => `${name}:${String(request.headers[name] ?? "").trim()}\n`).join("");
  const canonical = [request.method, url.pathname, query, headers, names, bodyHash].join("\n");
  const [day = "", scopeRegion = "", service = "", end = ""] = scope.split("/");
  if (scopeRegion !== region || service !== "s3" || end !== "aws4_request") return "AuthorizationHeaderMalformed";
  const toSign = ["AWS4-HMAC-SHA256", date, scope, sha256(new TextEncoder().encode(canonical))].join("\n");
  const signingKey = [day, scopeRegion, service, end].reduce<string | Uint8Array>(hmac, `AWS4${secret}`);
  const expected = hmac(signingKey, toSign);
  return timingSafeEqual(expected, Buffer.from(signature, "hex")) ? null : "SignatureDoesNotMatch";
}

async function readBody(request: IncomingMessage): Promise<Uint8Array | null> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > maxBodyBytes) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** On to s3rver, whose only account stands in the place of the caller's. */
function forward(
  port: number,
  accessKeyId: string,
  request: IncomingMessage,
  method: string,
  body: Uint8Array,
): Promise<IncomingMessage> {
  const authorization = (request.headers.authorization ?? "").replace(accessKeyId, innerKey);
  const headers = { ...request.headers, authorization, "content-length": String(body.length) };
  const path = (request.url ?? "/").replace(/([?&]max-keys)=\d+/, `$1=${namesPerPage}`);
  return new Promise((resolve, reject) => {
    const inner = httpRequest({ host: "127.0.0.1", port, method, path, headers }, resolve);
    inner.on("error", reject);
    inner.end(body);
  });
}

async function pass(
  port: number,
  accessKeyId: string,
  request: IncomingMessage,
  body: Uint8Array,
  response: ServerResponse,
): Promise<void> {
  const inner = await forward(port, accessKeyId, request, request.method ?? "GET", body);
  response.writeHead(inner.statusCode ?? 502, inner.headers);
  await new Promise<void>((resolve, reject) => {
    inner.pipe(response);
    inner.on("error", reject);
    response.on("close", resolve);
  });
}

async function exists(port: number, accessKeyId: string, request: IncomingMessage): Promise<boolean> {
  const inner = await forward(port, accessKeyId, request, "HEAD", new Uint8Array(0));
  inner.resume();
  return inner.statusCode !== 404; // s3rver answers 304 to this condition
}

function sendError(request: IncomingMessage, response: ServerResponse, status: number, code: string): void {
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>refused</Message></Error>`;
  response.writeHead(status, { "content-type": "application/xml", "content-length": String(body.length) });
  response.end(request.method === "HEAD" ? undefined : body);
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function hmac(key: string | Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}
