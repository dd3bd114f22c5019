/** A user's rows of then that refer to rows which are gone and do not come back: none of them keeps all the rest away. */
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { fitted, type Pair } from "../apply/difference.ts";
import type { ForeignKey } from "../apply/keys.ts";
import { endsOf, lacksParent } from "../apply/keys_hold.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { PairDeps } from "./beside.ts";
import { closeTable, deletable } from "./side_tables.ts";

/**
 * What the key does when a parent goes is done with them: ON DELETE SET NULL empties their columns; by any other key they stay
 * out, and with them what refers to them. That happens in copies of their side tables, which go on to show them all. Notes say
 * what was done. `pairs`: just paired, so that none has a difference yet. Errors: those of the connection.
 */
export async function withoutParentless(
  deps: PairDeps,
  pairs: readonly Pair[],
  keys: readonly ForeignKey[],
): Promise<Pair[]> {
  const { connection } = deps;
  const current = [...pairs];
  if (pairs.length === 0) return [];
  await connection.execute(`drop table if exists ${pairs.map((pair) => copyName(deps, pair)).join(", ")}`);
  const conditionOf = (key: ForeignKey, pair: Pair): string | null => {
    const [ends] = endsOf([key], current);
    const child = ends?.children.find((one) => one.pair === pair);
    return ends === undefined || child === undefined ? null : lacksParent(key, child, ends.parents);
  };
  const copied = new Map<number, Pair>();
  const told = new Map<number, Map<string, number>>();
  // A row that stays out can be the parent of another.
  for (let more = true; more;) {
    more = false;
    for (const key of keys) {
      for (const [place, pair] of current.entries()) {
        const there = conditionOf(key, pair);
        if (there === null || await countOf(deps, `select from ${pair.side.sql} as s where ${there}`) === 0) continue;
        const copy = copied.get(place) ?? await copySide(deps, pair);
        current[place] = copy;
        copied.set(place, copy);
        const condition = conditionOf(key, copy) ?? "false";
        const emptied = emptiedBy(key, copy);
        const rows = await countOf(
          deps,
          emptied === null
            ? `delete from ${copy.side.sql} as s where ${condition} returning 1`
            : `update ${copy.side.sql} as s set ${
              emptied.map((name) => `${quoteIdent(fitted(copy, name).past)} = null`).join(", ")
            } where ${condition} returning 1`,
        );
        const what = `${
          emptied === null ? "stay out" : `come without ${emptied.join(", ")}`
        }: they refer to rows of ${key.parent} that are not there any more`;
        const notes = told.get(place) ?? new Map<string, number>();
        told.set(place, notes.set(what, (notes.get(what) ?? 0) + rows));
        more = true;
      }
    }
  }
  return current.map((pair, place) => {
    const notes = [...told.get(place) ?? []].map(([what, rows]) =>
      `${rows === 1 ? "1 row" : `${rows} rows`} of ${nameOf(pair.fit.live)} ${what}`
    );
    return { ...pair, fit: { ...pair.fit, notes: [...pair.fit.notes, ...notes] } };
  });
}

/** Live columns that the key empties when a parent goes; null: a row without them cannot be. */
function emptiedBy({ emptied }: ForeignKey, { fit }: Pair): readonly string[] | null {
  const needed = new Set(fit.live.columns.flatMap(({ name, notNull }) => notNull ? [name] : []));
  return emptied.length === 0 || emptied.some((name) => needed.has(name)) ? null : emptied;
}

async function copySide(deps: PairDeps, pair: Pair): Promise<Pair> {
  const { connection } = deps;
  const sql = copyName(deps, pair);
  await connection.execute(
    `create table ${sql} (like ${pair.side.sql} including indexes); insert into ${sql} select * from ${pair.side.sql};
     ${deletable(sql)}; analyze ${sql}`,
  );
  await closeTable(connection, sql);
  return { ...pair, side: { ...pair.side, sql } };
}

function copyName({ schema }: PairDeps, { place }: Pair): string {
  return quoteQualified(schema, `holdfast coming ${place}`);
}

async function countOf({ connection }: PairDeps, statement: string): Promise<number> {
  const [row] = await connection.query(`with found as (${statement}) select count(*) as n from found`);
  return Number(row?.["n"]);
}
