/** Rows that are the user's now and were there then as somebody else's, or as others' too: `replace` leaves them. */
import { quoteIdent } from "../../schema/quote.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { PastTable, RowCondition } from "../past/past.ts";
import { escapeCopyText } from "./conditions.ts";
import { type Fit, fitTable, isUnfit } from "./fit.ts";
import { countOf, type LayDeps, load, makeSide } from "./lay.ts";
import type { LaySteps } from "./lay_steps.ts";
import type { LiveTable } from "./live_tables.ts";
import { closeTable, deletable, type SideTable } from "./side_tables.ts";

export interface Strangers {
  /** Quoted name of the table with their keys, texts in the order of the live key: `k1`, `k2`, … */
  readonly sql: string;
  readonly columns: number;
}

/**
 * Keys of the live rows for which `owned` holds and that were there then, of one table; of no use for rows that a restore has
 * beside, which it never deletes. Null: rows without a key cannot be told. Errors: those of `loadSideTable`.
 */
export async function findStrangers(
  deps: LayDeps,
  steps: LaySteps,
  place: number,
  wanted: { readonly past: PastTable; readonly side: SideTable },
  live: readonly LiveTable[],
  owned: string,
): Promise<Strangers | null> {
  const { connection, schema } = deps;
  const step = steps.next();
  const fit = fitTable(wanted.past, live, deps.sameDatabase);
  if (isUnfit(fit) || fit.key === null || owned === "false") return null;
  const names = fit.key.map(({ name }) => ({ live: name, past: pastName(fit, name) }));
  const sql = `${schema}."holdfast others ${place}"`;
  const found: Strangers = { sql, columns: names.length };
  if (step.done) return found;
  const relation = fit.live.partitioned ? nameOf(fit.live) : `only ${nameOf(fit.live)}`;
  await step.begin(async () => {
    const list = names.map((one, at) => `l.${quoteIdent(one.live)}::text as k${at + 1}`).join(", ");
    await connection.execute(
      `create table ${sql} as select ${list} from ${relation} as l where ${owned}; ${deletable(sql)}`,
    );
    await closeTable(connection, sql);
  });
  const inside = (table: string) =>
    `exists (select from ${table} as s where ${
      names.map((one, at) => `s.${quoteIdent(one.past)}::text = o.k${at + 1}`).join(" and ")
    })`;
  const open = await connection.query(
    `select pg_catalog.to_json(array[${names.map((_, at) => `o.k${at + 1}`).join(", ")}])::text as texts
       from ${sql} as o where not ${inside(wanted.side.sql)}`,
  );
  const then = await makeSide(deps, wanted.past, `holdfast then ${place}`, live);
  const filter: RowCondition = {
    columns: names.map((one) => one.past),
    values: new Set(open.map((row) => (JSON.parse(row["texts"] ?? "[]") as string[]).map(escapeCopyText).join("\t"))),
  };
  if (filter.values.size > 0) await load(deps, then, [filter], step);
  await step.finish(async () => {
    await connection.execute(
      `delete from ${sql} as o where not ${inside(wanted.side.sql)} and not ${
        inside(then.sql)
      }; drop table ${then.sql}`,
    );
    return await countOf(deps, sql);
  });
  return found;
}

function pastName({ columns }: Fit, live: string): string {
  return columns.find((one) => one.live === live)?.past ?? live;
}

/** Condition on a live row `l` that it is none of them; `false` where its key is another one by now. */
export function isNoStranger(strangers: Strangers, key: readonly { readonly name: string }[] | null): string {
  if (key === null || key.length !== strangers.columns) return "false";
  const same = key.map(({ name }, at) => `o.k${at + 1} = l.${quoteIdent(name)}::text`).join(" and ");
  return `not exists (select from ${strangers.sql} as o where ${same})`;
}

/** Of the rows of a table that `replace` would look at, how many it leaves for that. */
export async function countStrangers(
  { connection, sameDatabase }: LayDeps,
  { sql, columns }: Strangers,
  side: SideTable,
  live: readonly LiveTable[],
): Promise<number> {
  const fit = fitTable(side.past, live, sameDatabase);
  if (isUnfit(fit)) return 0;
  const keys = (fit.key ?? []).slice(0, columns).map(({ name }, at) =>
    `s.${quoteIdent(pastName(fit, name))}::text = o.k${at + 1}`
  );
  const [row] = await connection.query(
    `select count(*) as n from ${sql} as o where not exists (select from ${side.sql} as s where ${keys.join(" and ")})`,
  );
  return Number(row?.["n"]);
}
