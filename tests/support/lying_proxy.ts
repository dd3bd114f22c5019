/** A proxy between a store and its server that changes what the server says, and counts that it did. */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Said {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Uint8Array;
}

export interface Lie {
  readonly method: string;
  /** Only requests whose path and query hold this text. */
  readonly about: string;
  /** Null where this answer is left as it is; that does not count. `earlier`: bodies of other requests that the lie is about. */
  readonly tell: (said: Said, earlier: readonly Uint8Array[]) => Said | null;
}

export interface LyingProxy {
  readonly endpoint: string;
  set(lie: Lie | null): void;
  /** How often the lie that is set was told. */
  told(): number;
  close(): Promise<void>;
}

export async function startLyingProxy(target: string): Promise<LyingProxy> {
  const { hostname, port } = new URL(target);
  let lie: Lie | null = null;
  let told = 0;
  const bodies = new Map<string, Uint8Array>();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const sent: Uint8Array[] = [];
    for await (const part of request) sent.push(part);
    const { method = "GET", url = "/", headers } = request;
    const inner = await new Promise<IncomingMessage>((resolve, reject) => {
      // The name of the host is signed: it goes through as it came.
      const passed = httpRequest({ hostname, port, method, path: url, headers }, resolve);
      passed.on("error", reject);
      passed.end(Buffer.concat(sent));
    });
    const parts: Uint8Array[] = [];
    for await (const part of inner) parts.push(part);
    const { "transfer-encoding": _, ...rest } = inner.headers;
    const body = Buffer.concat(parts);
    const length = method === "HEAD" ? inner.headers["content-length"] : String(body.length);
    let said: Said = { status: inner.statusCode ?? 502, headers: { ...rest, "content-length": length }, body };
    if (lie !== null && method === lie.method && url.includes(lie.about)) {
      const other = lie.tell(said, [...bodies].filter(([of]) => of !== url).map(([, bytes]) => bytes));
      if (said.status === 200) bodies.set(url, said.body);
      if (other !== null) {
        told++;
        said = method === "HEAD"
          ? other
          : { ...other, headers: { ...other.headers, "content-length": String(other.body.byteLength) } };
      }
    }
    const stated = Object.entries(said.headers).filter((each): each is [string, string | string[]] =>
      each[1] !== undefined
    );
    response.writeHead(said.status, Object.fromEntries(stated));
    response.end(method === "HEAD" ? undefined : said.body);
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    set(next) {
      lie = next;
      told = 0;
      bodies.clear();
    },
    told: () => told,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
