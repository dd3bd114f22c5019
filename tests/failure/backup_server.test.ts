import { describe, expect, it } from "vitest";
import { useCluster } from "../support/cluster.ts";
import { backup, manifestOf, query, tableIn, textOf, world } from "../integration/backup_fixture.ts";

const cluster = useCluster();

describe("a backup whose server crashes", () => {
  it("goes on when the server is back, in a new snapshot, with what it has read", async () => {
    let crash: Promise<void> | null = null;
    const { deps, url } = await world(cluster(), {
      onLine: (line) => {
        if (line.event === "step:chunk.recorded") crash ??= crashAndStart();
      },
    });
    await query(
      url,
      "create table t (i int, v text); insert into t select i, md5(i::text) from generate_series(1, 60000) as i",
    );
    await query(url, "checkpoint").catch(() => {});
    const row = await backup(deps, { workers: 2, leaseSeconds: 2 });
    expect(crash).not.toBeNull();
    await crash;
    expect(row.status).toBe("succeeded");
    expect(row.attempt).toBe(2);
    const held = await textOf(deps, tableIn(await manifestOf(deps, row), "public", "t"));
    const [oracle] = await query(url, "select string_agg(i || e'\\t' || v || e'\\n', '' order by ctid) as text from t");
    expect(held === oracle?.["text"]).toBe(true);
  });

  async function crashAndStart(): Promise<void> {
    await cluster().kill();
    await cluster().start(cluster().port);
  }
});
