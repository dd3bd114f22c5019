/** The change stream through the function, under the hosted limits: one chain, one full for it, segments by the minute. */
import { describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { freshDatabase, query } from "../support/cluster.ts";
import { isLong } from "../support/sampled.ts";
import { runMs, useProject } from "../support/stack.ts";
import { until } from "./backup_fixture.ts";

const project = useProject({}, async (made) => {
  await made.query(
    `create table public.letters (id int primary key, body text);
     insert into public.letters select i, md5(i::text) from generate_series(1, 5000) as i`,
  );
});

/** Asks for a drain and waits until the function has come to the end of the stream. */
async function drained(): Promise<void> {
  const deadline = performance.now() + runMs;
  const { query } = project();
  const [before] = await query("select clock_timestamp() as at");
  await query("select backup.call_drain()");
  for (;;) {
    const [row] = await query("select drained_at > $1 as yes, failure from backup.drain", [before?.["at"]]);
    if (row?.["failure"] !== null) throw new Error(String(row?.["failure"]));
    if (row?.["yes"] === true) return;
    if (performance.now() > deadline) {
      const [calls, segments, alerts] = [
        await query("select status, answer from backup.calls order by made_at desc limit 5"),
        await query("select part, changes, ends_in_transaction, spool_position from backup.segments"),
        await query("select kind, message from backup.alerts"),
      ];
      throw new Error(`never drained: ${JSON.stringify({ calls, segments, alerts })}`);
    }
    await systemClock.sleep(25);
  }
}

describe("the function", () => {
  it("begins a chain, has a full backup taken for it, and stores what is committed after that", async () => {
    const { query: ask, ended } = project();
    await drained();
    const [chain] = await ask("select id from backup.chains where ended_at is null");
    const full = await until("the chain's full backup", async () => {
      const [run] = await ask("select run_id from backup.run_requests where request_key like $1", [
        `chain:${chain?.["id"]}:%`,
      ]);
      return run === undefined ? null : String(run["run_id"]);
    });
    expect(await ended(full)).toMatchObject({ status: "succeeded" });
    const [run] = await ask("select chain_id from backup.runs where id = $1", [full]);
    expect(run?.["chain_id"]).toBe(chain?.["id"]);

    await ask("update public.letters set body = 'changed' where id % 5 = 0");
    await drained();
    const [letters] = await ask("select md5(string_agg(l::text, ',' order by id)) as hash from public.letters as l");
    await ask("delete from public.letters");
    await drained();

    const { stack, readDeps } = project();
    const name = await freshDatabase(stack.cluster, { platform: false });
    const url = stack.cluster.plainUrl(stack.cluster.superuser, name);
    const deps = { ...await readDeps(), target: openDatabase({ url }), clock: systemClock, log: silentLog };
    const [segment] = await ask(
      "select end_lsn::text as lsn from backup.segments where changes >= 1000 order by end_lsn limit 1",
    );
    const plan = await planPoint(deps, { by: "lsn", lsn: parseLsn(String(segment?.["lsn"])) });
    expect(await restorePoint(deps, plan)).toMatchObject({ ok: true, deleted: 0 });
    const [restored] = await query(
      url,
      "select md5(string_agg(l::text, ',' order by id)) as hash from public.letters as l",
    );
    expect(restored).toEqual(letters);
  }, runMs * 3);

  it("has another full backup taken at once when the slot is gone", async () => {
    const { query: ask, ended } = project();
    await ask(
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
    );
    await drained();
    const [chain] = await ask("select id from backup.chains where ended_at is null");
    expect(await ask("select chain_id <> $1 as another, reason from backup.gaps", [chain?.["id"]]))
      .toEqual([{ another: true, reason: "the slot is gone" }]);
    const full = await until("the new chain's full backup", async () => {
      const [run] = await ask("select run_id from backup.run_requests where request_key like $1", [
        `chain:${chain?.["id"]}:%`,
      ]);
      return run === undefined ? null : String(run["run_id"]);
    });
    expect(await ended(full)).toMatchObject({ status: "succeeded" });
    expect(await ask("select chain_id from backup.runs where id = $1", [full])).toEqual([{ chain_id: chain?.["id"] }]);
  }, runMs * 2);

  it("needs less than a leg may use", async () => {
    const legs = (await project().isolates()).flatMap((isolate) => isolate.uses);
    expect(Math.max(...legs.map((leg) => leg.cpuMs))).toBeLessThan(1_000);
    expect(Math.max(...legs.map((leg) => leg.peakBytes))).toBeLessThan(230e6);
  });

  const many = isLong ? 1_000_000 : 300_000;
  it(`drains a transaction of ${many} rows over several legs`, async () => {
    const { query: ask } = project();
    await ask(`insert into public.letters select i, repeat(md5(i::text), 4) from generate_series(1, ${many}) as i`);
    await drained();
    const [stored] = await ask(
      "select sum(changes) as changes, count(*) > 1 as parts from backup.segments where part > 0 or ends_in_transaction",
    );
    expect(stored).toEqual({ changes: String(many), parts: true });
    const isolates = (await project().isolates()).filter((isolate) => isolate.function === "backup");
    expect(isolates.filter((isolate) => isolate.endedBy === "cpu" || isolate.endedBy === "memory")).toEqual([]);
  }, runMs * 3);
});
