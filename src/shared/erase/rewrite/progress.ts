/** How far a rewriting of the change stream is: what it found beside the ledger, which the rewritten segments tell no more. */
import { z } from "zod";
import { call } from "../../jobs/call.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";

const hashes = z.array(z.string());
const position = z.object({
  /** The last segment that was rewritten and recorded; null: none yet. All before it were looked through. */
  after: z.string().nullable(),
  /** Keyed hashes of rows that are gone behind it. */
  gone: hashes,
  /** The next one that changes, and what is gone behind that: it may have been put, and not recorded. */
  pending: z.object({ name: z.string(), gone: hashes }).nullable(),
});
const format = z.object({ through: z.int(), chains: z.record(z.string(), position) });

export type ChainPosition = z.infer<typeof position>;

/** Of one rewriting; a class, since each note holds what every chain has. */
export class Progress {
  readonly #connection: Connection;
  /** Number of the newest entry of the ledger that is applied. */
  readonly through: number;
  #chains: Readonly<Record<string, ChainPosition>>;

  private constructor(connection: Connection, through: number, chains: Readonly<Record<string, ChainPosition>>) {
    this.#connection = connection;
    this.through = through;
    this.#chains = chains;
  }

  /** Up to which entry somebody was rewriting who was broken off; null: nobody was. Errors: those of the connection. */
  static async brokenOff(connection: Connection): Promise<number | null> {
    return (await read(connection))?.through ?? null;
  }

  /** Of the one that was broken off, where that applied the same entries. Errors: those of the connection. */
  static async of(connection: Connection, through: number): Promise<Progress> {
    const known = await read(connection);
    return new Progress(connection, through, known?.through === through ? known.chains : {});
  }

  at(chain: string): ChainPosition | null {
    return this.#chains[chain] ?? null;
  }

  /** In the transaction that is open, or by itself. */
  async note(chain: string, position: ChainPosition): Promise<void> {
    this.#chains = { ...this.#chains, [chain]: position };
    await write(this.#connection, { through: this.through, chains: this.#chains });
  }

  async end(): Promise<void> {
    await write(this.#connection, null);
  }
}

async function read(connection: Connection): Promise<z.infer<typeof format> | null> {
  const [row] = await call(connection, "select w.state::text as state from backup.rewriting as w", []);
  return row === undefined ? null : format.parse(JSON.parse(text(row, "state")));
}

async function write(connection: Connection, state: z.infer<typeof format> | null): Promise<void> {
  await call(connection, "select backup.note_rewriting($1::jsonb)", [state === null ? null : JSON.stringify(state)]);
}
