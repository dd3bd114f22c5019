/** Rows as they were into a side schema, next to the live tables that they fit. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import {
  type Condition,
  conditionSql,
  filterOf,
  keepFitting,
  retypeCondition,
  typeConditions,
  type TypedCondition,
} from "./conditions.ts";
import { fitted, type Pair, sideValue, workStatements } from "../apply/difference.ts";
import { type Fit, type FitColumn, fitTable, isUnfit, type Unfit } from "./fit.ts";
import { type ForeignKey, readForeignKeys } from "../apply/keys.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import type { PastRows, PastTable } from "../past/past.ts";
import { refused } from "../apply/put_back.ts";
import { closeTable, loadSideTable, makeSideSchema, makeSideTable, sideNames, type SideTable } from "./side_tables.ts";

export interface BesideDeps {
  /** A session with pinned settings (`openSession`), in no transaction. */
  readonly connection: Connection;
  readonly source: PastRows;
  /** The database that the rows are from, so that oids mean the same. */
  readonly sameDatabase: boolean;
  /** `restore_` and eight hex digits. */
  readonly schema: string;
  /** Called between pieces that were loaded; what it throws ends the restore. */
  readonly onRows?: (rows: number, bytes: number) => Promise<void>;
}

/** Rows beside the live ones. */
export interface Beside {
  readonly schema: string;
  readonly sides: readonly { readonly side: SideTable; readonly rows: number }[];
  /** Tables that rows can go back into. */
  readonly pairs: readonly Pair[];
  /** Tables that are beside only. */
  readonly unfit: readonly Unfit[];
  /** Foreign keys on both ends of the tables. */
  readonly keys: readonly ForeignKey[];
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

/** A whole table. Errors: those of `loadSideTable` and of the connection, `cancelled`. */
export async function layTableBeside(deps: BesideDeps, table: PastTable, comment: string): Promise<Beside> {
  const { connection, schema } = deps;
  await makeSideSchema(connection, schema, comment);
  const live = await readLiveTables(connection, [table]);
  const side = await makeSide(deps, table, sideNames([table]).get(table) ?? table.name, live);
  const rows = await load(deps, side, null);
  return await pairUp(deps, [{ side, rows, keep: noColumns, scope: null }], live);
}

/** Rows of a table for which all conditions hold, and whether a live row is among those that `replace` looks at. */
export async function layRecordsBeside(
  deps: BesideDeps,
  table: PastTable,
  conditions: readonly Condition[],
  comment: string,
): Promise<Beside> {
  const { connection, schema } = deps;
  if (conditions.length === 0) throw new HoldfastError("usage", "no condition says which rows are meant");
  await makeSideSchema(connection, schema, comment);
  const live = await readLiveTables(connection, [table]);
  const side = await makeSide(deps, table, sideNames([table]).get(table) ?? table.name, live);
  const types = new Map(side.columns.map((column) => [column.name, column.type]));
  const typed = await typeConditions(connection, table, types, conditions);
  await load(deps, side, filterOf(typed));
  await keepFitting(connection, side, typed);
  const [counted] = await connection.query(`select count(*) as n from ${side.sql}`);
  const fit = fitTable(table, live, deps.sameDatabase);
  return await pairUp(deps, [{
    side,
    rows: Number(counted?.["n"]),
    keep: noColumns,
    scope: isUnfit(fit) ? "false" : await liveScope(connection, fit, typed),
  }], live);
}

/** A live row fits the conditions, in the types that its columns have now. */
async function liveScope(connection: Connection, fit: Fit, typed: readonly TypedCondition[]): Promise<string> {
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

const noColumns: ReadonlySet<string> = new Set();

/** A table in the side schema, before it is paired with a live one. */
export interface LaidTable {
  readonly side: SideTable;
  readonly rows: number;
  readonly keep: ReadonlySet<string>;
  readonly scope: string | null;
}

/** Makes the side table with the types of then, or the live ones where those are gone. */
export async function makeSide(
  deps: BesideDeps,
  table: PastTable,
  name: string,
  live: readonly LiveTable[],
): Promise<SideTable> {
  const fit = fitTable(table, live, deps.sameDatabase);
  const types = new Map(isUnfit(fit) ? [] : fit.columns.map((column) => [column.past, column.liveType]));
  return await makeSideTable(deps.connection, deps.schema, table, name, types);
}

export async function load(
  deps: BesideDeps,
  side: SideTable,
  filter: Parameters<PastRows["read"]>[1],
): Promise<number> {
  return await loadSideTable(deps.connection, deps.source, side, filter, deps.onRows);
}

/** Indexes the side tables by the live keys and makes the tables of work; anew where they were made for a plan. */
export async function pairUp(
  deps: BesideDeps,
  laid: readonly LaidTable[],
  live: readonly LiveTable[],
): Promise<Beside> {
  const { connection, schema } = deps;
  const pairs: Pair[] = [];
  const unfit: Unfit[] = [];
  for (const [index, { side, keep, scope }] of laid.entries()) {
    const fit = fitTable(side.past, live, deps.sameDatabase);
    if (isUnfit(fit)) {
      unfit.push(fit);
      continue;
    }
    const pair: Pair = {
      fit,
      side,
      delta: quoteQualified(schema, `holdfast delta ${index + 1}`),
      before: quoteQualified(schema, `holdfast before ${index + 1}`),
      keep,
      scope,
    };
    await indexSide(connection, pair);
    await connection.execute(
      [`drop table if exists ${pair.delta}, ${pair.before}`, ...workStatements(pair)].join("; "),
    );
    await closeTable(connection, pair.delta);
    await closeTable(connection, pair.before);
    pairs.push(pair);
  }
  const keys = await readForeignKeys(connection, pairs.map((pair) => pair.fit.live.oid));
  return { schema, sides: laid.map(({ side, rows }) => ({ side, rows })), pairs, unfit, keys };
}

/** Errors: `rows_conflict` where rows of then have the same key under the primary key of now, or none. */
async function indexSide(connection: Connection, pair: Pair): Promise<void> {
  const { fit, side } = pair;
  if (fit.key !== null) {
    const columns = fit.key.map(({ name }) => sideValue(pair, fitted(pair, name)));
    const [twice] = await connection.query(
      `select exists (
         select from ${side.sql} as s group by ${columns.join(", ")}
         having count(*) > 1 or ${columns.map((column) => `${column} is not distinct from null`).join(" or ")}
       ) as yes`,
    ).catch((error: unknown) => {
      throw refused(error);
    });
    if (twice?.["yes"] === "t") {
      const table = quoteQualified(fit.live.schema, fit.live.name);
      throw new HoldfastError(
        "rows_conflict",
        `the primary key that ${table} has now does not tell its rows of then apart`,
        {
          hint: "Restore beside, without --apply.",
        },
      );
    }
    const plain = fit.key.map(({ name }) => fitted(pair, name)).filter((column) => isPlain(pair, column));
    // A value that passes through its text is no part of an index: how it is read hangs on settings.
    if (plain.length === fit.key.length) {
      await connection.execute(
        `create unique index on ${side.sql} (${plain.map((column) => quoteIdent(column.past)).join(", ")})`,
      );
    }
  }
  await connection.execute(`analyze ${side.sql}`);
}

function isPlain({ side }: Pair, column: FitColumn): boolean {
  return side.columns.find(({ name }) => name === column.past)?.type === column.liveType;
}
