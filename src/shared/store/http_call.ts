/** One bounded HTTP exchange with a store: the whole answer or a failure, never a part of it. */
import { HoldfastError } from "../errors.ts";
import { joined } from "../memory.ts";

export type Fetch = (input: string, init: RequestInit) => Promise<Response>;

export interface HttpCall {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  readonly url: string;
  readonly headers: Headers;
  readonly body: Uint8Array | null;
}

export interface HttpBounds {
  /** The store's label, for messages. */
  readonly label: string;
  /** For the whole exchange. */
  readonly timeoutMs: number;
  /** Most bytes of an answer; more is `store_lied`. */
  readonly maxBytes: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

/**
 * Redirects are answers, not followed. Errors: `store_unreachable` when no answer comes (refused, reset, time-out),
 * `store_lied` when it breaks off, or its length is not what it says. Messages carry neither address nor headers.
 */
export async function callHttp(fetch: Fetch, call: HttpCall, bounds: HttpBounds): Promise<HttpAnswer> {
  const signal = AbortSignal.timeout(bounds.timeoutMs);
  let response: Response;
  try {
    const { method, headers, body } = call;
    response = await fetch(call.url, { method, headers, body, signal, redirect: "manual" });
  } catch (cause) {
    const why = signal.aborted ? `no answer within ${bounds.timeoutMs} ms` : "no answer";
    throw new HoldfastError("store_unreachable", `${bounds.label}: ${why}`, { cause });
  }
  try {
    const body = call.method === "HEAD" ? await discard(response) : await readBody(response, bounds);
    return { status: response.status, headers: response.headers, body };
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    if (signal.aborted) {
      const why = `the answer took longer than ${bounds.timeoutMs} ms`;
      throw new HoldfastError("store_unreachable", `${bounds.label}: ${why}`, { cause });
    }
    throw new HoldfastError("store_lied", `${bounds.label}: the answer broke off`, { cause });
  }
}

/** The length that the answer states, or null where it states none or the body is encoded on the way. */
export function statedLength(headers: Headers): number | null {
  const text = headers.get("content-length");
  const encoded = (headers.get("content-encoding") ?? "identity") !== "identity";
  return text === null || encoded || !/^\d{1,15}$/.test(text) ? null : Number(text);
}

/**
 * Read by the runtime in one piece: less CPU than piece by piece, and more memory while it lasts, which tells with what is larger
 * (an isolate that copies backups passed 256 MB). HTTP lets no more come than was stated.
 */
const atOnceBytes = 2 * 1024 * 1024;

async function discard(response: Response): Promise<Uint8Array> {
  await response.body?.cancel();
  return new Uint8Array(0);
}

async function readBody(response: Response, bounds: HttpBounds): Promise<Uint8Array> {
  const stated = statedLength(response.headers);
  const lied = (why: string) => new HoldfastError("store_lied", `${bounds.label}: ${why}`);
  if (stated !== null && stated > bounds.maxBytes) {
    await response.body?.cancel();
    throw lied(`the answer has ${stated} bytes, at most ${bounds.maxBytes} are taken`);
  }
  if (stated !== null && stated <= atOnceBytes) {
    const body = new Uint8Array(await response.arrayBuffer());
    if (body.byteLength !== stated) throw lied(`the answer has ${body.byteLength} bytes and says ${stated}`);
    return body;
  }
  // What is stated has its place at once, and each piece that was put there may go.
  const whole = stated === null ? null : new Uint8Array(stated);
  const parts: Uint8Array[] = [];
  let length = 0;
  for (const reader = response.body?.getReader(); reader !== undefined;) {
    const { done, value } = await reader.read();
    if (done) break;
    const at = length;
    length += value.byteLength;
    if (length > (stated ?? bounds.maxBytes)) {
      await reader.cancel();
      throw lied(`the answer has more than ${stated ?? bounds.maxBytes} bytes`);
    }
    if (whole === null) parts.push(value);
    else whole.set(value, at);
  }
  if (stated !== null && stated !== length) throw lied(`the answer has ${length} bytes and says ${stated}`);
  return whole ?? joined(parts);
}
