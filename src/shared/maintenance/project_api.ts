/** Requests of a project's API as its service role: bounded, and only their outcome is kept. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Fetch } from "../store/http_call.ts";

export interface ProjectApi {
  /** Such as `https://ref.supabase.co`. */
  readonly url: string;
  /** A service-role JWT or an `sb_secret_` key. */
  readonly serviceKey: string;
  readonly fetch: Fetch;
}

export interface Answer {
  readonly status: number;
  /** `code` of PostgREST, `statusCode` of Storage; empty where the answer has none. */
  readonly code: string;
  /** Of a row or user that came to be. */
  readonly id: string;
}

/** For one exchange. */
const answerMs = 15_000;
/** Answers of probes are a few hundred bytes; what is longer is not read. */
const maxAnswerBytes = 64 * 1024;

const bodyFormat = z.object({
  code: z.union([z.string(), z.number()]).optional(),
  statusCode: z.string().optional(),
  id: z.string().optional(),
});

/** Errors: `project_unreachable` when no answer comes; neither key nor body is in the message. */
export async function callProject(
  { url, serviceKey, fetch }: ProjectApi,
  method: "GET" | "POST" | "PATCH" | "DELETE",
  path: string,
  body: unknown,
): Promise<Answer> {
  const signal = AbortSignal.timeout(answerMs);
  try {
    const response = await fetch(`${url.replace(/\/+$/, "")}${path}`, {
      method,
      headers: {
        apikey: serviceKey,
        // a key of the new kind is no JWT, and goes in `apikey` alone
        ...(serviceKey.startsWith("sb_") ? {} : { authorization: `Bearer ${serviceKey}` }),
        ...(body === null ? {} : { "content-type": "application/json" }),
      },
      ...(body === null ? {} : { body: JSON.stringify(body) }),
      signal,
      redirect: "manual",
    });
    return { status: response.status, ...fieldsOf(await shortText(response)) };
  } catch (cause) {
    throw new HoldfastError("project_unreachable", `no answer from ${hostOf(url)}`, { cause });
  }
}

async function shortText(response: Response): Promise<string> {
  if (Number(response.headers.get("content-length") ?? "0") <= maxAnswerBytes) return await response.text();
  await response.body?.cancel();
  return "";
}

function fieldsOf(text: string): Pick<Answer, "code" | "id"> {
  try {
    const { code, statusCode, id } = bodyFormat.parse(JSON.parse(text));
    return { code: String(statusCode ?? code ?? ""), id: id ?? "" };
  } catch {
    return { code: "", id: "" };
  }
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : "the project";
}
