import { describe, expect, it } from "vitest";
import { useCluster } from "../support/cluster.ts";
import { backup, manifestOf, query, tableIn, textOf, world } from "./backup_fixture.ts";

const cluster = useCluster({ version: 17 });

describe("on PostgreSQL 17", () => {
  it("a backup is taken, taken over, yields, and starts over like on 15", async () => {
    let truncated: Promise<unknown> | null = null;
    const { deps, url } = await world(cluster(), {
      onLine: (line) => {
        if (line.event === "step:attempt.planned" && armed) truncated ??= query(url_, "truncate small");
      },
    });
    let armed = false;
    const url_ = url;
    await query(
      url,
      `create table t (i int, v text); insert into t select i, md5(i::text) from generate_series(1, 20000) as i;
       create table small as select 1 as i`,
    );
    const first = await manifestOf(deps, await backup(deps));
    expect(first.server.versionNum).toBeGreaterThanOrEqual(170000);
    const second = tableIn(await manifestOf(deps, await backup(deps)), "public", "t");
    expect(second.chunks.every((chunk) => chunk.takenFrom === first.id)).toBe(true);
    const [row] = await query(url, "select string_agg(i || e'\\t' || v || e'\\n', '' order by ctid) as text from t");
    expect(await textOf(deps, second) === row?.["text"]).toBe(true);
    armed = true;
    const third = await manifestOf(deps, await backup(deps, { workers: 1 }));
    await truncated;
    expect(truncated).not.toBeNull();
    expect(tableIn(third, "public", "t").rows).toBe(20_000);
    // The next snapshot is of a session whose own is gone: 17 says so with another SQLSTATE than 15.
    let ended = false;
    const again = await world(cluster(), {
      url,
      store: deps.store,
      onLine: (line) => {
        if (line.event !== "step:attempt.planned" || ended) return;
        ended = true;
        void query(
          url,
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'holdfast:keeper'",
        );
      },
    });
    await query(url, "update t set v = 'changed' where i % 3 = 0");
    const last = await backup(again.deps, { workers: 1 });
    expect(ended).toBe(true);
    expect(last.attempt).toBe(2);
  });
});
