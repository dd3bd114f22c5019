/** From the address of a store, as people give it, to the store. */
import { isAbsolute, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Random } from "../random.ts";
import { createFileStore, createFolder } from "./file.ts";
import type { Fetch } from "./http_call.ts";
import { below } from "./below.ts";
import { defaultLock, type LockSettings, mostLockDays } from "./lock.ts";
import { checkName } from "./names.ts";
import { type RetryBounds, retrying } from "./retrying.ts";
import { createS3Store } from "./s3.ts";
import { type BucketFacts, readBucketFacts } from "./s3_bucket.ts";
import type { S3Settings } from "./s3_call.ts";
import type { Store } from "./store.ts";
import { createPrivateBucket, createPublicBucket, createSupabaseStore } from "./supabase_storage.ts";

/** Where a store is; never a credential. */
export type StoreAddress =
  | { readonly kind: "file"; readonly folder: string }
  | {
    readonly kind: "s3";
    readonly bucket: string;
    readonly prefix: string;
    readonly endpoint: string | null;
    readonly region: string | null;
    /** Null: nothing is said of locks. */
    readonly lock: LockSettings | null;
  }
  | { readonly kind: "supabase-storage"; readonly bucket: string; readonly prefix: string };

/** What the addresses do not carry. Only what the store's kind needs must be there (`setting_missing` names it). */
export interface StoreCredentials {
  readonly s3AccessKeyId?: string | undefined;
  readonly s3SecretAccessKey?: string | undefined;
  readonly s3SessionToken?: string | undefined;
  readonly supabaseUrl?: string | undefined;
  readonly supabaseServiceKey?: string | undefined;
}

export interface OpenStoreDeps {
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
  /** As what a name is served to browsers, for what is public. Default: bytes that nobody shows. */
  readonly contentTypeOf?: (name: string) => string;
  /** Files of a folder are readable for everybody on this machine. */
  readonly isPublic?: boolean;
}

/** The names of the environment that credentials come from; the first that is set counts. */
const variables = {
  s3AccessKeyId: ["BACKUP_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"],
  s3SecretAccessKey: ["BACKUP_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"],
  s3SessionToken: ["BACKUP_S3_SESSION_TOKEN", "AWS_SESSION_TOKEN"],
  supabaseUrl: ["SUPABASE_URL"],
  supabaseServiceKey: ["SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"],
} as const satisfies Record<keyof StoreCredentials, readonly string[]>;

export function credentialsFrom(environment: (name: string) => string | undefined): StoreCredentials {
  const first = (names: readonly string[]) =>
    names.map(environment).find((value) => value !== undefined && value !== "");
  return {
    s3AccessKeyId: first(variables.s3AccessKeyId),
    s3SecretAccessKey: first(variables.s3SecretAccessKey),
    s3SessionToken: first(variables.s3SessionToken),
    supabaseUrl: first(variables.supabaseUrl),
    supabaseServiceKey: first(variables.supabaseServiceKey),
  };
}

/**
 * `file:///dir`, `s3://bucket/prefix?endpoint=…&region=…&lock=…&lock_mode=…`, `supabase://bucket/prefix`. `usage` for anything else,
 * and for an address with a credential in it, which is not repeated in the message.
 */
export function parseStoreAddress(text: string): StoreAddress {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw usage("the store's address is no URL");
  }
  if (url.username !== "" || url.password !== "") throw usage("the store's address has a credential in it");
  if (url.hash !== "") throw usage("the store's address has a part after #");
  switch (url.protocol) {
    case "file:":
      return fileAddress(url);
    case "s3:":
      return s3Address(url);
    case "supabase:":
      if (url.search !== "") throw usage("supabase://bucket/prefix takes nothing more");
      return { kind: "supabase-storage", bucket: bucketOf(url), prefix: prefixOf(url) };
    default:
      throw usage("the store's address starts with none of file:, s3:, supabase:");
  }
}

/** The bucket of this project's own Storage where the store is, or null. Errors: `usage`. */
export function ownBucketOf(text: string): string | null {
  const address = parseStoreAddress(text);
  return address.kind === "supabase-storage" ? address.bucket : null;
}

/** The store as it is, without retries. Errors: `usage`, `setting_missing`. */
export function openStoreOnce(address: StoreAddress, credentials: StoreCredentials, deps: OpenStoreDeps): Store {
  switch (address.kind) {
    case "file":
      return createFileStore(address.folder, deps);
    case "s3":
      return createS3Store(s3Settings(address, credentials), deps);
    case "supabase-storage":
      return below(createSupabaseStore(supabaseSettings(address.bucket, credentials), deps), address.prefix);
  }
}

/** What everything but tests of stores uses: by the text of the address, with retries. */
export function openStore(
  address: string,
  credentials: StoreCredentials,
  deps: OpenStoreDeps,
  bounds: RetryBounds = {},
): Store {
  return retrying(openStoreOnce(parseStoreAddress(address), credentials, deps), deps, bounds);
}

