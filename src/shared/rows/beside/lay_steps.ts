/** How far a side schema is filled, written down in it: who takes over goes on there, and no row comes twice. */
import { z } from "zod";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { readRows } from "../../schema/read_rows.ts";
import { closeTable } from "./side_tables.ts";

const stepRow = z.object({
  number: z.coerce.number(),
  end: z.string().nullable(),
  rows: z.coerce.number(),
  done: z.boolean(),
});

/**
 * The steps of one filling. A filling is always the same program over the same rows of then, so its steps are told by their
 * order: whoever runs it again is given what was done of each, and only does the rest.
 */
export class LaySteps {
  readonly #connection: Connection;
  readonly #table: string;
  readonly #known: ReadonlyMap<number, z.infer<typeof stepRow>>;
  #taken = 0;

  private constructor(connection: Connection, table: string, known: ReadonlyMap<number, z.infer<typeof stepRow>>) {
    this.#connection = connection;
    this.#table = table;
    this.#known = known;
  }

  /** The schema has to be there. Errors: those of the connection. */
  static async open(connection: Connection, schema: string): Promise<LaySteps> {
    const table = `${schema}."holdfast steps"`;
    await connection.execute(
      `create table if not exists ${table}
         ("number" integer primary key, "end" text, "rows" bigint not null, "done" boolean not null)`,
    );
    await closeTable(connection, table);
    const rows = await readRows(
      connection,
      "steps",
      stepRow,
      `select s."number", s."end", s."rows", s."done" from ${table} as s`,
      [],
    );
    return new LaySteps(connection, table, new Map(rows.map((row) => [row.number, row])));
  }

  /** The next one, to be taken in the same order every time. */
  next(): LayStep {
    this.#taken++;
    const known = this.#known.get(this.#taken);
    return new LayStep(this.#connection, this.#table, this.#taken, known ?? null);
  }
}

export class LayStep {
  readonly #connection: Connection;
  readonly #table: string;
  readonly #number: number;
  #begun: boolean;
  #end: string | null;
  #rows: number;
  #done: boolean;

  constructor(
    connection: Connection,
    table: string,
    number: number,
    known: { readonly end: string | null; readonly rows: number; readonly done: boolean } | null,
  ) {
    this.#connection = connection;
    this.#table = table;
    this.#number = number;
    this.#begun = known !== null;
    this.#end = known?.end ?? null;
    this.#rows = known?.rows ?? 0;
    this.#done = known?.done ?? false;
  }

  get done(): boolean {
    return this.#done;
  }

  /** Where to go on reading; null: at the beginning. */
  get end(): string | null {
    return this.#end;
  }

  /** That it loaded, or at its end what it says. */
  get rows(): number {
    return this.#rows;
  }

  /** What has to be done once before it, with the mark that it was. */
  async begin(work: () => Promise<void>): Promise<void> {
    if (this.#begun) return;
    await this.#marked(work, null, 0, false);
    this.#begun = true;
  }

  /** Rows were loaded up to `end`: `work` writes them, in the transaction of the mark, and says how many. */
  async loaded(end: string, work: () => Promise<number>): Promise<number> {
    let rows = 0;
    await this.#marked(async () => void (rows = await work()), end, () => this.#rows + rows, false);
    this.#end = end;
    this.#rows += rows;
    return rows;
  }

  /** The end of it. `work` says of how many rows. */
  async finish(work: () => Promise<number>): Promise<void> {
    let rows = 0;
    await this.#marked(async () => void (rows = await work()), this.#end, () => rows, true);
    this.#rows = rows;
    this.#done = true;
  }

  async #marked(
    work: () => Promise<void>,
    end: string | null,
    rows: number | (() => number),
    done: boolean,
  ): Promise<void> {
    if (this.#done) throw new HoldfastError("internal", "a step that is done is done again");
    await inTransaction(this.#connection, async () => {
      await work();
      await this.#connection.query(
        `insert into ${this.#table} as s values ($1::int, $2, $3::bigint, $4::boolean)
         on conflict ("number") do update set "end" = excluded."end", "rows" = excluded."rows", "done" = excluded."done"`,
        [String(this.#number), end, String(typeof rows === "number" ? rows : rows()), String(done)],
      );
    });
  }
}
