import { Buffer } from "node:buffer";
import { EventEmitter } from "node:events";
import pg from "pg";
import { HoldfastError } from "../errors.ts";
import type { Connection, CopyResult, Database, Row } from "./connection.ts";
import { CopyFramer } from "./copy_framer.ts";
import { CopyIn } from "./copy_in.ts";
import { CopyOut } from "./copy_out.ts";
import { DenoSocket, isDeno } from "./deno_socket.ts";
import { type DatabaseAddress, readDatabaseUrl } from "./database_url.ts";
import { mapServerError, sqlstateOf } from "./server_error.ts";

/** A goodbye takes some milliseconds; a server that is gone never takes it. */
const closeMs = 1_000;
const connectMs = 15_000;

declare module "pg" {
  interface Connection {
    /** The driver's own: attaches its parser to what emits `data`. */
    attachListeners(stream: EventEmitter): void;
  }
}

export interface DatabaseOptions {
  /** See `readDatabaseUrl` for its parts and for what `sslmode` means here. */
  readonly url: string;
  /** PEM of the certificate authority that signed the server's certificate; the runtime's roots when absent. */
  readonly caPem?: string;
  /** Used when the URL has none. */
  readonly password?: string;
  /** How long a session may take to open, in milliseconds. */
  readonly connectMs?: number;
}

/** Sessions to one PostgreSQL database over TCP or a Unix socket. Opens nothing yet. Errors: `usage`. */
export function openDatabase(options: DatabaseOptions): Database {
  const address = readDatabaseUrl(options.url);
  const label = `${address.user}@${address.host}:${address.port}/${address.database}`;
  return { label, connect: (applicationName) => PgConnection.open(address, options, label, applicationName) };
}

/** The driver's connection with our framing between the socket and its parser. */
class FramedConnection extends pg.Connection {
  readonly framer: CopyFramer;
  readonly #parser = new EventEmitter();

  constructor(config: pg.ConnectionConfig) {
    super(config);
    // The driver's parser needs the methods of Buffer, and keeps the beginning of a message whose end is still to come.
    this.framer = new CopyFramer((bytes) => this.#parser.emit("data", Buffer.from(bytes)));
  }

  override attachListeners(stream: EventEmitter): void {
    super.attachListeners(this.#parser);
    stream.on("data", (bytes: Uint8Array) => this.framer.push(bytes));
  }
}

class PgConnection implements Connection {
  readonly processId: number;
  readonly serverVersion: number;
  readonly #client: pg.Client;
  readonly #wire: FramedConnection;
  readonly #label: string;
  readonly #cancel: (processId: number) => Promise<void>;
  #busy = false;
  #lost: HoldfastError | null = null;

  private constructor(
    client: pg.Client,
    wire: FramedConnection,
    label: string,
    facts: { processId: number; serverVersion: number },
    cancel: (processId: number) => Promise<void>,
  ) {
    this.#client = client;
    this.#wire = wire;
    this.#label = label;
    this.#cancel = cancel;
    this.processId = facts.processId;
    this.serverVersion = facts.serverVersion;
    client.on("error", (error) => this.#lost ??= mapServerError(error, label));
    client.on("end", () => this.#lost ??= new HoldfastError("database_unreachable", `the session with ${label} ended`));
  }

  static async open(
    address: DatabaseAddress,
    options: DatabaseOptions,
    label: string,
    applicationName: string,
  ): Promise<PgConnection> {
    const verified = address.tls === "verified" || (address.tls === "verified_if_ca" && options.caPem !== undefined);
    const ssl = verified ? (options.caPem === undefined ? {} : { ca: options.caPem }) : false;
    const wire = new FramedConnection(socketFor(ssl));
    const config = {
      connection: wire,
      host: address.host,
      port: address.port,
      user: address.user,
      database: address.database,
      password: () => passwordOf(address, options, label),
      ssl: isDeno() ? false : ssl,
      application_name: applicationName,
      connectionTimeoutMillis: options.connectMs ?? connectMs,
      types: { getTypeParser: () => (value: string) => value },
    };
    const client = new pg.Client(config);
    // Until the session stands, a socket error rejects connect(); this listener keeps a second one from ending the process.
    const ignore = () => {};
    client.on("error", ignore);
    try {
      await client.connect();
      const { rows } = await client.query(
        "select pg_catalog.pg_backend_pid() as pid, pg_catalog.current_setting('server_version_num') as version",
      );
      const facts = { processId: Number(rows[0]?.pid), serverVersion: Number(rows[0]?.version) };
      const cancel = async (processId: number) => {
        const other = await PgConnection.open(address, options, label, "holdfast:cancel");
        try {
          await other.query("select pg_catalog.pg_cancel_backend($1::int)", [String(processId)]);
        } finally {
          await other.close();
        }
      };
      const connection = new PgConnection(client, wire, label, facts, cancel);
      client.off("error", ignore);
      return connection;
    } catch (error) {
      wire.stream.destroy();
      throw mapServerError(error, label);
    }
  }

  query(text: string, values?: readonly (string | null)[]): Promise<Row[]> {
    return this.#alone(async () => {
      const result = await this.#ask(values === undefined ? { text } : { text, values: [...values] });
      return result.rows;
    });
  }

  execute(text: string): Promise<void> {
    return this.#alone(async () => {
      await this.#ask({ text });
    });
  }

