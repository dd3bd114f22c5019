/**
 * Runs inside an isolate's process before the function: makes Deno 2.1.4 look like the hosted edge runtime, then imports
 * the module named by the only argument. It imports no package, since the function's own deno.json decides about those.
 */
import { controlMark, type FromIsolate, stateHeader, type ToIsolate } from "./isolate_protocol.ts";
import { lingering } from "./lingering.ts";

type Handler = (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>;

const encoder = new TextEncoder();
const realServe = Deno.serve;
const writeOut = Deno.stdout.writeSync.bind(Deno.stdout);
const writeErr = Deno.stderr.writeSync.bind(Deno.stderr);

let pending = 0;
let sequence = 0;
let haltText: string | null = null;
let haltIn = 0;

function tell(message: FromIsolate): void {
  writeAll(writeOut, `${controlMark}${JSON.stringify(message)}\n`);
}

function writeAll(write: (bytes: Uint8Array) => number, text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += write(bytes.subarray(at));
}

/** Only native promises count: a thenable is ignored, as on the platform. */
function waitUntil<T>(work: T): T {
  if (!(work instanceof Promise)) return work;
  count(+1);
  // The derived promise keeps a rejection unhandled, which ends the isolate as any unhandled rejection does.
  work.finally(() => count(-1));
  return work;
}

function count(change: 1 | -1): void {
  pending += change;
  sequence += 1;
  tell({ kind: "pending", pending, sequence });
}

function serve(...given: unknown[]): unknown {
  const handler = given.find((one): one is Handler => typeof one === "function") ?? handlerOf(given[0]);
  return realServe({
    hostname: "127.0.0.1",
    port: 0,
    onListen: ({ port }) => tell({ kind: "listening", port }),
  }, async (request, info) => withState(await heard(handler, request, info)));
}

function handlerOf(options: unknown): Handler {
  const handler = typeof options === "object" && options !== null && "handler" in options ? options.handler : undefined;
  if (typeof handler !== "function") throw new TypeError("Deno.serve needs a handler");
  return (request, info) => handler(request, info);
}

/** Where the function answers before it has read all of a body without a length, the rest is read away: Deno would close the connection. */
async function heard(handler: Handler, request: Request, info: Deno.ServeHandlerInfo): Promise<Response> {
  if (request.body === null || request.headers.has("content-length")) return await respond(handler, request, info);
  const { readable, through } = lingering(request.body);
  const { method, headers, signal } = request;
  const response = await respond(handler, new Request(request.url, { method, headers, signal, body: readable }), info);
  await through();
  return response;
}

async function respond(handler: Handler, request: Request, info: Deno.ServeHandlerInfo): Promise<Response> {
  try {
    return await handler(request, info);
  } catch (error) {
    console.error(error);
    return new Response("Internal Server Error", { status: 500 });
  }
}

function withState(response: Response): Response {
  const headers = new Headers(response.headers);
  headers.set(stateHeader, `${pending};${sequence}`);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function listenToGateway(): Promise<void> {
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) obey(JSON.parse(line));
  }
  Deno.exit(0); // the gateway is gone
}

function obey(order: ToIsolate): void {
  if (order.kind === "unload") {
    dispatchEvent(new CustomEvent("beforeunload", { detail: { reason: order.reason } }));
    tell({ kind: "unloaded" });
  } else {
    haltText = order.text;
    haltIn = order.nth;
    tell({ kind: "armed" });
  }
}

/** Output goes through here so that a test can stop the isolate exactly behind a line. */
function watched(write: (bytes: Uint8Array) => number): (text: string) => void {
  return (text) => {
    writeAll(write, `${text}\n`);
    if (haltText === null || !text.includes(haltText)) return;
    haltIn -= 1;
    if (haltIn > 0) return;
    tell({ kind: "halted" });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30_000);
  };
}

function captureConsole(): void {
  const out = watched(writeOut);
  const err = watched(writeErr);
  const text = (values: unknown[]) =>
    values.map((value) => typeof value === "string" ? value : Deno.inspect(value)).join(" ");
  for (const name of ["log", "info", "debug"] as const) console[name] = (...values) => out(text(values));
  for (const name of ["warn", "error", "trace"] as const) console[name] = (...values) => err(text(values));
}

function takeAwayWhatIsNotHosted(): void {
  Reflect.deleteProperty(globalThis, "Worker");
  for (const name of ["rename", "copyFile", "truncate", "chmod", "chown", "link", "symlink"]) {
    for (const full of [name, `${name}Sync`]) {
      Reflect.set(Deno, full, () => {
        throw new Deno.errors.NotSupported(`Deno.${full} is not available in Edge Functions`);
      });
    }
  }
  for (const name of ["DENO_DIR", "NO_COLOR", "DENO_NO_UPDATE_CHECK"]) Deno.env.delete(name);
}

takeAwayWhatIsNotHosted();
captureConsole();
Reflect.set(globalThis, "EdgeRuntime", { waitUntil });
Reflect.set(Deno, "serve", serve);
listenToGateway();
await import(Deno.args[0] ?? "");
