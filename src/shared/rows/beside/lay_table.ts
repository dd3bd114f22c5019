/** A table, or some of its rows, into a side schema. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { PastTable } from "../past/past.ts";
import { type Beside, type PairDeps, pairUp, type Scope } from "./beside.ts";
import {
  type Condition,
  conditionSql,
  filterOf,
  keepFitting,
  retypeCondition,
  typeConditions,
  type TypedCondition,
} from "./conditions.ts";
import { type Fit, fitTable, isUnfit } from "./fit.ts";
import { type Laid, readLaid, settleOnce } from "./laid.ts";
import { countOf, type LayDeps, load, makeSide } from "./lay.ts";
import { LaySteps } from "./lay_steps.ts";
import { readLiveTables } from "./live_tables.ts";
import { makeSideSchema, sideNames, type SideTable } from "./side_tables.ts";

/** A whole table. Errors: those of `loadSideTable` and of the connection, `cancelled`. */
export async function layTable(deps: LayDeps, table: PastTable, comment: string): Promise<Laid> {
  return await layOne(deps, table, [], comment);
}

/** Rows of a table for which all conditions hold. Errors: as `layTable`, and those of `typeConditions`. */
export async function layRecords(
  deps: LayDeps,
  table: PastTable,
  conditions: readonly Condition[],
  comment: string,
): Promise<Laid> {
  if (conditions.length === 0) throw new HoldfastError("usage", "no condition says which rows are meant");
  return await layOne(deps, table, conditions, comment);
}

async function layOne(
  deps: LayDeps,
  table: PastTable,
  conditions: readonly Condition[],
  comment: string,
): Promise<Laid> {
  const { connection, schema } = deps;
  await makeSideSchema(connection, schema, comment);
  const there = await readLaid(connection, schema);
  if (there !== null) return there;
  const live = await readLiveTables(connection, [table]);
  const side = await makeSide(deps, table, sideNames([table]).get(table) ?? table.name, live);
  const typed = await readConditions(connection, side, conditions);
  const step = (await LaySteps.open(connection, schema)).next();
  if (!step.done) {
    await load(deps, side, typed.length === 0 ? null : filterOf(typed), step);
    await step.finish(async () => {
      if (typed.length > 0) await keepFitting(connection, side, typed);
      return await countOf(deps, side.sql);
    });
  }
  return await settleOnce(
    connection,
    schema,
    () => Promise.resolve({ tables: [{ side, rows: step.rows, keep: [] }], user: null }),
  );
}

async function readConditions(
  connection: Connection,
  side: SideTable,
  conditions: readonly Condition[],
): Promise<TypedCondition[]> {
  const types = new Map(side.columns.map((column) => [column.name, column.type]));
  return await typeConditions(connection, side.past, types, conditions);
}

/** Next to the live table; `replace` looks at all of its rows. Errors: those of `pairUp`. */
export async function pairTable(deps: PairDeps, { tables }: Laid): Promise<Beside> {
  const live = await readLiveTables(deps.connection, tables.map(({ side }) => side.past));
  return await pairUp(deps, tables, live, () => null);
}

/** Next to the live table; `replace` looks at the rows for which the conditions hold now. Errors: those of `pairUp`. */
export async function pairRecords(
  deps: PairDeps,
  { tables }: Laid,
  conditions: readonly Condition[],
): Promise<Beside> {
  const { connection, sameDatabase } = deps;
  const live = await readLiveTables(connection, tables.map(({ side }) => side.past));
  return await pairUp(deps, tables, live, async ({ side }) => {
    const fit = fitTable(side.past, live, sameDatabase);
    return isUnfit(fit)
      ? "false"
      : await liveScope(connection, fit, await readConditions(connection, side, conditions));
  });
}

/** A live row fits the conditions, in the types that its columns have now. */
async function liveScope(connection: Connection, fit: Fit, typed: readonly TypedCondition[]): Promise<Scope> {
  const conditions: TypedCondition[] = [];
  for (const condition of typed) {
    const column = fit.columns.find(({ past }) => past === condition.column);
    const retyped = column === undefined
      ? null
      : await retypeCondition(connection, condition, column.live, column.liveType);
    if (retyped === null) return "false";
    conditions.push(retyped);
  }
  return conditionSql(conditions, "l");
}
