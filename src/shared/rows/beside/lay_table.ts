/** A table, or some of its rows, into a side schema. */
import { removeFromSides } from "../../erase/remove_erased.ts";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { quoteQualified } from "../../schema/quote.ts";
import { treatmentOf } from "../ownership/auth_map.ts";
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
import { fitTable, isUnfit } from "./fit.ts";
import { type Laid, type LaidTable, readLaid, settleOnce } from "./laid.ts";
import { countOf, type LayDeps, load, makeSide } from "./lay.ts";
import { LaySteps } from "./lay_steps.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import { countStaying, findNewcomers, isNewcomer } from "./newcomers.ts";
import { forgetTokens, keptColumns, whyBesideOnly } from "./service_tables.ts";
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
  const steps = await LaySteps.open(connection, schema);
  const step = steps.next();
  if (!step.done) {
    await load(deps, side, typed.length === 0 ? null : filterOf(typed), step);
    await step.finish(async () => {
      if (typed.length > 0) await keepFitting(connection, side, typed);
      return await countOf(deps, side.sql);
    });
  }
  const newcomers = typed.length === 0 || whyBesideOnly(table) !== null
    ? null
    : await findNewcomers(deps, steps, 1, { past: table, side }, live, await meantNow(deps, live, side, typed));
  const ledger = await deps.source.erased(connection);
  return await settleOnce(connection, schema, async () => {
    const erased = await removeFromSides(connection, deps.source.graph, [side], ledger);
    const treatment = treatmentOf(table);
    await forgetTokens(connection, treatment, side);
    const stay = newcomers === null ? 0 : await countStaying(deps, newcomers, side, live);
    return {
      tables: [{
        side,
        rows: step.rows - (erased.get(side.sql) ?? 0),
        keep: keptColumns(treatment, false),
        newcomers,
        stay,
      }],
      user: null,
    };
  });
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
export async function pairTable(deps: PairDeps, laid: Laid): Promise<Beside> {
  const live = await readLiveTables(deps.connection, laid.tables.map(({ side }) => side.past));
  return await pairFit(deps, laid, live, () => null);
}

/**
 * Next to the live table; `replace` looks at the rows for which the conditions hold now and that were not there then. Errors:
 * those of `pairUp`.
 */
export async function pairRecords(
  deps: PairDeps,
  laid: Laid,
  conditions: readonly Condition[],
): Promise<Beside> {
  const { connection, sameDatabase } = deps;
  const live = await readLiveTables(connection, laid.tables.map(({ side }) => side.past));
  return await pairFit(deps, laid, live, async ({ side, newcomers }) => {
    const fit = fitTable(side.past, live, sameDatabase);
    if (isUnfit(fit)) return "false";
    const meant = await meantNow(deps, live, side, await readConditions(connection, side, conditions));
    // Without a key the plan refuses to replace.
    if (fit.key === null || meant === "false") return meant;
    return newcomers === undefined || newcomers === null ? "false" : `(${meant}) and ${isNewcomer(newcomers, fit)}`;
  });
}

/** Rows of a service's tables that go back nowhere are beside only. */
async function pairFit(
  deps: PairDeps,
  { tables }: Laid,
  live: readonly LiveTable[],
  scopeOf: (table: LaidTable) => Scope | Promise<Scope>,
): Promise<Beside> {
  const unfit = tables.flatMap(({ side: { past } }) => {
    const reason = whyBesideOnly(past);
    return reason === null ? [] : [{ past, reason }];
  });
  if (unfit.length === 0) return await pairUp(deps, tables, live, scopeOf);
  const nothing = await pairUp(deps, [], live, scopeOf);
  return { ...nothing, sides: tables.map(({ side, rows }) => ({ side, rows })), unfit };
}

/** What people have to know about rows of one table. */
export function tableWarnings({ tables }: Laid): string[] {
  return tables.flatMap(({ side: { past }, keep, stay = 0 }) => {
    const name = quoteQualified(past.schema, past.name);
    return [
      ...(keep.length === 0 || whyBesideOnly(past) !== null
        ? []
        : [`rows of ${name} that are there keep ${keep.join(", ")}; restore-user --credentials puts a password back`]),
      ...(stay === 0 ? [] : [
        `${
          stay === 1 ? "1 row" : `${stay} rows`
        } of ${name} fit the conditions now and were there then without fitting; replace leaves them as they are`,
      ]),
    ];
  });
}

/** A live row `l` fits the conditions, in the types that its columns have now. */
async function meantNow(
  { connection, sameDatabase }: PairDeps,
  live: readonly LiveTable[],
  { past }: SideTable,
  typed: readonly TypedCondition[],
): Promise<string> {
  const fit = fitTable(past, live, sameDatabase);
  if (isUnfit(fit)) return "false";
  const conditions: TypedCondition[] = [];
  for (const condition of typed) {
    const column = fit.columns.find((one) => one.past === condition.column);
    const retyped = column === undefined
      ? null
      : await retypeCondition(connection, condition, column.live, column.liveType);
    if (retyped === null) return "false";
    conditions.push(retyped);
  }
  return conditionSql(conditions, "l");
}
