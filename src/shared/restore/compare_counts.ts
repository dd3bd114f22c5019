import { HoldfastError } from "../errors.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { ApplyContext } from "./apply.ts";
import { runInLanes } from "./lanes.ts";
import type { TableLoad } from "./load.ts";
import { checkSignal, restoreFailure } from "./sessions.ts";

/**
 * Whole numbers up to here are exact in `pg_class.reltuples`, a 4-byte float.
 * Source: IEEE 754, 24 bits of significand.
 */
const exactTuples = 2 ** 24;

/**
 * Counts every loaded table in the target, on all lanes. Building an index reads the whole table and notes how many rows
 * it met: where that note of an index without a condition is what the backup says, the table is not read once more.
 * Any other note may be a later estimate, so the rows are counted. `counts_differ` names the tables that hold another number.
 */
export async function compareCounts(context: ApplyContext, loads: readonly TableLoad[]): Promise<void> {
  const counted = await countedByIndexes(context);
  const differing: string[] = [];
  const open = loads.filter((load) => {
    const noted = counted.get(JSON.stringify([load.schema, load.name])) ?? [];
    return load.rows === 0 || load.rows >= exactTuples || !noted.includes(load.rows);
  });
  const steps = open.map((load) => ({ key: load.identity, after: [], locks: new Map(), weight: load.rawBytes, load }));
  await runInLanes(steps, context.sessions.lanes.length, async ({ load }, lane) => {
    checkSignal(context.signal);
    try {
      const [row] = await context.sessions.lane(lane).query(
        `select pg_catalog.count(*)::text as rows from only ${quoteQualified(load.schema, load.name)}`,
      );
      if (row?.["rows"] !== String(load.rows)) {
        differing.push(`${load.identity} holds ${row?.["rows"]} of ${load.rows} rows`);
      }
    } catch (error) {
      throw restoreFailure(error, `count of ${load.identity}`, context.signal);
    }
  });
  if (differing.length > 0) {
    throw new HoldfastError("counts_differ", differing.sort().slice(0, 20).join("; "), {
      hint: "Did something else write to the target meanwhile? Restore into a fresh database.",
    });
  }
}

/** What the valid B-tree indexes without a condition noted, by table. */
async function countedByIndexes(context: ApplyContext): Promise<Map<string, number[]>> {
  const rows = await context.sessions.main.query(
    `select n.nspname as schema, t.relname as name, c.reltuples::float8::text as rows
       from pg_catalog.pg_index i
       join pg_catalog.pg_class c on c.oid = i.indexrelid
       join pg_catalog.pg_class t on t.oid = i.indrelid
       join pg_catalog.pg_namespace n on n.oid = t.relnamespace
       join pg_catalog.pg_am a on a.oid = c.relam
      where i.indisvalid and i.indpred is null and c.relkind = 'i' and a.amname = 'btree' and c.reltuples > 0`,
  );
  const counted = new Map<string, number[]>();
  for (const row of rows) {
    const key = JSON.stringify([row["schema"], row["name"]]);
    counted.set(key, [...(counted.get(key) ?? []), Number(row["rows"])]);
  }
  return counted;
}
