/** What a restore of rows is to leave, computed row by row over texts. */
import type pg from "pg";
import type { RestoreMode } from "../../src/shared/rows/apply/difference.ts";
import { quoteQualified } from "../../src/shared/schema/quote.ts";
import type { RandomTable } from "./rows_random_tables.ts";

/** Values by the column's name in the past, or by the name of one that was added. */
export type ModelRow = ReadonlyMap<string, string | null>;
export type State = ReadonlyMap<RandomTable, readonly ModelRow[]>;

export interface Scope {
  readonly tables: readonly RandomTable[];
  /** The partition that is asked for by its name. */
  readonly part: string | null;
  readonly where: { readonly column: string; readonly value: string } | null;
}

export interface Counts {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
}

/** `client` gives values as the server's texts. */
export async function readRows(client: pg.Client, tables: readonly RandomTable[]): Promise<State> {
  const state = new Map<RandomTable, ModelRow[]>();
  for (const table of tables) {
    const { rows } = await client.query<Record<string, string | null>>(
      `select * from ${quoteQualified(table.schema, table.now)}`,
    );
    const names = [
      ...table.columns.flatMap(({ name, now }) => now === null ? [] : [[name, now] as const]),
      ...table.added.map(({ name }) => [name, name] as const),
    ];
    state.set(table, rows.map((row) => new Map(names.map(([name, now]) => [name, row[now] ?? null]))));
  }
  return state;
}

/** Rows of one partition. */
export function parts(rows: readonly ModelRow[], part: string): ModelRow[] {
  return rows.filter((row) => part.endsWith(`_${row.get("part")}`));
}

const textOf = (row: ModelRow, names: readonly string[]): string => JSON.stringify(names.map((name) => row.get(name)));

/** Columns of then that are still there. */
const common = (table: RandomTable) => table.columns.flatMap(({ name, now }) => now === null ? [] : [name]);

export function expected(then: State, now: State, scope: Scope, mode: RestoreMode): { state: State; counts: Counts } {
  const state = new Map(now);
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  for (const table of scope.tables) {
    const took = table.key === null ? bag(table, then, now, scope, mode) : keyed(table, then, now, scope, mode);
    state.set(table, took.rows);
    counts.inserted += took.inserted;
    counts.updated += took.updated;
    counts.deleted += took.deleted;
  }
  return { state, counts };
}

interface Took extends Counts {
  readonly rows: readonly ModelRow[];
}

function meant(table: RandomTable, { part, where }: Scope): (row: ModelRow) => boolean {
  return (row) =>
    (part === null || parts([row], part).length > 0) &&
    (where === null || row.get(where.column) === where.value) &&
    table.columns.length > 0;
}

function keyed(table: RandomTable, then: State, now: State, scope: Scope, mode: RestoreMode): Took {
  const isMeant = meant(table, scope);
  const key = table.key ?? [];
  const names = common(table);
  // A row that fits the condition only since then was there: `replace` leaves it.
  const there = new Set(scope.where === null ? [] : (then.get(table) ?? []).map((row) => textOf(row, key)));
  const wanted = new Map((then.get(table) ?? []).filter(isMeant).map((row) => [textOf(row, key), row]));
  const rows: ModelRow[] = [];
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  for (const row of now.get(table) ?? []) {
    const was = wanted.get(textOf(row, key));
    wanted.delete(textOf(row, key));
    if (was === undefined) {
      if (mode === "replace" && isMeant(row) && !there.has(textOf(row, key))) counts.deleted++;
      else rows.push(row);
    } else if (mode === "missing" || textOf(was, names) === textOf(row, names)) {
      rows.push(row);
    } else {
      counts.updated++;
      rows.push(new Map([...row, ...names.map((name) => [name, was.get(name) ?? null] as const)]));
    }
  }
  for (const was of wanted.values()) {
    counts.inserted++;
    rows.push(fresh(table, was, names));
  }
  return { rows, ...counts };
}

function fresh(table: RandomTable, was: ModelRow, names: readonly string[]): ModelRow {
  return new Map([
    ...names.map((name) => [name, was.get(name) ?? null] as const),
    ...table.added.map(({ name, value }) => [name, value] as const),
  ]);
}

/** Rows without a key are as many as they were. Which of several alike goes cannot be told. */
function bag(table: RandomTable, then: State, now: State, scope: Scope, mode: RestoreMode): Took {
  const isMeant = meant(table, scope);
  const names = common(table);
  const wanted = (then.get(table) ?? []).filter(isMeant);
  const rows: ModelRow[] = [];
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  for (const row of now.get(table) ?? []) {
    const at = wanted.findIndex((was) => textOf(was, names) === textOf(row, names));
    if (at >= 0) wanted.splice(at, 1);
    if (at >= 0 || mode !== "replace" || !isMeant(row)) rows.push(row);
    else counts.deleted++;
  }
  for (const was of wanted) {
    counts.inserted++;
    rows.push(fresh(table, was, names));
  }
  return { rows, ...counts };
}

/** Unique keys and foreign keys hold. */
export function isValid(tables: readonly RandomTable[], state: State): boolean {
  const filled = (row: ModelRow, names: readonly string[]) => names.every((name) => (row.get(name) ?? null) !== null);
  return tables.every((table) => {
    const rows = state.get(table) ?? [];
    const unique = [...table.uniques, ...(table.key === null ? [] : [table.key])].every((names) => {
      const all = rows.filter((row) => filled(row, names)).map((row) => textOf(row, names));
      return new Set(all).size === all.length;
    });
    return unique && table.references.every(({ columns, to, toColumns }) => {
      const parent = tables.find(({ was }) => was === to);
      const there = new Set((parent === undefined ? [] : state.get(parent) ?? []).map((row) => textOf(row, toColumns)));
      return rows.filter((row) => filled(row, columns)).every((row) => there.has(textOf(row, columns)));
    });
  });
}

/** To compare: rows in an order of their own. Of tables without a key only what then had as well. */
export function texts(state: State): Record<string, string[]> {
  return Object.fromEntries(
    [...state].map(([table, rows]) => {
      const names = [...common(table), ...(table.key === null ? [] : table.added.map(({ name }) => name))];
      return [table.was, rows.map((row) => textOf(row, names)).toSorted()];
    }),
  );
}
