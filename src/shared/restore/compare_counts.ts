import { HoldfastError } from "../errors.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { ApplyContext } from "./apply.ts";
import { runInLanes } from "./lanes.ts";
import type { TableLoad } from "./load.ts";
import { checkSignal, restoreFailure } from "./sessions.ts";

/** Counts every loaded table in the target, on all lanes. `counts_differ` names the tables that hold another number. */
export async function compareCounts(context: ApplyContext, loads: readonly TableLoad[]): Promise<void> {
  const differing: string[] = [];
  const steps = loads.map((load) => ({
    key: load.identity,
    after: [],
    locks: new Map(),
    weight: load.rawBytes,
    load,
  }));
  await runInLanes(steps, context.sessions.lanes.length, async ({ load }, lane) => {
    checkSignal(context.signal);
    try {
      const filter = load.rowFilter === null ? "" : ` where ${load.rowFilter}`;
      const [row] = await context.sessions.lane(lane).query(
        `select pg_catalog.count(*)::text as rows from only ${quoteQualified(load.schema, load.name)}${filter}`,
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
