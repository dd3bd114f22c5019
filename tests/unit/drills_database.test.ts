/** What a drill drops, and what it never does, whatever is written in its row. */
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { drillDatabaseName, dropDrillDatabase, sweepDrillDatabases } from "../../src/shared/drills/database.ts";
import type { DrillServer } from "../../src/shared/drills/deps.ts";
import { silentLog } from "../../src/shared/log.ts";
import type { Connection, Row } from "../../src/shared/postgres/connection.ts";

const install = "0badcafe-0000-4000-8000-000000000000";
const nameOf = (drill: string) => drillDatabaseName(install, drill, new Date(0));
const [mine, others, left] = ["11111111-", "22222222-", "33333333-"].map(nameOf);

function connection(query: (text: string) => Row[], execute: (text: string) => void = () => {}): Connection {
  return {
    processId: 1,
    serverVersion: 150000,
    query: (text) => Promise.resolve(query(text)),
    execute: (text) => Promise.resolve(execute(text)),
    copyOut: () => Promise.reject(new Error("no rows")),
    copyIn: () => Promise.reject(new Error("no rows")),
    close: () => Promise.resolve(),
  };
}

/** `there`: names of its databases. */
function server(there: readonly string[], dropped: string[]): DrillServer {
  const session = connection(
    () => there.map((name) => ({ name })),
    (text) => {
      const [, name] = /^drop database if exists (\S+)/.exec(text) ?? [];
      if (name !== undefined) dropped.push(name);
    },
  );
  const database = { label: "test", connect: () => Promise.resolve(session) };
  return { database, inDatabase: () => database, isOwn: false };
}

describe("dropping the database of a drill", () => {
  it.each(["postgres", "", 'x"; drop database postgres', "my_holdfast_drill_1"])(
    "is not done to one that is called %j",
    async (name) => {
      const dropped: string[] = [];
      const deps = { clock: systemClock, log: silentLog, server: server([], dropped) };
      expect(await dropDrillDatabase(deps, name)).toBe(false);
      expect(dropped).toEqual([]);
      expect(await dropDrillDatabase(deps, mine ?? "")).toBe(true);
      expect(dropped).toEqual([mine]);
    },
  );
});

describe("sweeping the databases of drills", () => {
  const swept = async (original: boolean): Promise<string[]> => {
    const dropped: string[] = [];
    const own = connection((text) => {
      if (text.includes("is_original")) return [{ original: original ? "t" : "f" }];
      if (text.includes("left_drill_databases")) return [{ drill: "33333333-", database_name: left ?? "" }];
      return text.includes("finished_at is null") ? [{ database_name: mine ?? "" }] : [];
    });
    const there = [mine, others, left].map((name) => name ?? "");
    const deps = { clock: systemClock, log: silentLog, server: server(there, dropped), connection: own };
    expect(await sweepDrillDatabases(deps, install)).toEqual(dropped);
    return dropped;
  };

  it("takes what this installation left, and nothing of a drill that is under way", async () => {
    expect(await swept(true)).toEqual([others, left]);
  });

  it("takes in a copy of the project what the copy knows of: the rest may be the original's, which is at it", async () => {
    expect(await swept(false)).toEqual([left]);
  });
});
