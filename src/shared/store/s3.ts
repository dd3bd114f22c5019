/**
 * A store in a bucket of any server that speaks the S3 protocol, by path-style addresses and signature version 4.
 *
 * Create-only rests on `If-None-Match: *`. Some servers ignore it (seen: Supabase Storage's own S3 endpoint, s3rver). So a
 * HEAD goes before each PUT: on such a server a name that is there is still never overwritten, but of two writers that
 * create one name within the same moment both may be told `created`; the read-back of `putAndReadBack` then tells
 * the one whose bytes lost. Nothing that S3 keeps beside the bytes (tags, ACLs, retention) is ever sent.
 */
import { createHash } from "node:crypto";
import { AwsV4Signer } from "aws4fetch";
import type { Clock } from "../clock.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import { utcStamp } from "../format/layout.ts";
import { callHttp, type Fetch, type HttpAnswer, type HttpCall, statedLength } from "./http_call.ts";
import { checkName, checkPrefix } from "./names.ts";
import { s3Code, s3Failure } from "./s3_errors.ts";
import { maxPageBytes, parseListing } from "./s3_listing.ts";
import { parseXml } from "./s3_xml.ts";
import type { Store, StoredObject } from "./store.ts";

export interface S3Settings {
  /** `https://host[:port]` (or http), without bucket. Default: AWS in the region. */
  readonly endpoint?: string;
  /** Default `us-east-1`, which servers other than AWS take. */
  readonly region?: string;
  readonly bucket: string;
  /** A folder in the bucket, without slash at either end; empty for none. */
  readonly prefix: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface S3Deps {
  readonly fetch: Fetch;
  readonly clock: Clock;
  /** For one exchange. Default 120,000. */
  readonly timeoutMs?: number;
}

/** The protocol's own limits. */
const namesPerRemoval = 1000;
const namesPerPage = 1000;

/** Most bytes of one object that are read. Above any object that is written: chunks are cut far below. */
const maxObjectBytes = 2 ** 30;
const maxAnswerBytes = 1024 * 1024;

export function createS3Store(settings: S3Settings, deps: S3Deps): Store {
  const region = settings.region ?? "us-east-1";
  const endpoint = (settings.endpoint ?? `https://s3.${region}.amazonaws.com`).replace(/\/+$/, "");
  const bucketUrl = `${endpoint}/${settings.bucket}`;
  const keyPrefix = settings.prefix === "" ? "" : `${settings.prefix}/`;
  const label = `s3://${settings.bucket}${settings.prefix === "" ? "" : `/${settings.prefix}`} at ${
    new URL(endpoint).host
  }`;
  let conditional = true;

  async function send(
    method: HttpCall["method"],
    url: string,
    { body = null, headers = {}, maxBytes = maxAnswerBytes }: {
      body?: Uint8Array | null;
      headers?: Record<string, string>;
      maxBytes?: number;
    } = {},
  ): Promise<HttpAnswer> {
    const signer = new AwsV4Signer({
      method,
      url,
      headers: { ...headers, "x-amz-content-sha256": await sha256Hex(body ?? new Uint8Array(0)) },
      ...(body === null ? {} : { body }),
      accessKeyId: settings.accessKeyId,
      secretAccessKey: settings.secretAccessKey,
      ...(settings.sessionToken === undefined ? {} : { sessionToken: settings.sessionToken }),
      service: "s3",
      region,
      datetime: utcStamp(deps.clock.now()),
    });
    const signed = await signer.sign();
    signed.headers.set("accept-encoding", "identity");
    const call = { method, url: signed.url.toString(), headers: signed.headers, body };
    return await callHttp(deps.fetch, call, { label, timeoutMs: deps.timeoutMs ?? 120_000, maxBytes });
  }

  const urlOf = (name: string) => {
    checkName(name);
    return `${bucketUrl}/${keyPrefix}${name}`;
  };

  async function put(name: string, bytes: Uint8Array, onlyNew: boolean): Promise<"created" | "existed"> {
    const condition: Record<string, string> = onlyNew && conditional ? { "if-none-match": "*" } : {};
    const headers = { ...condition, "content-type": "application/octet-stream" };
    const answer = await send("PUT", urlOf(name), { body: bytes, headers });
    if (answer.status === 200) return "created";
    if (onlyNew && answer.status === 412) return "existed";
    if (onlyNew && conditional && answer.status === 501 && s3Code(answer) === "NotImplemented") {
      conditional = false;
      return await put(name, bytes, onlyNew);
    }
    throw s3Failure(answer, `write ${name}`, label);
  }

  async function head(name: string): Promise<number | null> {
    const answer = await send("HEAD", urlOf(name));
    if (answer.status === 404) return null;
    if (answer.status !== 200) throw s3Failure(answer, `look at ${name}`, label);
    const size = statedLength(answer.headers);
    if (size === null) throw new HoldfastError("store_lied", `${label} does not say the size of ${name}`);
    return size;
  }

  /** HEAD answers have no body, so a missing bucket looks like a missing object. */
  async function checkBucket(): Promise<void> {
    const answer = await send("HEAD", bucketUrl);
    if (answer.status === 404) throw new HoldfastError("store_missing", `there is no bucket ${label}`);
  }

  async function removeBatch(names: readonly string[]): Promise<void> {
    const keys = names.map((name) => `<Object><Key>${keyPrefix}${name}</Key></Object>`).join("");
    const body = new TextEncoder().encode(
      `<?xml version="1.0" encoding="UTF-8"?><Delete><Quiet>true</Quiet>${keys}</Delete>`,
    );
    const headers = {
      "content-md5": createHash("md5").update(body).digest("base64"),
      "content-type": "application/xml",
    };
    const answer = await send("POST", `${bucketUrl}?delete=`, { body, headers });
    if (answer.status !== 200) throw s3Failure(answer, `remove ${names.length} objects`, label);
    const result = parseXml(new TextDecoder().decode(answer.body));
    if (result.name !== "DeleteResult") {
      throw new HoldfastError("store_lied", `${label} answered something else than a removal`);
    }
    const failed = result.children.filter((child) => child.name === "Error").length;
    if (failed > 0) {
      throw new HoldfastError("store_denied", `${label} did not remove ${failed} of ${names.length} objects`);
    }
  }

  return {
    kind: "s3",
    label,

    async create(name, bytes) {
      return (await head(name)) === null ? await put(name, bytes, true) : "existed";
    },

    async replace(name, bytes) {
      await put(name, bytes, false);
    },

    async read(name) {
      const answer = await send("GET", urlOf(name), { maxBytes: maxObjectBytes });
      if (answer.status === 200) return answer.body;
      throw s3Failure(answer, `read ${name}`, label);
    },

    async size(name) {
      const size = await head(name);
      if (size === null) await checkBucket();
      return size;
    },

    async *list(prefix): AsyncGenerator<StoredObject> {
      checkPrefix(prefix);
      const wanted = keyPrefix + prefix;
      const tokens = new Set<string>();
      for (let next: string | null = ""; next !== null;) {
        const query = new URLSearchParams({ "list-type": "2", "max-keys": String(namesPerPage), prefix: wanted });
        if (next !== "") query.set("continuation-token", next);
        const answer = await send("GET", `${bucketUrl}?${query}`, { maxBytes: maxPageBytes });
        if (answer.status !== 200) throw s3Failure(answer, "list names", label);
        const page = parseListing(answer.body, wanted);
        for (const { name, size } of page.objects) {
          if (isOurs(name.slice(keyPrefix.length))) yield { name: name.slice(keyPrefix.length), size };
        }
        if (page.next !== null && tokens.has(page.next)) {
          throw new HoldfastError("store_lied", `${label} lists the same page again and again`);
        }
        next = page.next;
        if (next !== null) tokens.add(next);
      }
    },

    async remove(names) {
      names.forEach(checkName);
      for (let at = 0; at < names.length; at += namesPerRemoval) {
        await removeBatch(names.slice(at, at + namesPerRemoval));
      }
    },
  };
}

/** Others may keep things in the bucket too, such as the "folders" that consoles make. */
function isOurs(name: string): boolean {
  try {
    checkName(name);
    return true;
  } catch {
    return false;
  }
}
