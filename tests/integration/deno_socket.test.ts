import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { makeServerCertificate } from "../../src/local/certificates.ts";
import { freePort } from "../../src/local/ports.ts";
import { denoPath } from "../../src/local/setup.mjs";
import { useCluster } from "../support/cluster.ts";
import { byPsql, copyDatabase, copyTables, reached, transports } from "./copy_fixture.ts";

const script = fileURLToPath(new URL("./deno_socket_script.ts", import.meta.url));
const cluster = useCluster();
let database = "";
const listening: { readonly server: Server; readonly sockets: Set<Socket> }[] = [];

beforeAll(async () => {
  database = await copyDatabase(cluster());
}, 180_000);

afterEach(() => {
  for (const { server, sockets } of listening.splice(0)) {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

/** What the script saw. That it ends by itself, and soon after its last word, is a part of every test. */
async function onDeno(input: unknown): Promise<unknown> {
  const child = spawn(denoPath(), ["run", "--quiet", "--allow-all", script], {
    timeout: 60_000,
    killSignal: "SIGKILL",
  });
  child.stdin.end(JSON.stringify(input));
  let [out, problems, spoken] = ["", "", 0];
  child.stdout.on("data", (part) => {
    out += part;
    spoken = performance.now();
  });
  child.stderr.on("data", (part) => (problems += part));
  const ended = await new Promise((resolve) => child.on("close", (status, signal) => resolve(status ?? signal)));
  if (ended !== 0) throw new Error(`deno ended with ${ended} after ${JSON.stringify(out)}: ${problems}`);
  expect(performance.now() - spoken).toBeLessThan(5_000);
  return JSON.parse(out);
}

/** A server of one's own on a port or at the path of a socket. */
async function serve(onSocket: (socket: Socket) => void, path?: string): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  listening.push({ server, sockets });
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, "127.0.0.1", resolve) : server.listen(path, resolve)
  );
  return path === undefined ? (server.address() as AddressInfo).port : 0;
}

/** What the script has to see of every table: what psql does, three times. */
async function expectedCopies(): Promise<Record<string, unknown>> {
  const seen: Record<string, unknown> = {};
  for (const table of copyTables) {
    const { bytes, rows } = await byPsql(cluster(), database, table);
    const out = { rows, length: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
    seen[table] = { out, taken: rows, again: out };
  }
  return seen;
}

describe.each(transports)("on Deno, over %s", (transport) => {
  it("COPY gives the bytes that psql writes, and takes them in again", async () => {
    expect(await onDeno({ act: "copy", database: reached(cluster(), database, transport), tables: copyTables }))
      .toEqual(await expectedCopies());
  });

  it("a query's result is whole, however the reads cut it", async () => {
    expect(await onDeno({ act: "query", database: reached(cluster(), database, transport) })).toEqual({
      wide: { rows: 3, whole: 3 },
      narrow: { rows: 50_000, whole: 50_000 },
    });
  });

  it("a session goes on after the reader threw, the server failed, or the source threw", async () => {
    expect(await onDeno({ act: "go on", database: reached(cluster(), database, transport) })).toEqual({
      reader: "mine",
      serverOut: "22012",
      source: "mine",
      serverIn: "22P02",
      left: "0",
      rows: 300_000,
    });
  });

  it("a session that the server ended says so, whatever was under way", async () => {
    const lost = { ended: "database_unreachable", after: "database_unreachable", closedInTime: true, gone: true };
    expect(await onDeno({ act: "terminated", database: reached(cluster(), database, transport) })).toEqual({
      "query": lost,
      "copy in": lost,
      "source left": true,
      "copy in from a source that waits": lost,
      "copy out": lost,
    });
  });

  it("closes within a second, and the server's side with it", async () => {
    const closed = { inTime: true, gone: true };
    expect(await onDeno({ act: "close", database: reached(cluster(), database, transport) })).toEqual({
      "idle": closed,
      "in a query": closed,
      "in a copy that waits": closed,
      query: "database_unreachable",
      copy: "database_unreachable",
      sourceLeft: true,
    });
  });

  it("forty sessions, one after the other, leave nothing open", async () => {
    expect(await onDeno({ act: "many", database: reached(cluster(), database, transport) })).toEqual({
      sessionsGone: true,
      filesGone: true,
    });
  });
});

it("on Deno, over a Unix socket, COPY gives and takes the same bytes", async () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-socket-"));
  try {
    // The cluster listens on TCP only.
    await serve((socket) => {
      const upstream = connect(cluster().port, cluster().host);
      upstream.on("error", () => socket.destroy());
      socket.on("close", () => upstream.destroy());
      socket.pipe(upstream).pipe(socket);
    }, join(folder, ".s.PGSQL.5432"));
    const { username, password } = new URL(cluster().plainUrl());
    const url = `postgresql://${username}:${password}@/${database}?host=${encodeURIComponent(folder)}`;
    expect(await onDeno({ act: "copy", database: { url }, tables: copyTables })).toEqual(await expectedCopies());
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it("on Deno, a session that cannot be opened says why and leaves nothing open", async () => {
  const tls = reached(cluster(), database, "tls");
  const at = (port: number) => {
    const url = new URL(tls.url);
    url.port = String(port);
    return { ...tls, url: url.href };
  };
  const plain = (port: number) => ({ url: at(port).url.replace("verify-full", "disable") });
  const answering = (answer: string) => serve((socket) => socket.once("data", () => socket.write(answer)));
  const silent = await serve(() => {});
  const seen = await onDeno({
    act: "open",
    times: 5,
    databases: {
      "a certificate that another authority signed": { ...tls, caPem: makeServerCertificate("127.0.0.1").authority },
      "a certificate that nobody known signed": { url: tls.url },
      "an authority that is no certificate": {
        ...tls,
        caPem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
      },
      "a closed port": at(await freePort()),
      "no such host": { ...tls, url: tls.url.replace(cluster().host, "no-such-host.invalid") },
      "no TLS": at(await answering("N")),
      "an end instead of an answer": at(await serve((socket) => socket.once("data", () => socket.end()))),
      "no answer": { ...at(silent), connectMs: 100 },
      "no answer without TLS": { ...plain(silent), connectMs: 100 },
    },
  });
  const because = (why: RegExp) => ({ code: "database_unreachable", message: expect.stringMatching(why) });
  expect(seen).toEqual({
    "a certificate that another authority signed": because(/certificate/),
    "a certificate that nobody known signed": because(/certificate/),
    "an authority that is no certificate": because(/certificate/),
    "a closed port": because(/cannot be reached \(ECONNREFUSED\)/),
    "no such host": because(/no-such-host\.invalid.* cannot be reached \((ENOTFOUND|EAI_AGAIN)\)/),
    "no TLS": because(/does not support SSL/),
    "an end instead of an answer": because(/terminated before TLS began/),
    "no answer": because(/timeout expired/),
    "no answer without TLS": because(/timeout expired/),
  });
  // Deno lets go of a handshake when the server does, so this one's file stays; the process ends nevertheless.
  const stuck = { ...at(await answering("S")), connectMs: 100 };
  expect(await onDeno({ act: "open", times: 0, databases: { stuck } })).toEqual({ stuck: because(/timeout expired/) });
  expect(JSON.stringify(seen)).not.toContain(cluster().password("postgres"));
});
