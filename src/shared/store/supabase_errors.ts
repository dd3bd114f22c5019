/** What an answer of Supabase Storage that is no success means. */
import { z } from "zod";
import { type ErrorCode, HoldfastError } from "../errors.ts";
import type { HttpAnswer } from "./http_call.ts";

/** Older and newer servers write the real status into the body of a 400, and name the case in one of three fields. */
const bodyShape = z.object({
  statusCode: z.union([z.string(), z.number()]).optional().catch(undefined),
  error: z.string().optional().catch(undefined),
  code: z.string().optional().catch(undefined),
  message: z.string().optional().catch(undefined),
});

export interface StorageProblem {
  /** The status that is meant, which is not always that of the answer. */
  readonly status: number;
  /** All that the server says, for recognising cases; never shown. */
  readonly words: string;
}

export function storageProblem(answer: HttpAnswer): StorageProblem {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(answer.body));
  } catch {
    json = {};
  }
  const parsed = bodyShape.safeParse(json);
  const body = parsed.success ? parsed.data : {};
  const inside = Number(body.statusCode);
  const status = answer.status === 400 && inside >= 400 && inside <= 599 ? inside : answer.status;
  return { status, words: [body.error, body.code, body.message].filter((each) => each !== undefined).join(" | ") };
}

/** `what` is the call in words. The server's own words stay out of the message: they may quote a token or a policy. */
export function storageFailure(answer: HttpAnswer, what: string, label: string): HoldfastError {
  const { status, words } = storageProblem(answer);
  const { error, hint } = meaning(status, words);
  return new HoldfastError(error, `${label} refused to ${what}: ${status}`, hint === undefined ? {} : { hint });
}

function meaning(status: number, words: string): { readonly error: ErrorCode; readonly hint?: string } {
  if (/bucket not found|NoSuchBucket/i.test(words)) return { error: "store_missing" };
  if (/ReadOnly|read-only transaction|25006/i.test(words)) {
    return { error: "store_read_only", hint: "The project is read-only; see its disk in the dashboard." };
  }
  if (/invalid[ _]?key/i.test(words)) return { error: "store_name_refused" };
  if (status === 413) {
    return {
      error: "store_full",
      hint: "Raise the file size limit of the bucket or the project (Free: 50 MB a file).",
    };
  }
  if (status === 402 || status === 507) return { error: "store_full" };
  if (status === 401 || status === 403 || /jwt|signature/i.test(words)) return { error: "store_denied" };
  if (status === 404) return { error: "object_missing" };
  if (status === 423 || status === 408 || status === 425 || status === 429 || status >= 500) {
    return { error: "store_unreachable" };
  }
  return { error: "store_lied" };
}
