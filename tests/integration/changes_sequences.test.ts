/** Sequences that come and go while their values are read. */
import { describe, expect, it } from "vitest";
import { readSequenceValues } from "../../src/shared/changes/drain/header_queries.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { useCluster, withClient } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { drainNow, storedChain } from "./changes_stream_fixture.ts";

const cluster = useCluster();

/** Makes and drops sequences without pause until `work` is done. */
async function whileSequencesGo(url: string, work: () => Promise<void>): Promise<number> {
  let rounds = 0;
  let isDone = false;
  const loops = [1, 2].map((session) =>
    withClient(url, async (client) => {
      while (!isDone) {
        const names = Array.from({ length: 20 }, (_, at) => `app.passing_${session}_${at}`);
        for (const name of names) await client.query(`create sequence ${name}`);
        for (const name of names) await client.query(`drop sequence ${name}`);
        rounds++;
      }
    })
  );
  try {
    await work();
  } finally {
    isDone = true;
    await Promise.all(loops);
  }
  return rounds;
}

describe("the values of sequences", () => {
  it("are read although others are dropped in that very moment", async () => {
    const { url, deps } = await world(cluster());
    await query(url, "create schema app; create sequence app.steady; select nextval('app.steady')");
    for (let at = 0; at < 300; at++) await query(url, `create sequence app.many_${at}`);
    const connection = await deps.database.connect("test");
    try {
      const rounds = await whileSequencesGo(url, async () => {
        const end = performance.now() + 10_000;
        while (performance.now() < end) {
          const { sequences: values } = await readSequenceValues(connection);
          expect(values.find((one) => one.name === "steady")).toMatchObject({ lastValue: "1", isCalled: true });
          expect(values.filter((one) => one.name.startsWith("many_"))).toHaveLength(300);
        }
      });
      expect(rounds).toBeGreaterThan(20);
    } finally {
      await connection.close();
    }
  }, 120_000);

  it("that go between the list and the reading let a full backup start over, and do not fail it", async () => {
    const { url, deps } = await world(cluster());
    await query(url, "create schema app; create sequence app.steady; create sequence app.going");
    let drops = 0;
    const racing: Database = {
      label: deps.database.label,
      connect: async (name) => {
        const connection = await deps.database.connect(name);
        const ask = connection.query.bind(connection);
        return Object.assign(connection, {
          query: async (text: string, values?: readonly (string | null)[]) => {
            if (/last_value.* from app\.going/s.test(text) && drops++ === 0) {
              await query(url, "drop sequence app.going");
            }
            return await ask(text, values);
          },
        });
      },
    };
    expect((await backup({ ...deps, database: racing })).status).toBe("succeeded");
    expect(drops).toBe(1);
  }, 60_000);

  it("end no drain", async () => {
    const { url, deps } = await world(cluster());
    await query(url, "create schema app");
    await drainNow(deps);
    await whileSequencesGo(url, async () => {
      for (let drains = 0; drains < 15; drains++) expect(await drainNow(deps)).toMatchObject({ outcome: "caught_up" });
    });
  }, 120_000);

  it("that a user's transaction holds let the drain go on, which names them", async () => {
    const { url, deps } = await world(cluster());
    await query(url, "create schema app; create sequence app.held; create table app.t (id int primary key)");
    await drainNow(deps);
    await backup(deps);
    await withClient(url, async (client) => {
      await client.query("begin; alter sequence app.held restart with 70; insert into app.t values (1)");
      const { outcome, chain } = await drainNow(deps, { idleSeconds: 0, lockMs: 200 });
      expect(outcome).toBe("caught_up");
      const last = (await storedChain(deps, chain ?? "")).at(-1)?.header;
      expect(last?.heldSequences).toEqual([{ schema: "app", name: "held" }]);
      expect(last?.sequences.filter(({ name }) => name === "held")).toEqual([]);
      await client.query("commit");
    });
    const { chain, segments } = await drainNow(deps);
    expect(segments.reduce((sum, one) => sum + one.changes, 0)).toBe(1);
    const last = (await storedChain(deps, chain ?? "")).at(-1)?.header;
    expect(last?.heldSequences).toEqual([]);
    expect(last?.sequences.find(({ name }) => name === "held")).toMatchObject({ lastValue: "70" });
  }, 60_000);
});
