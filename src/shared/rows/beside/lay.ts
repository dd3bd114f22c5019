/** Rows of then into a side schema: what every scope of it needs. */
import type { Budget } from "../../backup/budget.ts";
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { quoteQualified } from "../../schema/quote.ts";
import type { PastRows, PastTable, RowFilter } from "../past/past.ts";
import type { PairDeps } from "./beside.ts";
import { fitTable, isUnfit } from "./fit.ts";
import type { LayStep } from "./lay_steps.ts";
import type { LiveTable } from "./live_tables.ts";
import { loadSideTable, makeSideTable, type SideTable } from "./side_tables.ts";

export interface LayDeps extends PairDeps {
  readonly source: PastRows;
  /** Called when rows were loaded; what it throws ends the restore. */
  readonly onRows?: (rows: number, bytes: number) => Promise<void>;
  /** What this process may use; past it `LegOver` is thrown, and the same call goes on in another one. Default: no bound. */
  readonly budget?: Pick<Budget, "spendText" | "spent">;
}

/** The table of then. Errors: `table_not_found`, with names that are alike. */
export function findPastTable(source: PastRows, { schema, name }: TableName): PastTable {
  const found = source.tables.find((table) => table.schema === schema && table.name === name);
  if (found !== undefined) return found;
  const alike = source.tables.filter((table) => table.name === name || table.name.includes(name))
    .slice(0, 3).map((table) => quoteQualified(table.schema, table.name));
  throw new HoldfastError("table_not_found", `the backup has no table ${quoteQualified(schema, name)}`, {
    hint: alike.length === 0 ? "`holdfast verify` and the manifest tell its tables." : `It has ${alike.join(", ")}.`,
  });
}

/** Makes the side table with the types of then, or the live ones where those are gone. */
export async function makeSide(
  deps: LayDeps,
  table: PastTable,
  name: string,
  live: readonly LiveTable[],
): Promise<SideTable> {
  const fit = fitTable(table, live, deps.sameDatabase);
  const types = new Map(isUnfit(fit) ? [] : fit.columns.map((column) => [column.past, column.liveType]));
  return await makeSideTable(deps.connection, deps.schema, table, name, types);
}

/** Errors: those of `loadSideTable`. */
export async function load(deps: LayDeps, side: SideTable, filter: RowFilter, step: LayStep): Promise<void> {
  await loadSideTable(deps.connection, deps.source, side, filter, step, deps);
}

export async function countOf({ connection }: PairDeps, relation: string): Promise<number> {
  const [row] = await connection.query(`select count(*) as n from ${relation}`);
  return Number(row?.["n"]);
}
