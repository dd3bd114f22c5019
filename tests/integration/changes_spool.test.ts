/** The spool of transactions that are larger than a leg. */
import { expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { drain } from "../../src/shared/changes/drain/drain.ts";
import { useCluster } from "../support/cluster.ts";
import { query, world } from "./backup_fixture.ts";

const cluster = useCluster();

it("a large transaction is spooled once, also where the log still holds how the spool was emptied before it", async () => {
  const spooled: string[] = [];
  const { url, deps } = await world(cluster(), {
    onLine: ({ event }) => void (event === "step:drain.spooled" && spooled.push(event)),
  });
  const run = () =>
    drain(deps, {
      worker: "test",
      budget: unlimited,
      limits: { segmentBytes: 64 * 1024, peekChanges: 1000 },
      signal: AbortSignal.timeout(30_000),
    });
  await query(url, "create table public.notes (id int primary key, t text)");
  await run();
  // As the end of a large transaction leaves it while others commit: emptied, at a place of the log that is still to be read.
  await query(url, "truncate backup.spool");
  await query(url, "insert into public.notes select i, md5(i::text) from generate_series(1, 4000) as i");
  const { outcome, segments } = await run();
  expect(spooled).toHaveLength(1);
  expect(outcome).toBe("caught_up");
  expect(segments.reduce((sum, segment) => sum + segment.changes, 0)).toBe(4000);
});
