/** The files of a project, by the REST interface of its Storage. */
import { HoldfastError } from "../errors.ts";
import { callHttp, type Fetch } from "../store/http_call.ts";
import { storageFailure, storageProblem } from "../store/supabase_errors.ts";

export interface FileAddress {
  readonly bucket: string;
  readonly name: string;
}

/** A stretch of one version of a file. */
export interface FileRange extends FileAddress {
  /** What tells this version from others, so that no cache in between answers with another one. */
  readonly version: string;
  /** MD5 or the like, as the row has it; null where it has none. */
  readonly etag: string | null;
  readonly from: number;
  /** One past the last byte. */
  readonly to: number;
  /** True where `from` and `to` are all of it. */
  readonly whole: boolean;
}

/** Reads only; bounded in time and size. */
export interface ProjectFiles {
  /** For people and logs: where it is, never with a credential. */
  readonly label: string;
  /**
   * The bytes of that stretch, in a buffer of its own. Errors: `object_missing` for a file that Storage does not have or does not
   * give, whose name cannot stand in an address, and where another version was given; those of a store.
   */
  read(range: FileRange): Promise<Uint8Array>;
}

export interface ProjectFilesSettings {
  /** The project's URL, such as `https://ref.supabase.co`. */
  readonly projectUrl: string;
  /** A service-role JWT or an `sb_secret_` key. */
  readonly serviceKey: string;
}

/** For one stretch. */
const timeoutMs = 120_000;

export function openProjectFiles({ projectUrl, serviceKey }: ProjectFilesSettings, fetch: Fetch): ProjectFiles {
  const base = `${projectUrl.replace(/\/+$/, "")}/storage/v1`;
  const label = `Storage of ${new URL(base).host}`;
  return {
    label,
    async read(range) {
      const { from, to, whole, etag } = range;
      const headers = storageHeaders(serviceKey);
      headers.set("cache-control", "no-cache");
      if (!whole) headers.set("range", `bytes=${from}-${to - 1}`);
      const url = `${base}/object/${pathOf(range)}?version=${encodeURIComponent(range.version)}`;
      const answer = await callHttp(fetch, { method: "GET", url, headers, body: null }, {
        label,
        timeoutMs,
        maxBytes: to - from + 1,
      });
      if (answer.status !== (whole ? 200 : 206)) {
        const { status } = storageProblem(answer);
        // A row whose bytes are gone is answered so; so is a range past the end.
        if (status === 404 || status === 500 || status === 416 || answer.status === 200) throw notGiven(label, status);
        throw storageFailure(answer, "read a file", label);
      }
      const given = answer.headers.get("etag");
      if (answer.body.byteLength !== to - from || (etag !== null && given !== null && bare(given) !== bare(etag))) {
        throw new HoldfastError("object_missing", `${label} gave another version of a file than it lists`);
      }
      return answer.body;
    },
  };
}

/** `sb_` keys are no JWTs and go in `apikey` alone. */
export function storageHeaders(serviceKey: string): Headers {
  const headers = new Headers({ apikey: serviceKey, "accept-encoding": "identity" });
  if (!serviceKey.startsWith("sb_")) headers.set("authorization", `Bearer ${serviceKey}`);
  return headers;
}

/** `bucket/name` for an address. Errors: `object_missing` for a name whose parts would be resolved on the way. */
export function pathOf({ bucket, name }: FileAddress): string {
  const parts = [bucket, ...name.split("/")];
  if (parts.some((part) => part === "." || part === "..")) {
    throw new HoldfastError("object_missing", "a file's name cannot stand in an address");
  }
  return parts.map(encodeURIComponent).join("/");
}

function notGiven(label: string, status: number): HoldfastError {
  return new HoldfastError("object_missing", `${label} does not give a file that it lists: ${status}`);
}

/** Without the marks that proxies add. */
function bare(etag: string): string {
  return etag.replace(/^W\//, "").replaceAll('"', "");
}
