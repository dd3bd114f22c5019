/**
 * A socket to PostgreSQL on Deno's own network API, with what the driver asks of a `net.Socket`.
 *
 * `node:net` on Deno 2.1.4 gives every read a buffer of its own: a gigabyte of COPY made V8 collect its whole heap two
 * hundred times. Its paused sockets never resume and its TLS sessions never end. Here one buffer is read into again and
 * again, and nothing is paused: the next read starts after the listeners of `data` have returned.
 */
import { lookup } from "node:dns/promises";
import { EventEmitter } from "node:events";

/** TLS with the chain and the name checked, against these certificates (PEM) besides the runtime's roots. */
export interface DenoTls {
  readonly caCerts: string[];
}

const readBytes = 64 * 1024;
/** `write` says "wait for drain" above this. */
const writeBytes = 256 * 1024;
/** SSLRequest: length 8, code 80877103. */
const sslRequest = new Uint8Array([0, 0, 0, 8, 4, 210, 22, 47]);
const sslAccepted = 0x53;

interface Write {
  readonly bytes: Uint8Array;
  readonly done: (() => void) | undefined;
}

/** Whether this runtime is Deno, with a network API that speaks TLS. */
export function isDeno(): boolean {
  return "Deno" in globalThis && typeof Deno.startTls === "function";
}

/**
 * Emits `connect`, `data` (a view that is valid only during the call), `drain`, `finish` (all was written and the
 * session is being left), `error` and, last, `close`.
 */
export class DenoSocket extends EventEmitter {
  readonly #tls: DenoTls | null;
  #connection: Deno.Conn | null = null;
  #state: "new" | "open" | "ending" | "closed" = "new";
  #writes: Write[] = [];
  #queued = 0;
  #writing = false;
  #wantsDrain = false;

  constructor(tls: DenoTls | null) {
    super();
    this.#tls = tls;
  }

  get writable(): boolean {
    return this.#state === "open";
  }

  /** A port and a host name or address, or the path of a Unix socket. */
  connect(port: number | string, host?: string): this {
    void this.#run(port, host ?? "localhost");
    return this;
  }

  /** The bytes may not be changed before `done`, which never comes when `close` comes first. False: wait for `drain`. */
  write(bytes: Uint8Array, done?: () => void): boolean {
    if (this.#state !== "open") return false;
    this.#writes.push({ bytes, done });
    this.#queued += bytes.length;
    if (!this.#writing) {
      this.#writing = true;
      // What is written in one go leaves as one packet.
      queueMicrotask(() => void this.#write());
    }
    if (this.#queued <= writeBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  /** Closes once everything is written. */
  end(): this {
    if (this.#state === "new") return this.destroy();
    if (this.#state !== "open") return this;
    this.#state = "ending";
    if (!this.#writing) this.#finish();
    return this;
  }

  /** Closes at once. Deno cannot take back a write that the other side does not read: its process outlives this. */
  destroy(error?: Error): this {
    this.#close(error);
    return this;
  }

  /** Both are set when the connection is made. */
  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  async #open(port: number | string, host: string): Promise<Deno.Conn> {
    if (typeof port === "string") return this.#own(await Deno.connect({ transport: "unix", path: port }));
    const plain = this.#own(await connectToAny(host, port));
    plain.setNoDelay(true);
    plain.setKeepAlive(true);
    if (this.#tls === null) return plain;
    await writeAll(plain, sslRequest);
    const answer = new Uint8Array(1);
    if (await plain.read(answer) !== 1) throw new Error("Connection terminated before TLS began");
    if (answer[0] !== sslAccepted) throw new Error("The server does not support SSL connections");
    const secure = this.#own(await Deno.startTls(plain, { hostname: host, caCerts: this.#tls.caCerts }));
    await secure.handshake();
    return secure;
  }

  /** What is closed with the socket; at once when that was closed while the connection was being made. */
  #own<T extends Deno.Conn>(connection: T): T {
    this.#connection = connection;
    if (this.#state === "closed") closeQuietly(connection);
    return connection;
  }

  async #run(port: number | string, host: string): Promise<void> {
    try {
      const connection = await this.#open(port, host);
      if (this.#state !== "new") return;
      this.#state = "open";
      this.emit("connect");
      await this.#read(connection);
      this.#close();
    } catch (error) {
      this.#close(error);
    }
  }

  async #read(connection: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(readBytes);
    for (;;) {
      const length = await connection.read(buffer);
      if (length === null || this.#state === "closed") return;
      this.emit("data", buffer.subarray(0, length));
    }
  }

  async #write(): Promise<void> {
    try {
      while (this.#writes.length > 0 && this.#connection !== null) {
        const writes = this.#writes;
        const length = this.#queued;
        this.#writes = [];
        this.#queued = 0;
        await writeAll(this.#connection, joined(writes, length));
        for (const { done } of writes) done?.();
        if (this.#wantsDrain && this.#queued === 0) {
          this.#wantsDrain = false;
          this.emit("drain");
        }
      }
      this.#writing = false;
      if (this.#state === "ending") this.#finish();
    } catch (error) {
      this.#close(error);
    }
  }

  #finish(): void {
    this.emit("finish");
    this.#close();
  }

  #close(error?: unknown): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#writes = [];
    if (this.#connection !== null) closeQuietly(this.#connection);
    // Later, as a net.Socket does: the driver begins to wait for `close` after it has called `destroy`.
    queueMicrotask(() => {
      if (error !== undefined) this.emit("error", error);
      this.emit("close");
    });
  }
}

/** Every address of the name is tried, in the resolver's order. Errors: the first address's. */
async function connectToAny(host: string, port: number): Promise<Deno.TcpConn> {
  const addresses = await lookup(host, { all: true });
  let failure: unknown;
  for (const { address } of addresses) {
    try {
      return await Deno.connect({ hostname: address, port });
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure ?? new Error(`getaddrinfo gave no address for ${host}`);
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

function joined(writes: readonly Write[], length: number): Uint8Array {
  const [only] = writes;
  if (only !== undefined && writes.length === 1) return only.bytes;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const write of writes) {
    bytes.set(write.bytes, at);
    at += write.bytes.length;
  }
  return bytes;
}

function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // It was closed from the other side.
  }
}
