/** A way to a store of a given upload speed: requests are passed on as they are, each upload after the time it takes. */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SlowWay {
  readonly endpoint: string;
  /** Of each upload by itself; `Infinity` for no wait. */
  setSpeed(bytesPerSecond: number): void;
  /** Uploads that were made to wait, and for how long altogether. */
  readonly waits: { uploads: number; ms: number };
  close(): Promise<void>;
}

export async function startSlowWay(target: string): Promise<SlowWay> {
  const { hostname, port } = new URL(target);
  const waits = { uploads: 0, ms: 0 };
  let speed = Infinity;

  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Uint8Array[] = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts);
    const waitMs = body.length / speed * 1000;
    if (waitMs >= 1) {
      waits.uploads++;
      waits.ms += waitMs;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
    const { method, url: path, headers } = request;
    const inner = httpRequest({ hostname, port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    inner.on("error", () => response.destroy());
    inner.end(body);
  }

  const server = createServer((request, response) => {
    pass(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    setSpeed(bytesPerSecond) {
      speed = bytesPerSecond;
    },
    waits,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
