/** What may be a user's, out of the rows of then: found by the keys of then, table by table. */
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import type { Equalities } from "../ownership/equalities.ts";
import type { OwnedTable } from "../ownership/ownership.ts";
import type { StepCondition, StepGroup } from "../ownership/ownership_steps.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { PastTable, RowCondition } from "../past/past.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { escapeCopyText } from "./conditions.ts";
import { countOf, type LayDeps, load, makeSide } from "./lay.ts";
import type { LayStep, LaySteps } from "./lay_steps.ts";
import type { LiveTable } from "./live_tables.ts";
import { closeTable, sideNames, type SideTable } from "./side_tables.ts";

/** Tables by `nameOf`, of now's ownership plan and of then. */
export type Wanted = ReadonlyMap<string, { readonly table: OwnedTable; readonly past: PastTable }>;

interface Taken {
  readonly side: SideTable;
  readonly conditions: StepCondition[];
  rows: number;
}

/** Rows of the steps of an ownership plan, each table once. */
export class Extraction {
  readonly #deps: LayDeps;
  readonly #steps: LaySteps;
  readonly #user: string;
  readonly #wanted: Wanted;
  readonly #live: readonly LiveTable[];
  readonly #equals: Equalities;
  readonly #names: Map<PastTable, string>;
  readonly #taken = new Map<string, Taken>();

  constructor(
    deps: LayDeps,
    steps: LaySteps,
    user: string,
    wanted: Wanted,
    live: readonly LiveTable[],
    equals: Equalities,
  ) {
    this.#deps = deps;
    this.#steps = steps;
    this.#user = user;
    this.#wanted = wanted;
    this.#live = live;
    this.#equals = equals;
    this.#names = sideNames([...wanted.values()].map(({ past }) => past));
  }

  sideOf(table: TableName): SideTable | null {
    return this.#taken.get(nameOf(table))?.side ?? null;
  }

  rowsOf(table: TableName): number {
    return this.#taken.get(nameOf(table))?.rows ?? 0;
  }

  /** Errors: those of `loadSideTable`. */
  async take({ steps, repeat }: StepGroup): Promise<void> {
    for (;;) {
      const before = this.#total();
      for (const { table, conditions } of steps) await this.#takeTable(table, conditions);
      if (!repeat || this.#total() === before) return;
    }
  }

  #total(): number {
    return [...this.#taken.values()].reduce((sum, { rows }) => sum + rows, 0);
  }

  /** All rows that fit a condition of this step or of one before, read again as a whole: no row is there twice. */
  async #takeTable(table: TableName, conditions: readonly StepCondition[]): Promise<void> {
    const wanted = this.#wanted.get(nameOf(table));
    if (wanted === undefined) return;
    let taken = this.#taken.get(nameOf(table));
    if (taken === undefined) {
      const name = this.#names.get(wanted.past) ?? table.name;
      taken = { side: await makeSide(this.#deps, wanted.past, name, this.#live), conditions: [], rows: 0 };
      this.#taken.set(nameOf(table), taken);
    }
    taken.conditions.push(...conditions.filter((one) => one.from === null || this.sideOf(one.from) !== null));
    const step = this.#steps.next();
    if (!step.done) await this.#fill(table, taken, step);
    taken.rows = step.rows;
  }

  async #fill(table: TableName, { side, conditions }: Taken, step: LayStep): Promise<void> {
    const { connection, schema } = this.#deps;
    // A table that refers to itself is asked for what it holds now, so that is kept until the new rows are in.
    const asksItself = conditions.some(({ from }) => from !== null && nameOf(from) === nameOf(table));
    const kept = `${schema}."holdfast asked"`;
    await step.begin(async () => {
      if (asksItself) {
        await connection.execute(`create table ${kept} as select * from ${side.sql}`);
        await closeTable(connection, kept);
      }
      await connection.execute(`truncate ${side.sql}`);
    });
    const rowsIn = (from: SideTable) => from === side ? kept : from.sql;
    const filter: RowCondition[] = [];
    for (const condition of conditions) filter.push(await this.#condition(condition, rowsIn));
    const fits = conditions.map((condition) => this.#fits(side, condition, rowsIn));
    if (filter.some(({ values }) => values.size > 0)) await load(this.#deps, side, filter, step);
    await step.finish(async () => {
      await connection.execute(`delete from ${side.sql} as t where (${fits.join(" or ")}) is not true`);
      if (asksItself) await connection.execute(`drop table ${kept}`);
      return await countOf(this.#deps, side.sql);
    });
  }

  async #condition(
    { columns, from, fromColumns }: StepCondition,
    rowsIn: (from: SideTable) => string,
  ): Promise<RowCondition> {
    if (from === null) return { columns, values: new Set([this.#user]) };
    const side = this.sideOf(from);
    if (side === null) return { columns, values: new Set() };
    const list = fromColumns.map((column) => `${quoteIdent(column)}::text`).join(", ");
    const rows = await this.#deps.connection.query(
      `select distinct pg_catalog.to_json(array[${list}])::text as texts from ${rowsIn(side)}
        where ${fromColumns.map((column) => `${quoteIdent(column)} is not null`).join(" and ")}`,
    );
    return {
      columns,
      values: new Set(rows.map((row) => (JSON.parse(row["texts"] ?? "[]") as string[]).map(escapeCopyText).join("\t"))),
    };
  }

  #fits(
    own: SideTable,
    { columns, from, fromColumns }: StepCondition,
    rowsIn: (from: SideTable) => string,
  ): string {
    if (from === null) {
      return columns.map((column) => `t.${quoteIdent(column)}::text = ${quoteLiteral(this.#user)}`).join(" and ");
    }
    const side = this.sideOf(from);
    if (side === null) return "false";
    const typeOf = (table: SideTable, name: string) => table.columns.find((column) => column.name === name)?.type ?? "";
    const pairs = fromColumns.map((column, at) => {
      const equals = this.#equals(typeOf(own, columns[at] ?? ""), typeOf(side, column));
      return `t.${quoteIdent(columns[at] ?? "")} ${equals} f.${quoteIdent(column)}`;
    });
    return `exists (select from ${rowsIn(side)} as f where ${pairs.join(" and ")})`;
  }
}
