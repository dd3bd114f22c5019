/** One change of definitions at its place in a replay: by its text where that does what the log says, else by what it made. */
import type { Log } from "../../log.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import type { DdlRow, DdlStep, Define } from "./ddl_replay.ts";
import { define, isDefined } from "./define.ts";
import { absentColumns, fillMissing } from "./missing_values.ts";

export interface DefinitionOptions {
  /** Rows of the DDL log whose tables have changes before them in their transaction, by the position of its commit. */
  readonly bornLate: ReadonlyMap<bigint, readonly DdlRow[]>;
  /** Former names of tables, by the rows of the DDL log that renamed them. */
  readonly renames: ReadonlyMap<string, string>;
  /** Default: the target takes everything as the stream has it. */
  readonly rules?: DefinitionRules;
}

export interface DefinitionRules {
  /** Called around each change of definitions, in its transaction. */
  readonly beforeDefinition: (connection: Connection) => Promise<void>;
  readonly afterDefinition: (connection: Connection) => Promise<void>;
  /** Is this change of definitions one that the target takes? */
  readonly takesDefinition: (row: DdlRow) => boolean;
}

type Run = Extract<DdlStep, { do: "run" }>;

export class DefinitionReplayer {
  readonly #connection: Connection;
  readonly #log: Log;
  readonly #options: DefinitionOptions;
  /** Of this transaction, by the oids of their tables. */
  readonly #unborn = new Map<number, DdlRow>();
  readonly #madeEarly = new Set<string>();

  constructor(connection: Connection, log: Log, options: DefinitionOptions) {
    this.#connection = connection;
    this.#log = log;
    this.#options = options;
  }

  /** A transaction begins. */
  begin(commitLsn: bigint): void {
    this.#unborn.clear();
    this.#madeEarly.clear();
    for (const row of this.#options.bornLate.get(commitLsn) ?? []) {
      if (!this.takes(row)) continue;
      for (const { type, oid } of row.objects) if (type === "table" && oid != null) this.#unborn.set(oid, row);
    }
  }

  /**
   * The row that makes this table, to be done before its first change: CREATE TABLE AS is logged when it is over, and its
   * rows come before it. Given once; null for all other tables.
   */
  takeUnborn(oid: number): DdlRow | null {
    const row = this.#unborn.get(oid);
    if (row === undefined) return null;
    this.#unborn.delete(oid);
    this.#madeEarly.add(row.id);
    return row;
  }

  takes(row: DdlRow): boolean {
    return this.#options.rules?.takesDefinition(row) !== false && !this.#madeEarly.has(row.id);
  }

  /** In the caller's transaction. Errors: `ddl_not_replayable`, those of the server. */
  async apply(row: DdlRow, step: Run | Define): Promise<void> {
    const absent = await absentColumns(this.#connection, row.objects.flatMap((one) => one.missing ?? []));
    await this.#options.rules?.beforeDefinition(this.#connection);
    if (step.do === "define") await this.#define(row, step);
    else if (step.otherwise === null) await this.#run(step);
    else await this.#runOr(row, step, step.otherwise);
    await this.#options.rules?.afterDefinition(this.#connection);
    await fillMissing(this.#connection, absent);
    this.#log.step("replay.ddl", { tag: row.tag });
  }

  async #define(row: DdlRow, step: Define): Promise<void> {
    await this.#connection.execute("set local search_path = ''");
    await define(this.#connection, row, step.dropped, this.#options.renames.get(row.id) ?? null);
  }

  async #run(step: Run): Promise<void> {
    for (const statement of step.statements) await this.#connection.execute(statement);
  }

  /** A text means what it meant only under the same search path and settings: what it did is looked at. */
  async #runOr(row: DdlRow, step: Run, otherwise: Define): Promise<void> {
    await this.#connection.execute("savepoint holdfast_text");
    try {
      await this.#run(step);
      if (await isDefined(this.#connection, row)) {
        return await this.#connection.execute("release savepoint holdfast_text");
      }
    } catch (error) {
      if (sqlstateOf(error) === null) throw error;
    }
    await this.#connection.execute("rollback to savepoint holdfast_text; release savepoint holdfast_text");
    await this.#define(row, otherwise);
  }
}
