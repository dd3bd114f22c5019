import { json } from "./answer.ts";
import type { Isolate } from "./isolate.ts";
import { stateHeader } from "./isolate_protocol.ts";
import type { KillSwitch } from "./kill_switch.ts";
import type { EndReason } from "./limits.ts";
import { lingerBytes, lingering } from "./lingering.ts";

/**
 * Sends the request to the isolate, which has been taken for it (`begin`), and gives its answer; 546, 502, 503 or 504 when
 * there is none. `deadline` is a moment of `performance.now()`. The isolate's request ends here in every case.
 */
export async function forward(
  isolate: Isolate,
  killSwitch: KillSwitch,
  request: Request,
  path: string,
  deadline: number,
): Promise<Response> {
  let port: number;
  try {
    port = await isolate.ready();
    await killSwitch.armed(isolate);
  } catch {
    isolate.end();
    const reason = await isolate.ended;
    return reason === "crashed"
      ? json(503, { code: "BOOT_ERROR", message: "Function failed to start (please check logs)" })
      : ended(reason);
  }
  let sent: RequestBody;
  try {
    sent = await requestBody(request);
  } catch {
    isolate.end();
    return json(400, { code: "BAD_REQUEST", message: "The request's body broke off" });
  }
  isolate.dispatch();
  const answer = fetch(`http://127.0.0.1:${port}${path}`, {
    method: request.method,
    headers: forwardedHeaders(request),
    body: sent.body,
    redirect: "manual",
  });
  killSwitch.requested(isolate);
  let timer: number | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), deadline - performance.now());
  });
  try {
    const response = await Promise.race([answer, late]);
    if (response === "late") {
      answer.then((one) => one.body?.cancel()).catch(() => {}).finally(() => isolate.end()); // nobody waits for it now
      return timedOut();
    }
    isolate.noteResponse(response.headers, response.status);
    killSwitch.responded(isolate);
    await sent.through();
    return deliver(isolate, request.method, response);
  } catch {
    // The connection broke: a process that was killed or crashed says why as soon as it is reaped.
    isolate.end();
    const reason = await Promise.race([
      isolate.ended,
      new Promise<null>((resolve) => setTimeout(resolve, 2_000, null)),
    ]);
    return reason === null
      ? json(502, { code: "WORKER_ERROR", message: "Function closed the connection" })
      : ended(reason);
  } finally {
    clearTimeout(timer);
  }
}

/** Hands the response on and ends the isolate's request when its body is through, broken or given up. */
function deliver(isolate: Isolate, method: string, response: Response): Response {
  const headers = new Headers(response.headers);
  headers.delete(stateHeader);
  // fetch has decoded the body already, so what the function said about its coding and length is no longer true.
  if (headers.has("content-encoding")) {
    headers.delete("content-encoding");
    headers.delete("content-length");
  }
  if (method === "GET" && headers.get("content-type")?.startsWith("text/html")) {
    headers.set("content-type", "text/plain");
  }
  const { status, statusText } = response;
  const reader = response.body?.getReader();
  if (reader === undefined) {
    isolate.end();
    return new Response(null, { status, statusText, headers });
  }
  let open = true;
  const finish = () => {
    if (open) isolate.end();
    open = false;
  };
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
        finish();
        controller.close();
      } catch (error) {
        finish();
        controller.error(error);
      }
    },
    async cancel(reason) {
      finish();
      await reader.cancel(reason).catch(() => {}); // nobody reads on
    },
  });
  return new Response(body, { status, statusText, headers });
}

interface RequestBody {
  readonly body: ArrayBuffer | ReadableStream<Uint8Array> | null;
  /** To be awaited before the answer goes out. */
  readonly through: () => Promise<void>;
}

/** A short body goes on in one piece, so that the function sees its length; a long or open one as a stream. */
async function requestBody(request: Request): Promise<RequestBody> {
  const length = Number(request.headers.get("content-length") ?? Number.NaN);
  if (request.body === null || length <= lingerBytes) {
    const body = request.body === null ? null : await request.arrayBuffer();
    return { body, through: () => Promise.resolve() };
  }
  const { readable, through } = lingering(request.body);
  return { body: readable, through };
}

function forwardedHeaders(request: Request): Headers {
  const headers = new Headers(request.headers);
  const url = new URL(request.url);
  for (const name of ["host", "connection", "transfer-encoding", "content-length"]) headers.delete(name);
  headers.set("x-forwarded-host", url.host);
  headers.set("x-forwarded-proto", "http");
  headers.set("accept-encoding", "identity");
  return headers;
}

function ended(reason: EndReason): Response {
  if (reason === "cpu" || reason === "memory" || reason === "wall_clock") {
    const message = "Function failed due to not having enough compute resources (please check logs)";
    return json(546, { code: "WORKER_LIMIT", message, reason });
  }
  return json(502, { code: "WORKER_ERROR", message: "Function exited before it answered (please check logs)", reason });
}

export function timedOut(): Response {
  return json(504, { code: "IDLE_TIMEOUT", message: "Function did not respond in time", reason: "response" });
}
