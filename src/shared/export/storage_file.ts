/** Reads files of people out of the project's Storage, whatever they are called. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import { callHttp, type Fetch } from "../store/http_call.ts";
import { storageFailure, storageProblem } from "../store/supabase_errors.ts";
import type { ReadFile } from "./copy_files.ts";

const timeoutMs = 60_000;
/** A file whose bytes are missing answers 500, and so does a server that is not well: it is asked again before it is believed. */
const tries = 3;
const waitMs = 1_000;

/** With the service role's key. Errors: those of Storage; `store_lied` for another range than was asked for. */
export function readStorageFile(
  { projectUrl, serviceKey }: { readonly projectUrl: string; readonly serviceKey: string },
  { fetch, clock }: { readonly fetch: Fetch; readonly clock: Clock },
): ReadFile {
  const base = `${projectUrl.replace(/\/+$/, "")}/storage/v1/object`;
  const label = `Storage at ${new URL(base).host}`;
  return async ({ bucket, name }, { from, to, whole }) => {
    const path = [bucket, ...name.split("/")].map(encodeURIComponent).join("/");
    const headers = new Headers({ apikey: serviceKey, "accept-encoding": "identity" });
    if (!serviceKey.startsWith("sb_")) headers.set("authorization", `Bearer ${serviceKey}`);
    if (!whole) headers.set("range", `bytes=${from}-${to - 1}`);
    const call = { method: "GET", url: `${base}/${path}`, headers, body: null } as const;
    // One that grew meanwhile is answered whole: its version tells, and it is read again.
    const bounds = { label, timeoutMs, maxBytes: 2 * (to - from) + 1024 * 1024 };
    for (let tried = 1;; tried++) {
      const answer = await callHttp(fetch, call, bounds);
      if (answer.status === 200 || answer.status === 206) {
        if (!whole && answer.status === 200) throw new HoldfastError("store_lied", `${label} answers no ranges`);
        return answer.body;
      }
      const { status } = storageProblem(answer);
      if (status === 404 || status === 416) return null;
      if (status < 500) throw storageFailure(answer, "read a file", label);
      if (tried < tries) await clock.sleep(waitMs);
      else if (status === 500) return null;
      else throw storageFailure(answer, "read a file", label);
    }
  };
}
