/** Live rows that a restore means now, and whether they were there then: `replace` deletes those alone that were not. */
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent } from "../../schema/quote.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { PastTable, RowFilter } from "../past/past.ts";
import { escapeCopyText } from "./conditions.ts";
import { type Fit, type FitColumn, fitTable, isUnfit } from "./fit.ts";
import { countOf, type LayDeps, load, makeSide } from "./lay.ts";
import type { LayStep, LaySteps } from "./lay_steps.ts";
import type { LiveTable } from "./live_tables.ts";
import { closeTable, deletable, type SideTable } from "./side_tables.ts";

export interface Newcomers {
  /** Quoted name of the table with the keys of the rows in the types of the live key, `k1`, `k2`, …; `there`: they were there then. */
  readonly sql: string;
  /** Of the live key when it was looked up. */
  readonly types: readonly string[];
}

interface KeyPart extends FitColumn {
  /** Of the live key. */
  readonly equals: string;
}

/**
 * Looks up the live rows for which `meant` holds (a condition on `l`), of one table, as they are now; a row that is meant only
 * later is none of them. `wanted.side`: rows of then that need not be read again. Null: rows without a key cannot be told apart.
 * Errors: those of `loadSideTable`.
 */
export async function findNewcomers(
  deps: LayDeps,
  steps: LaySteps,
  place: number,
  wanted: { readonly past: PastTable; readonly side: SideTable },
  live: readonly LiveTable[],
  meant: string,
): Promise<Newcomers | null> {
  const step = steps.next();
  const fit = fitTable(wanted.past, live, deps.sameDatabase);
  const key = isUnfit(fit) ? null : keyOf(fit);
  if (isUnfit(fit) || key === null || meant === "false") return null;
  const sql = `${deps.schema}."holdfast newcomers ${place}"`;
  if (!step.done) {
    await step.begin(async () => {
      const list = key.map(({ live: name }, at) => `l.${quoteIdent(name)} as k${at + 1}`).join(", ");
      await deps.connection.execute(
        `create table ${sql} as select ${list}, false as there from ${relationOf(fit)} as l where ${meant};
         ${deletable(sql)}`,
      );
      await closeTable(deps.connection, sql);
    });
    await lookBack(deps, step, place, wanted, live, key, sql);
  }
  return { sql, types: key.map(({ liveType }) => liveType) };
}

/** Marks what was there. Where a value of then does not go into the type of now, nothing is known to be new. */
async function lookBack(
  deps: LayDeps,
  step: LayStep,
  place: number,
  { past, side }: { readonly past: PastTable; readonly side: SideTable },
  live: readonly LiveTable[],
  key: readonly KeyPart[],
  sql: string,
): Promise<void> {
  const { connection } = deps;
  const then = await makeSide(deps, past, `holdfast then ${place}`, live);
  const finish = (known: string) =>
    step.finish(async () => {
      await connection.execute(
        `update ${sql} as o set there = true where ${known}; drop table ${then.sql}; analyze ${sql}`,
      );
      return await countOf(deps, sql);
    });
  try {
    const told = await tellingParts(connection, key, live, past, deps.sameDatabase);
    const texts = told.map(({ at }) => `o.k${at + 1}::text`).join(", ");
    const open = await connection.query(
      `select pg_catalog.to_json(array[${texts}]::text[])::text as texts from ${sql} as o where not ${
        hasKey(side, key)
      }`,
    );
    const values = open.map((row) => (JSON.parse(row["texts"] ?? "[]") as string[]).map(escapeCopyText).join("\t"));
    const filter: RowFilter = told.length === 0
      ? null
      : [{ columns: told.map(({ part }) => part.past), values: new Set(values) }];
    if (open.length > 0) await load(deps, then, filter, step);
    await finish(`${hasKey(side, key)} or ${hasKey(then, key)}`);
  } catch (error) {
    if (!/^(22|23514)/.test(sqlstateOf(error) ?? "")) throw error;
    await finish("true");
  }
}

