/**
 * A store in a bucket of any server that speaks the S3 protocol, by path-style addresses and signature version 4.
 *
 * Create-only rests on `If-None-Match: *`. Some servers ignore it (seen: Supabase Storage's own S3 endpoint, s3rver). So a
 * HEAD goes before each PUT: on such a server a name that is there is still never overwritten, but of two writers that
 * create one name within the same moment both may be told `created`; the read-back of `putAndReadBack` then tells
 * the one whose bytes lost. Nothing that S3 keeps beside the bytes (tags, ACLs) is ever sent but the retention, to a bucket
 * that says that it has object lock (`s3_lock.ts`). With it goes the MD5 of each body; else once it was asked for.
 */
import { HoldfastError } from "../errors.ts";
import { parseEpochName } from "../format/layout.ts";
import { statedLength } from "./http_call.ts";
import { nameInside } from "./lock.ts";
import { checkName, checkPrefix } from "./names.ts";
import { type S3Deps, s3Place, type S3Settings } from "./s3_call.ts";
import { s3Code, s3Failure } from "./s3_errors.ts";
import { maxPageBytes, parseListing } from "./s3_listing.ts";
import { createS3Lock, lockRefused } from "./s3_lock.ts";
import { md5, removal } from "./s3_remove.ts";
import type { Store, StoredObject } from "./store.ts";

/** The protocol's own limit. */
const namesPerPage = 1000;

/** Most bytes of one object that are read. Above any object that is written: chunks are cut far below. */
const maxObjectBytes = 2 ** 30;

export function createS3Store(settings: S3Settings, deps: S3Deps): Store {
  const place = s3Place(settings, deps);
  const { label, bucketUrl, send } = place;
  const keyPrefix = settings.prefix === "" ? "" : `${settings.prefix}/`;
  let conditional = true;
  let digested = false;

  const keyOf = (name: string) => {
    checkName(name);
    return keyPrefix + name;
  };
  const urlOf = (name: string) => `${bucketUrl}/${keyOf(name)}`;
  const { headersFor, removeVersions, ...lock } = createS3Lock(place, { urlOf, keyOf }, settings.lock, deps.clock);

  async function put(name: string, bytes: Uint8Array, onlyNew: boolean): Promise<"created" | "existed"> {
    const retention = await headersFor(name);
    const isRetained = Object.keys(retention).length > 0;
    const headers = {
      ...(onlyNew && conditional ? { "if-none-match": "*" } : {}),
      ...(digested || isRetained ? { "content-md5": md5(bytes) } : {}),
      ...retention,
      "content-type": deps.contentTypeOf?.(name) ?? "application/octet-stream",
      ...(deps.contentTypeOf === undefined ? {} : { "cache-control": "no-cache" }),
    };
    const answer = await send("PUT", urlOf(name), { body: bytes, headers });
    if (answer.status === 200) return "created";
    if (onlyNew && answer.status === 412) return "existed";
    if (
      !digested && !isRetained && answer.status === 400 &&
      ["InvalidRequest", "MissingContentMD5"].includes(s3Code(answer))
    ) {
      digested = true;
      return await put(name, bytes, onlyNew);
    }
    if (onlyNew && conditional && answer.status === 501 && s3Code(answer) === "NotImplemented") {
      conditional = false;
      return await put(name, bytes, onlyNew);
    }
    const failure = s3Failure(answer, `write ${name}`, label);
    throw isRetained ? lockRefused(failure) : failure;
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

  return {
    kind: "s3",
    label,
    lock,

    /** What is there already is used again, and held for that. */
    async create(name, bytes) {
      const outcome = (await head(name)) === null ? await put(name, bytes, true) : "existed";
      if (outcome === "existed") await lock.hold(name);
      return outcome;
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

    /** Of a key file no version stays; of anything else the bytes stay as long as the bucket keeps or holds them. */
    async remove(names) {
      const isKey = (name: string) => parseEpochName(nameInside(name)) !== null;
      const keys = names.filter(isKey);
      const areGone = keys.length > 0 && await removeVersions(keys);
      const left = (areGone ? names.filter((name) => !isKey(name)) : names).map((name) => ({ key: keyOf(name) }));
      const { kept } = await removal(place, left);
      if (kept > 0) {
        throw new HoldfastError("store_denied", `${label} did not remove ${kept} of ${left.length} objects`);
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
