import pg from "pg";
import type { GatewaySettings } from "./settings.ts";
import type { Caller } from "./tokens.ts";

/** One row by column name; every value is the server's own text. */
export type TextRow = Readonly<Record<string, string | null>>;

/** Statements of one transaction. */
export interface Statements {
  query(text: string, values?: readonly (string | null)[]): Promise<TextRow[]>;
}

/** Sessions per login role; a request that finds none waits. */
const atMost = 8;

/** The sessions of one login role, over TLS with the certificate checked. */
export class Login {
  readonly #pool: pg.Pool;
  readonly #config: pg.ClientConfig;

  constructor(
    database: GatewaySettings["database"],
    role: keyof GatewaySettings["database"]["passwords"],
    name: string,
  ) {
    this.#config = {
      host: database.host,
      port: database.port,
      database: database.name,
      user: role,
      password: database.passwords[role],
      ssl: { ca: database.authority, rejectUnauthorized: true, servername: "localhost" },
      application_name: name,
      types: { getTypeParser: () => (value: unknown) => value },
    };
    this.#pool = new pg.Pool({
      ...this.#config,
      max: atMost,
      idleTimeoutMillis: 0, // ending a session over TLS never resolves on Deno 2.1.4, so they are kept
      connectionTimeoutMillis: 10_000,
    });
    this.#pool.on("error", () => {}); // an idle session that broke is dropped by the pool; the next request opens one
  }

  /** One transaction as the login role itself. A throw in `work` rolls it back. */
  async transaction<T>(work: (sql: Statements) => Promise<T>, begin = "begin"): Promise<T> {
    const client = await lost(this.#pool.connect());
    // The pool listens while a session is idle only. One that breaks between two statements fails the next of them.
    const unheard = () => {};
    client.on("error", unheard);
    let broken: Error | undefined;
    try {
      await lost(client.query(begin));
      const result = await work(statementsOf(client));
      await lost(client.query("commit"));
      return result;
    } catch (error) {
      await client.query("rollback").catch((cause) => {
        broken = cause instanceof Error ? cause : new Error("rollback failed");
      });
      throw error;
    } finally {
      client.removeListener("error", unheard);
      client.release(broken);
    }
  }

  /**
   * One transaction under the caller's role, with the settings PostgREST and Storage give: `role`, `request.jwt.claims`
   * and whatever `settings` adds. Everything ends with the transaction.
   */
  async as<T>(
    caller: Caller,
    settings: Readonly<Record<string, string>>,
    work: (sql: Statements) => Promise<T>,
    begin?: string,
  ): Promise<T> {
    const all: Record<string, string> = {
      ...settings,
      "request.jwt.claims": JSON.stringify(caller.claims),
      "request.jwt.claim.sub": caller.claims.sub ?? "",
      "request.jwt.claim.role": caller.role,
      role: caller.role,
    };
    const names = Object.keys(all);
    const list = names.map((_, at) => `set_config($${2 * at + 1}, $${2 * at + 2}, true)`).join(", ");
    return await this.transaction(async (sql) => {
      await sql.query(`select ${list}`, names.flatMap((name) => [name, all[name] ?? ""]));
      return await work(sql);
    }, begin);
  }

  /** Calls `heard` with each payload notified on `channel`, and once whenever listening has (re)started. Ends with `signal`. */
  async listen(channel: string, heard: (payload: string) => void, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const client = new pg.Client(this.#config);
      const broken = new Promise<void>((resolve) => {
        client.on("error", () => resolve());
        client.on("end", () => resolve());
      });
      try {
        client.on("notification", (message) => heard(message.payload ?? ""));
        await client.connect();
        await client.query(`listen ${pg.escapeIdentifier(channel)}`);
        heard("");
        const told = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        await Promise.race([broken, told]);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 500)); // the server is down: look again
      }
      client.end().catch(() => {}); // never waited for, see idleTimeoutMillis
    }
  }

  /** Does not wait for the sessions' ends, see above; the process ends right after. */
  close(): void {
    this.#pool.end().catch(() => {}); // nothing is left to do with a session that will not end
  }
}

function statementsOf(client: pg.PoolClient): Statements {
  return {
    async query(text, values) {
      const result = await lost(client.query<TextRow>(text, values === undefined ? undefined : [...values]));
      return result.rows;
    },
  };
}

/** The server could not be reached, or the session broke; `cause` says how. */
class ConnectionLost extends Error {}

/** Turns whatever is no answer of the server into `ConnectionLost`. */
async function lost<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    throw cause instanceof pg.DatabaseError ? cause : new ConnectionLost("the database cannot be reached", { cause });
  }
}

/** What a statement of the server failed with; SQLSTATE 08006 where no server answered. */
export interface ServerFailure {
  readonly code: string;
  readonly message: string;
  readonly detail: string | null;
  readonly hint: string | null;
}

/** The server's own failure behind `error`, or null when it is another one. */
export function serverFailure(error: unknown): ServerFailure | null {
  if (error instanceof ConnectionLost) return { code: "08006", message: error.message, detail: null, hint: null };
  if (!(error instanceof pg.DatabaseError) || error.code === undefined) return null;
  return { code: error.code, message: error.message, detail: error.detail ?? null, hint: error.hint ?? null };
}

/** `"a"` from `a`, with quotes doubled. */
export const quoted = (name: string): string => pg.escapeIdentifier(name);
