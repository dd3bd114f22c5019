/**
 * A store in a private bucket of Supabase Storage, over its REST interface.
 *
 * Plain requests in place of supabase-js: each exchange is bounded in time and size, the length of each answer is
 * checked, and the real status is read from the body; the client library does none of these. `supabase-storage` never uses
 * Storage's S3 endpoint, where conditions are ignored and some calls replace an object's body.
 */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { callHttp, type Fetch, type HttpAnswer, type HttpCall } from "./http_call.ts";
import { checkName, checkPrefix } from "./names.ts";
import type { Store, StoredObject } from "./store.ts";
import { storageFailure, storageProblem } from "./supabase_errors.ts";

export interface SupabaseStorageSettings {
  /** The project's URL, such as `https://ref.supabase.co`. */
  readonly projectUrl: string;
  /** A service-role JWT or an `sb_secret_` key. */
  readonly serviceKey: string;
  readonly bucket: string;
}

export interface SupabaseStorageDeps {
  readonly fetch: Fetch;
  /** For one exchange. Default 120,000. */
  readonly timeoutMs?: number;
  /** As what a name is served to browsers. Default: bytes that nobody shows. */
  readonly contentTypeOf?: (name: string) => string;
}

/** The service's own limits: names a removal, entries a listing. */
const namesPerRemoval = 1000;
const entriesPerPage = 1000;

/** A folder that changes while it is listed is listed again; that often in a row it only happens when others write all the time. */
const maxListingTries = 5;

/** Most bytes of one object that are read. Above any object that is written: chunks are cut far below. */
const maxObjectBytes = 2 ** 30;
const maxAnswerBytes = 16 * 1024 * 1024;

/** `id` is null for a folder. */
const listing = z.array(z.object({
  name: z.string(),
  id: z.string().nullable(),
  metadata: z.object({ size: z.int().nonnegative() }).nullable(),
}));
type Entry = z.infer<typeof listing>[number];
const info = z.object({ size: z.int().nonnegative() });

interface Place {
  readonly label: string;
  readonly send: (method: HttpCall["method"], path: string, more?: RequestMore) => Promise<HttpAnswer>;
}

interface RequestMore {
  readonly bytes?: Uint8Array;
  readonly json?: unknown;
  readonly headers?: Record<string, string>;
  readonly maxBytes?: number;
}

