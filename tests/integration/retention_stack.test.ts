/** The cron job's call on a whole project: verified first, then pruned and swept by the function, in legs, in Supabase Storage. */
import { describe, expect, it } from "vitest";
import type { Store } from "../../src/shared/store/store.ts";
import { eventually, runMs, useProject } from "../support/stack.ts";

const project = useProject({}, async ({ query }) => {
  await query("create table public.notes (id int primary key, t text not null)");
  await query("insert into public.notes select i, repeat(md5(i::text), 8) from generate_series(1, 4000) as i");
});

async function names(store: Store, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of store.list(prefix)) found.push(name);
  return found.sort();
}

/** As if so many days had gone by since. */
async function age(run: string, days: number): Promise<void> {
  await project().query(
    `update backup.runs set created_at = created_at - $2 * interval '1 day', started_at = started_at - $2 * interval '1 day',
       finished_at = finished_at - $2 * interval '1 day', consistent_at = consistent_at - $2 * interval '1 day',
       heartbeat_at = heartbeat_at - $2 * interval '1 day' where id = $1`,
    [run, days],
  );
}

/** The run of this kind that came last, once the cron job's call has made one and it has ended. */
async function called(kind: string, after: number): Promise<string> {
  return await eventually(`a run of kind ${kind}`, async () => {
    await project().query("select backup.call_retention()");
    const rows = await project().query("select id from backup.runs where kind = $1 order by created_at", [kind]);
    return rows.length > after ? String(rows.at(-1)?.["id"]) : null;
  });
}

describe("the function retention", () => {
  it("removes what the policy does not keep, and two days later what nothing names any more", async () => {
    const { query, readDeps, startBackup, ended } = project();
    const { store } = await readDeps();
    await query("update backup.settings set value = '1' where name = 'keep_at_least'");
    const taken: string[] = [];
    for (let n = 0; n < 3; n++) {
      await query("update public.notes set t = md5(t) || $1", [String(n)]);
      const { run } = await startBackup();
      expect(await ended(run)).toMatchObject({ status: "succeeded" });
      taken.push(run);
    }
    await age(taken[0] ?? "", 200);
    await age(taken[1] ?? "", 20);
    const before = await names(store, "v1/objects/");
    // The newest was never verified: that is ordered first.
    await ended(await called("verify", 0));
    const run = await called("prune", 0);
    expect(await ended(run), await project().story(run)).toMatchObject({ status: "succeeded" });
    expect(await query("select warnings from backup.runs where id = $1", [run])).toEqual([{ warnings: [] }]);
    expect(await project().run(taken[0] ?? "")).toMatchObject({ status: "pruned" });
    expect((await names(store, "v1/backups/")).length).toBe(2);
    expect(await names(store, "v1/objects/")).toEqual(before);
    // Once a day is enough.
    expect(await query("select backup.call_retention() as call")).toEqual([{ call: null }]);
    await query(
      `update backup.condemned set condemned_at = condemned_at - interval '3 days';
       update backup.runs set created_at = created_at - interval '1 day', started_at = started_at - interval '1 day',
         finished_at = finished_at - interval '1 day' where kind = 'prune'`,
    );
    const second = await called("prune", 1);
    expect(await ended(second), await project().story(second)).toMatchObject({ status: "succeeded" });
    const after = await names(store, "v1/objects/");
    expect(after.length).toBeLessThan(before.length);
    for (const id of taken.slice(1)) expect((await project().verify(id)).problems).toEqual([]);
  }, 5 * runMs);
});
