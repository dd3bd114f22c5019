/** What a drain does while users drop what it is just reading. */
import { expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { drain, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { useCluster, withClient } from "../support/cluster.ts";
import { eventually } from "../support/stack.ts";
import { query, world } from "./backup_fixture.ts";

const cluster = useCluster();

it("a drain that waits for a sequence which is then dropped stores its segment without it", async () => {
  const { url, deps } = await world(cluster());
  const run = () => drain(deps, { worker: "test", budget: unlimited, limits: processDrainLimits, idleSeconds: 0 });
  await query(url, "create table public.kept (id bigserial primary key)");
  await query(url, "create table public.going (id int generated always as identity primary key)");
  await run();
  await query(url, "insert into public.kept default values");
  await withClient(url, async (user) => {
    await user.query("begin; drop table public.going");
    const drained = run();
    drained.catch(() => {});
    await eventually("the drain waits for the sequence", async () => {
      const waiting = await query(
        url,
        "select from pg_locks where not granted and relation = 'public.going_id_seq'::regclass",
      );
      return waiting.length > 0 ? true : null;
    });
    await user.query("commit");
    await expect(drained).resolves.toMatchObject({ outcome: "caught_up", segments: [{ transactions: 1, changes: 1 }] });
  });
});
