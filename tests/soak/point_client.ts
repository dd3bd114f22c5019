/** Sessions of a history as `pg` gives them. */
import pg from "pg";

export type Rows = readonly Readonly<Record<string, unknown>>[];

export class Session {
  /** The statement that was sent last. */
  latest = "";
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async open(url: string): Promise<Session> {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => {});
    await client.connect();
    await client.query("set timezone = 'UTC'");
    return new Session(client);
  }

  /** Rows of the last statement. */
  async query(sql: string): Promise<Rows> {
    this.latest = sql;
    const result: unknown = await this.#client.query(sql);
    const last = Array.isArray(result) ? result.at(-1) : result;
    return (last as pg.QueryResult<Record<string, unknown>>).rows;
  }

  async one(sql: string): Promise<string> {
    const [row] = await this.query(sql);
    const [value] = Object.values(row ?? {});
    return String(value);
  }

  async end(): Promise<void> {
    await this.#client.end();
  }
}

export async function ask(url: string, sql: string): Promise<Rows> {
  const session = await Session.open(url);
  try {
    return await session.query(sql);
  } finally {
    await session.end();
  }
}

/** SQLSTATE of an error of the server, or null. */
export function stateOf(error: unknown): string | null {
  return error instanceof pg.DatabaseError ? error.code ?? null : null;
}
