/**
 * A store in a bucket of any server that speaks the S3 protocol, by path-style addresses and signature version 4.
 *
 * Create-only rests on `If-None-Match: *`. Some servers ignore it (seen: Supabase Storage's own S3 endpoint, s3rver). So a
 * HEAD goes before each PUT: on such a server a name that is there is still never overwritten, but of two writers that
 * create one name within the same moment both may be told `created`; the read-back of `putAndReadBack` then tells
 * the one whose bytes lost. Nothing that S3 keeps beside the bytes (tags, ACLs, retention) is ever sent: a bucket that locks
 * what it takes does so by its own default, and wants the MD5 of each body, which is sent once it was asked for.
 */
import { createHash } from "node:crypto";
import { HoldfastError } from "../errors.ts";
import { statedLength } from "./http_call.ts";
import { checkName, checkPrefix } from "./names.ts";
import { type S3Deps, s3Place, type S3Settings } from "./s3_call.ts";
import { s3Code, s3Failure } from "./s3_errors.ts";
import { maxPageBytes, parseListing } from "./s3_listing.ts";
import { parseXml } from "./s3_xml.ts";
import type { Store, StoredObject } from "./store.ts";

/** The protocol's own limits. */
const namesPerRemoval = 1000;
const namesPerPage = 1000;

/** Most bytes of one object that are read. Above any object that is written: chunks are cut far below. */
const maxObjectBytes = 2 ** 30;

export function createS3Store(settings: S3Settings, deps: S3Deps): Store {
  const { label, bucketUrl, send } = s3Place(settings, deps);
  const keyPrefix = settings.prefix === "" ? "" : `${settings.prefix}/`;
  let conditional = true;
  let digested = false;

  const urlOf = (name: string) => {
    checkName(name);
    return `${bucketUrl}/${keyPrefix}${name}`;
  };

  async function put(name: string, bytes: Uint8Array, onlyNew: boolean): Promise<"created" | "existed"> {
    const headers = {
      ...(onlyNew && conditional ? { "if-none-match": "*" } : {}),
      ...(digested ? { "content-md5": md5(bytes) } : {}),
      "content-type": "application/octet-stream",
    };
    const answer = await send("PUT", urlOf(name), { body: bytes, headers });
    if (answer.status === 200) return "created";
    if (onlyNew && answer.status === 412) return "existed";
    if (!digested && answer.status === 400 && ["InvalidRequest", "MissingContentMD5"].includes(s3Code(answer))) {
      digested = true;
      return await put(name, bytes, onlyNew);
    }
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
      "content-md5": md5(body),
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

/** Asked for by the protocol in removals, and in puts to a bucket that locks what it takes. */
function md5(body: Uint8Array): string {
  return createHash("md5").update(body).digest("base64");
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