export function createSupabaseStore(settings: SupabaseStorageSettings, deps: SupabaseStorageDeps): Store {
  const { label, send } = placeOf(settings, deps);
  const { bucket } = settings;

  async function upload(name: string, bytes: Uint8Array, upsert: boolean): Promise<HttpAnswer> {
    checkName(name);
    const headers = {
      "content-type": deps.contentTypeOf?.(name) ?? "application/octet-stream",
      "cache-control": "no-cache",
      "x-upsert": `${upsert}`,
    };
    return await send("POST", `/object/${bucket}/${name}`, { bytes, headers });
  }

  async function missing(name: string): Promise<HoldfastError> {
    const answer = await send("GET", `/bucket/${bucket}`);
    if (answer.status === 200) return new HoldfastError("object_missing", `${name} is not in ${label}`);
    if (storageProblem(answer).status !== 404) return storageFailure(answer, `look at the bucket`, label);
    return new HoldfastError("store_missing", `there is no bucket ${label}`);
  }

  async function page(folder: string, offset: number): Promise<Entry[]> {
    const json = { prefix: folder, limit: entriesPerPage, offset, sortBy: { column: "name", order: "asc" } };
    const answer = await send("POST", `/object/list/${bucket}`, { json });
    if (answer.status !== 200) throw storageFailure(answer, "list names", label);
    const parsed = listing.safeParse(readJson(answer));
    if (!parsed.success) throw new HoldfastError("store_lied", `${label} answered a listing that cannot be read`);
    return parsed.data;
  }

  /**
   * Pages overlap by one entry: where that is another one, something came or went meanwhile, and the answer is null.
   * Every page but the last is full, so the loop ends with the folder.
   */
  async function folderInOneState(folder: string): Promise<Entry[] | null> {
    const entries = await page(folder, 0);
    for (let full = entries.length === entriesPerPage; full;) {
      const more = await page(folder, entries.length - 1);
      if (more[0] === undefined || more[0].name !== entries.at(-1)?.name) return null;
      entries.push(...more.slice(1));
      full = more.length === entriesPerPage;
    }
    return entries;
  }

  async function folderEntries(folder: string): Promise<Entry[]> {
    for (let tries = 1; tries <= maxListingTries; tries++) {
      const entries = await folderInOneState(folder);
      if (entries !== null) return entries;
    }
    throw new HoldfastError("store_unreachable", `${label}: a folder kept changing while it was listed`);
  }

  async function* walk(folder: string, prefix: string): AsyncGenerator<StoredObject> {
    const seen = new Set<string>();
    for (const entry of await folderEntries(folder)) {
      const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (seen.has(name)) throw new HoldfastError("store_lied", `${label} lists a name twice`);
      seen.add(name);
      if (entry.id === null) {
        if (`${name}/`.startsWith(prefix) || prefix.startsWith(`${name}/`)) yield* walk(name, prefix);
      } else if (name.startsWith(prefix) && entry.name !== ".emptyFolderPlaceholder") {
        if (entry.metadata === null) throw new HoldfastError("store_lied", `${label} lists a name without its size`);
        yield { name, size: entry.metadata.size };
      }
    }
  }

  return {
    kind: "supabase-storage",
    label,
    lock: null,

    async create(name, bytes) {
      const answer = await upload(name, bytes, false);
      if (answer.status === 200) return "created";
      if (storageProblem(answer).status === 409) return "existed";
      throw storageFailure(answer, `write ${name}`, label);
    },

    async replace(name, bytes) {
      const answer = await upload(name, bytes, true);
      if (answer.status !== 200) throw storageFailure(answer, `write ${name}`, label);
    },

    async read(name) {
      checkName(name);
      const answer = await send("GET", `/object/${bucket}/${name}`, { maxBytes: maxObjectBytes });
      if (answer.status === 200) return answer.body;
      if (storageProblem(answer).status === 404) throw await missing(name);
      throw storageFailure(answer, `read ${name}`, label);
    },

    async size(name) {
      checkName(name);
      const answer = await send("GET", `/object/info/${bucket}/${name}`);
      if (answer.status === 200) {
        const parsed = info.safeParse(readJson(answer));
        if (parsed.success) return parsed.data.size;
        throw new HoldfastError("store_lied", `${label} does not say the size of ${name}`);
      }
      if (storageProblem(answer).status !== 404) throw storageFailure(answer, `look at ${name}`, label);
      const why = await missing(name);
      if (why.code === "object_missing") return null;
      throw why;
    },

    async *list(prefix) {
      checkPrefix(prefix);
      const folder = prefix.slice(0, Math.max(0, prefix.lastIndexOf("/")));
      let found = false;
      for await (const object of walk(folder, prefix)) {
        found = true;
        yield object;
      }
      const why = found ? null : await missing(prefix);
      if (why !== null && why.code !== "object_missing") throw why;
    },

    async remove(names) {
      names.forEach(checkName);
      await removeObjects(settings, deps, names);
    },
  };
}

/**
 * Makes the bucket, private; one that is there and private is fine, one that is public is `store_denied`: what it holds can
 * be fetched by anyone who knows a name.
 */
export async function createPrivateBucket(settings: SupabaseStorageSettings, deps: SupabaseStorageDeps): Promise<void> {
  if (!(await isBucketOf(settings, deps, false))) {
    throw new HoldfastError("store_denied", `${placeOf(settings, deps).label} is a public bucket`, {
      hint: "Make it private or name another.",
    });
  }
}

/** Makes the bucket, public, for what everybody is to read; one that is there and private is `store_denied`. */
export async function createPublicBucket(settings: SupabaseStorageSettings, deps: SupabaseStorageDeps): Promise<void> {
  if (!(await isBucketOf(settings, deps, true))) {
    throw new HoldfastError(
      "store_denied",
      `${placeOf(settings, deps).label} is a private bucket: nobody could read it`,
      {
        hint: "Name another: what is public needs a bucket of its own.",
      },
    );
  }
}

