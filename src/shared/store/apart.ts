/** Do two stores fail apart? Pure: from their addresses alone. */
import { parseStoreAddress, type StoreAddress } from "./open_store.ts";
import { defaultS3Region, s3EndpointOf } from "./s3_call.ts";

export interface StorePair {
  /** Address of the first store; undefined: not known here. */
  readonly first: string | undefined;
  /** Address of the second; undefined: there is none. */
  readonly second: string | undefined;
  /** The project's URL, where it is known: its Storage is on that host. */
  readonly projectUrl: string | undefined;
}

/** `same`: one place under two names, which is one store. `near`: two places that one failure or one thief reaches. */
export interface Nearness {
  readonly kind: "same" | "near";
  /** In words, after "the two stores …". */
  readonly why: string;
}

/** Null: they are at different providers, or in different regions. Errors: `usage` for what is no address. */
export function nearness({ first, second, projectUrl }: StorePair): Nearness | null {
  if (first === undefined || second === undefined) return null;
  const [one, other] = [parseStoreAddress(first), parseStoreAddress(second)];
  if (one.kind === "file" && other.kind === "file") {
    if (one.folder === other.folder) return same;
    if (isWithin(one.folder, other.folder) || isWithin(other.folder, one.folder)) {
      return { kind: "same", why: "are one folder inside of the other" };
    }
    return near("are both folders of this machine");
  }
  if (one.kind === "supabase-storage" && other.kind === "supabase-storage") {
    return one.bucket === other.bucket ? same : near("are both in the Storage of one project, and go when it goes");
  }
  if (one.kind === "s3" && other.kind === "s3") return nearS3(one, other);
  const hosts = [one, other].map((store) => hostOf(store, projectUrl));
  return hosts[0] !== null && hosts[0] === hosts[1] ? near(`are both on ${hosts[0]}`) : null;
}

/** What `status` says of the stores; empty where there are two that fail apart. Errors: those of `nearness`. */
export function storeReasons(pair: StorePair): string[] {
  if (pair.second === undefined) {
    return [
      "only one store is configured: set BACKUP_SECONDARY and BACKUP_RECIPIENTS, so that a second provider has every backup",
    ];
  }
  const found = nearness(pair);
  if (found === null) return [];
  const what = found.kind === "same" ? "only one store is configured" : "the second store is not a second provider";
  return [`${what}: the two ${found.why}`];
}

type S3Address = Extract<StoreAddress, { kind: "s3" }>;

const same: Nearness = { kind: "same", why: "are the same place" };

function near(why: string): Nearness {
  return { kind: "near", why };
}

/** One host is one provider, or one region of it, unless its addresses name different regions. */
function nearS3(one: S3Address, other: S3Address): Nearness | null {
  const [host, otherHost] = [hostOf(one), hostOf(other)];
  if (host !== otherHost) return null;
  if (one.bucket === other.bucket) {
    return one.prefix === other.prefix ? same : near(`are both in the bucket ${one.bucket}`);
  }
  const regions = [one.region ?? defaultS3Region, other.region ?? defaultS3Region];
  return regions[0] === regions[1] ? near(`are both on ${host}, in one region`) : null;
}

/** Null where it is not known, and for folders: other machines' disks may be mounted here. */
function hostOf(store: StoreAddress, projectUrl?: string): string | null {
  if (store.kind === "s3") return new URL(s3EndpointOf(store)).host;
  return store.kind === "supabase-storage" && projectUrl !== undefined ? new URL(projectUrl).host : null;
}

function isWithin(folder: string, other: string): boolean {
  return other.startsWith(`${folder}/`);
}
