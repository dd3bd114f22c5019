/** Buckets that people fetch from by links, in this project's own Storage whatever store the backups have. */
import { HoldfastError } from "../errors.ts";
import { type RetryDeps, retrying } from "../store/retrying.ts";
import type { Store } from "../store/store.ts";
import {
  createPrivateBucket,
  createSupabaseStore,
  signObjects,
  type SupabaseStorageDeps,
} from "../store/supabase_storage.ts";
import { downloadBucketName } from "./format.ts";

export interface DownloadBucket {
  /** Makes it where it is missing. Errors: `store_denied` where it is public, those of Storage. */
  prepare(): Promise<void>;
  /** Puts a part; one that was put before is overwritten by the same bytes, or by more that begin with them. */
  put(object: string, bytes: Uint8Array): Promise<void>;
  /** Errors: `object_missing`, those of Storage. */
  read(object: string): Promise<Uint8Array>;
  /** Addresses by which anybody reads the objects, for so many seconds, as a file of that name each. */
  sign(files: readonly FileToSign[], seconds: number): Promise<string[]>;
  /** Names of all objects, or of those below a prefix; none where there is no bucket. */
  names(prefix?: string): Promise<string[]>;
  remove(objects: readonly string[]): Promise<void>;
}

export interface FileToSign {
  readonly object: string;
  readonly fileName: string;
}

export interface BucketSettings {
  /** Such as `https://<project>.supabase.co`. */
  readonly projectUrl: string;
  readonly serviceKey: string;
  /** How people reach the project, where that is another address. */
  readonly publicUrl?: string | undefined;
}

/** `name`: one of ours, that of downloads without it. */
export function downloadBucket(
  settings: BucketSettings,
  deps: SupabaseStorageDeps & RetryDeps,
  name: string = downloadBucketName,
): DownloadBucket {
  const place = { projectUrl: settings.projectUrl, serviceKey: settings.serviceKey, bucket: name };
  const store: Store = retrying(createSupabaseStore(place, deps), deps);
  return {
    prepare: () => createPrivateBucket(place, deps),
    put: (object, bytes) => store.replace(object, bytes),
    read: (object) => store.read(object),
    async sign(files, seconds) {
      const paths = await signObjects(place, deps, files.map(({ object }) => object), seconds);
      const base = (settings.publicUrl ?? settings.projectUrl).replace(/\/+$/, "");
      return paths.map((path, at) => `${base}${path}&download=${encodeURIComponent(files[at]?.fileName ?? "")}`);
    },
    async names(prefix = "") {
      const names: string[] = [];
      try {
        for await (const { name } of store.list(prefix)) names.push(name);
      } catch (error) {
        if (!(error instanceof HoldfastError) || error.code !== "store_missing") throw error;
      }
      return names;
    },
    remove: (objects) => store.remove(objects),
  };
}