  copyOut(text: string, onData: (bytes: Uint8Array) => void): Promise<CopyResult> {
    return this.#alone(async () => {
      const framer = this.#wire.framer;
      const reader: { failure: { readonly error: unknown } | null; cancelled: Promise<void> | null } = {
        failure: null,
        cancelled: null,
      };
      framer.onCopyData = (bytes) => {
        if (reader.failure !== null) return;
        try {
          onData(bytes);
        } catch (error) {
          reader.failure = { error };
          // A statement that cannot be cancelled leaves a session that cannot be used either.
          reader.cancelled = this.#cancel(this.processId).catch(() => void this.#wire.stream.destroy());
        }
      };
      const copy = new CopyOut(text);
      this.#client.query(copy);
      const outcome = await copy.result.catch((error: unknown) => ({ error }));
      framer.onCopyData = null;
      if (reader.failure !== null) {
        await reader.cancelled;
        await this.#takeLateCancel();
        throw reader.failure.error;
      }
      if ("error" in outcome) throw this.#map(outcome.error);
      return outcome;
    });
  }

  copyIn(text: string, source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<CopyResult> {
    return this.#alone(() => {
      const copy = new CopyIn(text, source, (error) => this.#map(error));
      this.#client.query(copy);
      return copy.result;
    });
  }

  async close(): Promise<void> {
    const stream = this.#wire.stream;
    const ended = this.#client.end().catch(() => {});
    // What was said goodbye with has left once the socket's writing side has finished.
    const finished = new Promise<void>((resolve) => {
      stream.once("finish", resolve);
      stream.once("close", resolve);
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const bound = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, closeMs);
    });
    await Promise.race([ended, finished, bound]);
    clearTimeout(timer);
    stream.destroy();
  }

  /** A cancel request that came after the statement's end would hit the next statement: it gets one to hit. */
  async #takeLateCancel(): Promise<void> {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        await this.#client.query("select 1");
        return;
      } catch (error) {
        if (sqlstateOf(error) !== "57014") return;
      }
    }
  }

  async #ask(query: { text: string; values?: (string | null)[] }): Promise<pg.QueryResult<Row>> {
    try {
      const result: pg.QueryResult<Row> | pg.QueryResult<Row>[] = await this.#client.query<Row>(query);
      const last = Array.isArray(result) ? result.at(-1) : result;
      if (last === undefined) throw new HoldfastError("internal", "a statement without a result");
      return last;
    } catch (error) {
      throw this.#map(error);
    }
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#lost !== null) throw this.#lost;
    if (this.#busy) throw new HoldfastError("internal", "a second statement was sent while one is under way");
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  #map(error: unknown): HoldfastError {
    return mapServerError(error, this.#label);
  }
}

/** On Deno the socket itself speaks TLS and the driver sees a plain one. */
function socketFor(ssl: false | { readonly ca?: string }): pg.ConnectionConfig {
  const config = isDeno() ? { stream: denoSocket(ssl), ssl: false } : { ssl };
  // The driver's types know neither a stream made beforehand nor keepAlive.
  return { ...config, keepAlive: true } as object;
}

function denoSocket(ssl: false | { readonly ca?: string }): DenoSocket {
  if (ssl === false) return new DenoSocket(null);
  return new DenoSocket({ caCerts: ssl.ca === undefined ? [] : [ssl.ca] });
}

function passwordOf(address: DatabaseAddress, options: DatabaseOptions, label: string): Promise<string> {
  const password = address.password ?? options.password ?? null;
  if (password !== null) return Promise.resolve(password);
  return Promise.reject(new HoldfastError("database_denied", `${label} asks for a password and none is given`));
}
