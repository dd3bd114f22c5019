import { HoldfastError } from "../errors.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { ApplyContext } from "./apply.ts";
import { runInLanes } from "./lanes.ts";
import type { TableLoad } from "./load.ts";
import { markStep } from "./state.ts";
import { checkSignal, restoreFailure } from "./sessions.ts";

/** Of the marker of a table that was counted. */
export const countKey = (load: Pick<TableLoad, "identity">): string => `count ${load.identity}`;

/**
 * Counts every loaded table in the target, on all lanes; those that an earlier call has counted are not counted again.
 * `counts_differ` names the tables that hold another number.
 */
export async function compareCounts(context: ApplyContext, loads: readonly TableLoad[]): Promise<void> {
  const differing: string[] = [];
  const steps = loads.filter((load) => !context.done.has(countKey(load))).map((load) => ({
    key: countKey(load),
    after: [],
    locks: new Map(),
    weight: load.rawBytes,
    load,
  }));
  await runInLanes(steps, context.sessions.lanes.length, async ({ key, load }, lane) => {
    checkSignal(context.signal);
    try {
      const filter = load.rowFilter === null ? "" : ` where ${load.rowFilter}`;
      const [row] = await context.sessions.lane(lane).query(
        `select pg_catalog.count(*)::text as rows from only ${quoteQualified(load.schema, load.name)}${filter}`,
      );
      if (row?.["rows"] !== String(load.rows)) {
        differing.push(`${load.identity} holds ${row?.["rows"]} of ${load.rows} rows`);
        return;
      }
      await context.sessions.lane(lane).execute(markStep(key));
    } catch (error) {
      throw restoreFailure(error, `count of ${load.identity}`, context.signal);
    }
    context.done.add(key);
    context.onStep(key);
  });
  if (differing.length > 0) {
    throw new HoldfastError("counts_differ", differing.sort().slice(0, 20).join("; "), {
      hint: "Did something else write to the target meanwhile? Restore into a fresh database.",
    });
  }
}
