/** Calls of a project's Edge Functions, signed with the worker secret. docs/http.md shows the same with openssl. */
import { z } from "zod";
import { sha256Hex, toHex } from "../shared/crypto/digest.ts";
import { type ErrorCode, errorTable, HoldfastError } from "../shared/errors.ts";
import { callHeaders, minSecretLength } from "../shared/http/caller.ts";
import type { Context } from "./context.ts";

/** Answers come at once: a function works on after it has answered. */
const answerMs = 60_000;

const errorFormat = z.object({ code: z.string(), message: z.string(), hint: z.string().optional() });

/** The JSON that the function answered. Errors: what it says (code, message, hint), `setting_missing`, `project_unreachable`. */
export async function callFunction(
  context: Pick<Context, "settings" | "clock" | "random" | "signal">,
  functionName: string,
  request: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const project = context.settings.need("project-url").replace(/\/+$/, "");
  const secret = context.settings.variable("BACKUP_WORKER_SECRET");
  if (secret === undefined || secret.length < minSecretLength) {
    throw new HoldfastError("setting_missing", "BACKUP_WORKER_SECRET is not set, or shorter than 32 characters", {
      hint: "Set it in the environment or in .env, to the value that the functions and Vault have.",
    });
  }
  const body = JSON.stringify(request);
  const headers = await signedHeaders(context, functionName, body, secret);
  const answer = await send(`${project}/functions/v1/${functionName}`, headers, body, context.signal);
  const document = readDocument(await answer.text());
  if (answer.ok) return document;
  throw failureOf(answer.status, document, functionName);
}

async function signedHeaders(
  { clock, random }: Pick<Context, "clock" | "random">,
  functionName: string,
  body: string,
  secret: string,
): Promise<Record<string, string>> {
  const timestamp = String(Math.floor(clock.now().getTime() / 1000));
  const nonce = toHex(random(16));
  const lines = [functionName, timestamp, nonce, await sha256Hex(new TextEncoder().encode(body))].join("\n");
  const key = await crypto.subtle.importKey(
    "raw",
    new TextEncoder().encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const signature = toHex(new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(lines))));
  return {
    "content-type": "application/json",
    [callHeaders.timestamp]: timestamp,
    [callHeaders.nonce]: nonce,
    [callHeaders.signature]: signature,
  };
}

async function send(
  url: string,
  headers: Record<string, string>,
  body: string,
  signal: AbortSignal,
): Promise<Response> {
  try {
    const bound = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
    return await fetch(url, { method: "POST", headers, body, signal: bound, redirect: "error" });
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw new HoldfastError("project_unreachable", `no answer from ${new URL(url).host}`, { cause });
  }
}

function readDocument(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** What the function says of itself; an answer that is not ours names only its status. */
function failureOf(status: number, document: unknown, functionName: string): HoldfastError {
  const told = errorFormat.safeParse(document);
  if (told.success && isCode(told.data.code)) {
    return new HoldfastError(
      told.data.code,
      told.data.message,
      told.data.hint === undefined ? {} : { hint: told.data.hint },
    );
  }
  return status === 404
    ? new HoldfastError("not_found", `the project has no function ${functionName}`, {
      hint: "Deploy it: supabase functions deploy.",
    })
    : new HoldfastError("internal", `the function ${functionName} answered ${status}`, {
      hint: "Its log in the Supabase dashboard says why.",
    });
}

function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}
