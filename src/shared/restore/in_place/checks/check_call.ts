/** One bounded request of a project's API, as an app makes it. */
import { z } from "zod";
import { HoldfastError } from "../../../errors.ts";
import type { ProjectApi } from "../../../maintenance/project_api.ts";

export interface CheckCall {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Null: as the project's key alone. */
  readonly accessToken: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: unknown;
}

export interface CheckAnswer {
  readonly status: number;
  /** Undefined where the body is no JSON, or longer than 64 KiB. */
  readonly json: unknown;
}

/** For one exchange. */
const answerMs = 15_000;
/** A session with its user is a few kilobytes. */
const maxAnswerBytes = 64 * 1024;

/** Errors: `project_unreachable` when no answer comes; neither address, body nor key is in the message. */
export async function callAsApp({ url, serviceKey, fetch }: ProjectApi, call: CheckCall): Promise<CheckAnswer> {
  const { method, path, accessToken, headers, body } = call;
  // a key of the new kind is no JWT, and goes in `apikey` alone
  const bearer = accessToken ?? (serviceKey.startsWith("sb_") ? null : serviceKey);
  try {
    const response = await fetch(`${url.replace(/\/+$/, "")}${path}`, {
      method,
      headers: {
        apikey: serviceKey,
        ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }),
        ...(body === null ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === null ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(answerMs),
      redirect: "manual",
    });
    return { status: response.status, json: await readJson(response) };
  } catch (cause) {
    throw new HoldfastError("project_unreachable", `no answer to ${method} ${path.replace(/\?.*$/s, "")}`, { cause });
  }
}

async function readJson(response: Response): Promise<unknown> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let [text, length] = ["", 0];
  for (let part = await reader?.read(); part?.value !== undefined; part = await reader?.read()) {
    length += part.value.byteLength;
    if (length > maxAnswerBytes) {
      await reader?.cancel();
      return undefined;
    }
    text += decoder.decode(part.value, { stream: true });
  }
  try {
    return JSON.parse(text + decoder.decode());
  } catch {
    return undefined;
  }
}

const codeFormat = z.object({
  code: z.union([z.string(), z.number()]).optional(),
  error_code: z.string().optional(),
  error: z.object({ code: z.string() }).optional(),
});

/** `HTTP 400, invalid_credentials`: status and the answer's own code. */
export function toldOf({ status, json }: CheckAnswer): string {
  const code = codeOf(json);
  return code === "" ? `HTTP ${status}` : `HTTP ${status}, ${code}`;
}

/** The answer's own code, where it looks like one; empty: none. */
export function codeOf(json: unknown): string {
  const { data } = codeFormat.safeParse(json);
  const code = String(data?.error_code ?? data?.error?.code ?? data?.code ?? "");
  return /^\w{1,60}$/.test(code) ? code : "";
}