/** Makes it where it is missing. Whether it is as public as it should be. */
async function isBucketOf(
  settings: SupabaseStorageSettings,
  deps: SupabaseStorageDeps,
  isPublic: boolean,
): Promise<boolean> {
  const { label, send } = placeOf(settings, deps);
  const json = { id: settings.bucket, name: settings.bucket, public: isPublic };
  const made = await send("POST", "/bucket", { json });
  if (made.status === 200) return true;
  if (storageProblem(made).status !== 409) throw storageFailure(made, "make the bucket", label);
  const answer = await send("GET", `/bucket/${settings.bucket}`);
  if (answer.status !== 200) throw storageFailure(answer, "look at the bucket", label);
  const bucket = z.object({ public: z.boolean() }).safeParse(readJson(answer));
  if (!bucket.success) throw new HoldfastError("store_lied", `${label} does not say whether the bucket is private`);
  return bucket.data.public === isPublic;
}

const signed = z.array(z.object({ signedURL: z.string().startsWith("/object/sign/").nullable() }));
const namesPerSigning = 1000;

/**
 * Paths below the project's address that give each object to whoever has them, for so many seconds; they cannot be taken back
 * while the object is there. In the order of `names`. Errors: `object_missing`, those of Storage.
 */
export async function signObjects(
  settings: SupabaseStorageSettings,
  deps: SupabaseStorageDeps,
  names: readonly string[],
  seconds: number,
): Promise<string[]> {
  const { label, send } = placeOf(settings, deps);
  names.forEach(checkName);
  const paths: string[] = [];
  for (let at = 0; at < names.length; at += namesPerSigning) {
    const some = names.slice(at, at + namesPerSigning);
    const json = { expiresIn: seconds, paths: some };
    const answer = await send("POST", `/object/sign/${settings.bucket}`, { json });
    if (answer.status !== 200) throw storageFailure(answer, `sign ${some.length} names`, label);
    const parsed = signed.safeParse(readJson(answer));
    if (!parsed.success || parsed.data.length !== some.length) {
      throw new HoldfastError("store_lied", `${label} answered signatures that cannot be read`);
    }
    for (const { signedURL } of parsed.data) {
      if (signedURL === null) throw new HoldfastError("object_missing", `an object to sign is not in ${label}`);
      paths.push(`/storage/v1${signedURL}`);
    }
  }
  return paths;
}

/** Removes objects of the user's own bucket, whatever they are called; those that are not there are no error. Errors: those of Storage. */
export async function removeObjects(
  settings: SupabaseStorageSettings,
  deps: SupabaseStorageDeps,
  names: readonly string[],
): Promise<void> {
  const { label, send } = placeOf(settings, deps);
  for (let at = 0; at < names.length; at += namesPerRemoval) {
    const prefixes = names.slice(at, at + namesPerRemoval);
    const answer = await send("DELETE", `/object/${settings.bucket}`, { json: { prefixes } });
    if (answer.status !== 200) throw storageFailure(answer, `remove ${prefixes.length} objects`, label);
  }
}

/** `sb_` keys are no JWTs and go in `apikey` alone. */
function placeOf(settings: SupabaseStorageSettings, deps: SupabaseStorageDeps): Place {
  const { bucket, serviceKey } = settings;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(bucket)) {
    throw new HoldfastError("store_name_refused", "a bucket is named by letters, digits, dots, dashes and underscores");
  }
  const base = `${settings.projectUrl.replace(/\/+$/, "")}/storage/v1`;
  const label = `supabase://${bucket} at ${new URL(base).host}`;
  return {
    label,
    send: async (method, path, { bytes, json, headers = {}, maxBytes = maxAnswerBytes } = {}) => {
      const sent = new Headers({ ...headers, apikey: serviceKey, "accept-encoding": "identity" });
      if (!serviceKey.startsWith("sb_")) sent.set("authorization", `Bearer ${serviceKey}`);
      if (json !== undefined) sent.set("content-type", "application/json");
      const body = json === undefined ? bytes ?? null : new TextEncoder().encode(JSON.stringify(json));
      const bounds = { label, timeoutMs: deps.timeoutMs ?? 120_000, maxBytes };
      return await callHttp(deps.fetch, { method, url: base + path, headers: sent, body }, bounds);
    },
  };
}

function readJson(answer: HttpAnswer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(answer.body));
  } catch {
    return undefined;
  }
}
