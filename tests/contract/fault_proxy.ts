/** A proxy between a store and its server that fails as told, and counts that it did. */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface ProxyFault {
  /** Only requests of this method. */
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** How many of them, from the next on. */
  readonly times: number;
  /**
   * - a number: that status, and nothing reaches the server
   * - `reset`: the connection is reset, and nothing reaches the server
   * - `lost_answer`: the server does it, then the connection is reset
   * - `cut_body`: half of the answer's body, then the connection is closed
   * - `short_body`: half of the answer's body, with the length of that half
   * - `hang`: no answer at all, and nothing reaches the server
   */
  readonly kind: number | "reset" | "lost_answer" | "cut_body" | "short_body" | "hang";
}

export interface FaultProxy {
  readonly endpoint: string;
  /** Takes the place of earlier faults; the count starts from 0. */
  set(fault: ProxyFault | null): void;
  /** How often the fault that is set has fired. */
  fired(): number;
  close(): Promise<void>;
}

export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const { hostname, port, host } = new URL(target);
  let fault: ProxyFault | null = null;
  let fired = 0;

  function next(request: IncomingMessage): ProxyFault["kind"] | null {
    if (fault === null || request.method !== fault.method || fired >= fault.times) return null;
    fired++;
    return fault.kind;
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body: Uint8Array[] = [];
    for await (const part of request) body.push(part);
    const kind = next(request);
    if (typeof kind === "number") {
      response.writeHead(kind, { "content-length": "0" });
      return void response.end();
    }
    if (kind === "reset") return void request.socket.resetAndDestroy();
    if (kind === "hang") return;
    const inner = await new Promise<IncomingMessage>((resolve, reject) => {
      const { method = "GET", url: path, headers } = request;
      const passed = httpRequest(
        { hostname, port, method, path, headers: { ...headers, host: headers.host ?? host } },
        resolve,
      );
      passed.on("error", reject);
      passed.end(Buffer.concat(body));
    });
    const parts: Uint8Array[] = [];
    for await (const part of inner) parts.push(part);
    const whole = Buffer.concat(parts);
    const half = whole.subarray(0, whole.length >>> 1);
    if (kind === "lost_answer") return void request.socket.resetAndDestroy();
    const length = request.method === "HEAD"
      ? inner.headers["content-length"] ?? "0"
      : String(kind === "short_body" ? half.length : whole.length);
    const { "transfer-encoding": _, ...headers } = inner.headers;
    response.writeHead(inner.statusCode ?? 502, { ...headers, "content-length": length });
    if (kind !== "cut_body") return void response.end(kind === "short_body" ? half : whole);
    response.write(half, () => request.socket.destroy());
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    set(next) {
      fault = next;
      fired = 0;
    },
    fired: () => fired,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