/** Makes the place where it can be made: the folder, the private bucket. S3 buckets are made by their owner. */
export async function preparePlace(
  address: string,
  credentials: StoreCredentials,
  deps: OpenStoreDeps,
): Promise<void> {
  const place = parseStoreAddress(address);
  if (place.kind === "file") await createFolder(place.folder);
  if (place.kind === "supabase-storage") await createPrivateBucket(supabaseSettings(place.bucket, credentials), deps);
}

/** As `preparePlace`, for what everybody is to read. */
export async function preparePublicPlace(
  address: string,
  credentials: StoreCredentials,
  deps: OpenStoreDeps,
): Promise<void> {
  const place = parseStoreAddress(address);
  if (place.kind === "file") await createFolder(place.folder, true);
  if (place.kind === "supabase-storage") await createPublicBucket(supabaseSettings(place.bucket, credentials), deps);
}

/** What a bucket of S3 does with what is removed; null for another kind of store. Errors: those of `readBucketFacts`, `usage`. */
export async function bucketFacts(
  address: string,
  credentials: StoreCredentials,
  deps: OpenStoreDeps,
): Promise<BucketFacts | null> {
  const place = parseStoreAddress(address);
  return place.kind === "s3" ? await readBucketFacts(s3Settings(place, credentials), deps) : null;
}

function s3Settings(address: Extract<StoreAddress, { kind: "s3" }>, credentials: StoreCredentials): S3Settings {
  return {
    bucket: address.bucket,
    prefix: address.prefix,
    ...(address.endpoint === null ? {} : { endpoint: address.endpoint }),
    ...(address.region === null ? {} : { region: address.region }),
    ...(address.lock === null ? {} : { lock: address.lock }),
    accessKeyId: must(credentials, "s3AccessKeyId"),
    secretAccessKey: must(credentials, "s3SecretAccessKey"),
    ...(credentials.s3SessionToken === undefined ? {} : { sessionToken: credentials.s3SessionToken }),
  };
}

function fileAddress(url: URL): StoreAddress {
  if (url.search !== "" || !["", "localhost"].includes(url.host)) throw usage("file:///folder takes nothing more");
  let folder: string;
  try {
    folder = resolve(fileURLToPath(url));
  } catch {
    throw usage("the store's address names no folder of this machine");
  }
  if (!isAbsolute(folder) || folder === "/") throw usage("a store is a folder of its own, not the root of the disk");
  return { kind: "file", folder };
}

function s3Address(url: URL): StoreAddress {
  const known = ["endpoint", "region", "lock", "lock_mode"];
  if ([...url.searchParams.keys()].some((key) => !known.includes(key))) {
    throw usage("an s3: address takes endpoint, region, lock and lock_mode only");
  }
  const endpoint = url.searchParams.get("endpoint");
  const region = url.searchParams.get("region");
  if (endpoint !== null && !isOrigin(endpoint)) throw usage("the endpoint is no http(s)://host[:port]");
  if (region !== null && !/^[a-z0-9-]{1,40}$/.test(region)) throw usage("the region is not a region's name");
  return { kind: "s3", bucket: bucketOf(url), prefix: prefixOf(url), endpoint, region, lock: lockIn(url) };
}

/** Null where neither is named. */
function lockIn({ searchParams }: URL): LockSettings | null {
  const [lock, mode] = [searchParams.get("lock"), searchParams.get("lock_mode")];
  if (lock === null && mode === null) return null;
  const days = lock === null ? defaultLock.days : lock === "off" ? 0 : /^[1-9]\d?$/.test(lock) ? Number(lock) : NaN;
  if (!(days <= mostLockDays)) throw usage(`lock is a number of days from 1 to ${mostLockDays}, or off`);
  if (mode !== null && mode !== "governance" && mode !== "compliance") {
    throw usage("lock_mode is governance or compliance");
  }
  return { days, mode: mode === "compliance" ? "COMPLIANCE" : "GOVERNANCE" };
}

function prefixOf(url: URL): string {
  const prefix = url.pathname.replace(/^\/+|\/+$/g, "");
  if (prefix !== "") checkName(prefix);
  if (prefix.length > 100) throw usage("a prefix has at most 100 characters");
  return prefix;
}

function isOrigin(text: string): boolean {
  try {
    const url = new URL(text);
    const plain = url.username === "" && url.password === "" && url.search === "" && url.hash === "";
    return plain && url.pathname === "/" && ["http:", "https:"].includes(url.protocol);
  } catch {
    return false;
  }
}

function bucketOf(url: URL): string {
  const bucket = url.host;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(bucket)) throw usage("the store's address names no bucket");
  return bucket;
}

function supabaseSettings(bucket: string, credentials: StoreCredentials) {
  return {
    bucket,
    projectUrl: must(credentials, "supabaseUrl"),
    serviceKey: must(credentials, "supabaseServiceKey"),
  };
}

function must(credentials: StoreCredentials, name: keyof StoreCredentials): string {
  const value = credentials[name];
  if (value === undefined || value === "") {
    throw new HoldfastError("setting_missing", `this store needs ${variables[name].join(" or ")}`);
  }
  return value;
}

function usage(message: string): HoldfastError {
  return new HoldfastError("usage", message, {
    hint: "A store is file:///folder, s3://bucket/prefix?endpoint=…&region=…&lock=… or supabase://bucket/prefix.",
  });
}