/** The row `o` has the key of a row of then. */
function hasKey(side: SideTable, key: readonly KeyPart[]): string {
  const same = key.map((part, at) => `o.k${at + 1} ${part.equals} ${valueIn(side, part)}`).join(" and ");
  return `exists (select from ${side.sql} as s where ${same})`;
}

/** In the type that the live column has. */
function valueIn({ columns }: SideTable, { past, liveType }: FitColumn): string {
  const value = `s.${quoteIdent(past)}`;
  return columns.find(({ name }) => name === past)?.type === liveType ? value : `${value}::text::${liveType}`;
}

const integer = /^(smallint|integer|bigint)$/;

/**
 * Columns of which the text of a live value finds the rows of then: of the same type, or integers both; and under no collation
 * that takes two texts for one.
 */
async function tellingParts(
  connection: Connection,
  key: readonly KeyPart[],
  live: readonly LiveTable[],
  past: PastTable,
  sameDatabase: boolean,
): Promise<{ readonly part: KeyPart; readonly at: number }[]> {
  const fit = fitTable(past, live, sameDatabase);
  const rows = isUnfit(fit) ? [] : await connection.query(
    `select a.attname as name from pg_catalog.pg_attribute as a
       join pg_catalog.pg_collation as c on c.oid = a.attcollation and not c.collisdeterministic
      where a.attrelid = $1::oid and a.attnum > 0`,
    [fit.live.oid],
  );
  const loose = new Set(rows.map((row) => row["name"]));
  return key.map((part, at) => ({ part, at })).filter(({ part }) => {
    const was = past.columns.find(({ name }) => name === part.past)?.type ?? "";
    return !loose.has(part.live) && (!part.retyped || (integer.test(was) && integer.test(part.liveType)));
  });
}

function keyOf({ key, columns }: Fit): KeyPart[] | null {
  const parts = key?.flatMap(({ name, equals }) =>
    columns.filter((one) => one.live === name).map((one) => ({ ...one, equals }))
  );
  return parts === undefined || parts.length !== key?.length ? null : parts;
}

const relationOf = ({ live }: Fit) => live.partitioned ? nameOf(live) : `only ${nameOf(live)}`;

/** Condition on a live row `l` that it is one of them; `false` where its key is another one by now. */
export function isNewcomer({ sql, types }: Newcomers, fit: Fit): string {
  const key = keyOf(fit);
  if (key === null || key.length !== types.length || key.some((part, at) => part.liveType !== types[at])) {
    return "false";
  }
  const same = key.map(({ live, equals }, at) => `o.k${at + 1} ${equals} l.${quoteIdent(live)}`).join(" and ");
  return `exists (select from ${sql} as o where not o.there and ${same})`;
}

/** Rows that are meant now and were there then, and are not among those that come back: how many `replace` leaves as they are. */
export async function countStaying(
  { connection, sameDatabase }: LayDeps,
  { sql }: Newcomers,
  side: SideTable,
  live: readonly LiveTable[],
): Promise<number> {
  const fit = fitTable(side.past, live, sameDatabase);
  const key = isUnfit(fit) ? null : keyOf(fit);
  if (key === null) return 0;
  const [row] = await connection.query(
    `select count(*) as n from ${sql} as o where o.there and not ${hasKey(side, key)}`,
  );
  return Number(row?.["n"]);
}

/** Rows of a table without a key that are meant now and not among those that come back: which of them are new nobody can tell. */
export async function countUntold(
  { connection, sameDatabase }: LayDeps,
  side: SideTable,
  live: readonly LiveTable[],
  meant: string,
): Promise<number> {
  const fit = fitTable(side.past, live, sameDatabase);
  if (isUnfit(fit) || fit.key !== null || meant === "false") return 0;
  const text = (values: readonly string[]) => `row(${values.join(", ")})::text collate "C"`;
  const [row] = await connection.query(
    `select count(*) as n from (
       select ${text(fit.columns.map((one) => `l.${quoteIdent(one.live)}`))} from ${relationOf(fit)} as l where ${meant}
       except all select ${text(fit.columns.map((one) => valueIn(side, one)))} from ${side.sql} as s
     ) as q`,
  );
  return Number(row?.["n"]);
}
