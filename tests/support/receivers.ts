/** Receivers of alerts on loopback that really receive: a mail server behind TLS, and what takes HTTPS. */
import { once } from "node:events";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, createServer as createTcp, type Server, type Socket } from "node:net";
import { createServer as createTls } from "node:tls";
import { SMTPServer } from "smtp-server";
import type { ServerCertificate } from "../../src/local/certificates.ts";

export interface Mail {
  readonly from: string;
  readonly to: readonly string[];
  /** As it came, headers and all. */
  readonly raw: string;
}

export interface MailServer {
  readonly port: number;
  readonly mails: Mail[];
  /** What it answers to the next messages instead of taking them; null: it takes them. */
  refuse: { readonly at: "mail" | "rcpt" | "data"; readonly code: number } | null;
  /** The password it wants. */
  password: string;
  close(): Promise<void>;
}

/** SMTPS on 127.0.0.1, as `holdfast` with the password. */
export async function startMailServer({ certificate, key }: ServerCertificate): Promise<MailServer> {
  const mails: Mail[] = [];
  const refusal = (at: "mail" | "rcpt" | "data") => {
    if (mailServer.refuse?.at !== at) return null;
    return Object.assign(new Error("refused for somebody@secret.example"), { responseCode: mailServer.refuse.code });
  };
  const server = new SMTPServer({
    secure: true,
    cert: certificate,
    key,
    authMethods: ["PLAIN", "LOGIN"],
    onAuth: (auth, _session, done) => {
      if (auth.username === "holdfast" && auth.password === mailServer.password) done(null, { user: "holdfast" });
      else done(Object.assign(new Error("no such user holdfast"), { responseCode: 535 }));
    },
    onMailFrom: (_address, _session, done) => done(refusal("mail")),
    onRcptTo: (_address, _session, done) => done(refusal("rcpt")),
    onData: (stream, session, done) => {
      const parts: Uint8Array[] = [];
      stream.on("data", (part: Uint8Array) => parts.push(part));
      stream.on("end", () => {
        const refused = refusal("data");
        if (refused === null) {
          const { mailFrom, rcptTo } = session.envelope;
          mails.push({
            from: mailFrom === false ? "" : mailFrom?.address ?? "",
            to: rcptTo.map(({ address }) => address),
            raw: new TextDecoder().decode(joined(parts)),
          });
        }
        done(refused);
      });
    },
  });
  // A client that goes away in the middle is part of the tests.
  server.on("error", () => {});
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", () => resolve()));
  const mailServer: MailServer = {
    port: (server.server.address() as AddressInfo).port,
    mails,
    refuse: null,
    password: "pass word/ü@",
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
  return mailServer;
}

export interface Received {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface Receiver {
  readonly port: number;
  readonly received: Received[];
  /** Those of them that were answered with 200. */
  readonly taken: Received[];
  /** Status of the next answers, the last for all that follow; `silent`: it never answers. */
  answers: (number | "silent")[];
  close(): Promise<void>;
}

/** HTTPS on 127.0.0.1. */
export async function startReceiver({ certificate, key }: ServerCertificate): Promise<Receiver> {
  const [received, taken]: [Received[], Received[]] = [[], []];
  const server = createHttps({ cert: certificate, key }, (request, response) => {
    const parts: Uint8Array[] = [];
    request.on("data", (part: Uint8Array) => parts.push(part));
    request.on("end", () => {
      const one = {
        method: request.method ?? "",
        path: request.url ?? "",
        headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)])),
        body: new TextDecoder().decode(joined(parts)),
      };
      received.push(one);
      const [status = 200] = receiver.answers;
      if (receiver.answers.length > 1) receiver.answers.shift();
      if (status === "silent") return;
      if (status === 200) taken.push(one);
      response.writeHead(status, status >= 300 && status < 400 ? { location: "https://127.0.0.1:1/elsewhere" } : {});
      response.end("a receiver's own words, of token-in-an-answer");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const receiver: Receiver = {
    port: (server.address() as AddressInfo).port,
    received,
    taken,
    answers: [200],
    close: () => closed(server, () => server.closeAllConnections()),
  };
  return receiver;
}

/** A server that does with each connection what it is told, behind TLS where it has a certificate. */
export async function startOdd(
  certificate: ServerCertificate | null,
  act: (socket: Socket) => void,
): Promise<{ readonly port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const taken = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    act(socket);
  };
  const server = certificate === null
    ? createTcp(taken)
    : createTls({ cert: certificate.certificate, key: certificate.key }, taken);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      closed(server, () => {
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** A port behind which somebody takes connections and says nothing, not even TLS; or says something else. */
export async function startMute(says = ""): Promise<{ readonly port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createTcp((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    if (says !== "") socket.end(says);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      closed(server, () => {
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function closed(server: Server, cut: () => void): Promise<void> {
  const gone = once(server, "close");
  server.close();
  cut();
  await gone;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
