/** Whose files are copied: by what the settings name. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

describe("the buckets whose files are copied", () => {
  it.each([
    ["", "", ["one", "two", "two words"], []],
    ["", "one", ["two", "two words"], ["one"]],
    ["", " two words ,one, none ", ["two"], ["one", "two words"]],
    ["two", "", ["two"], ["one", "two words"]],
    ["two words , one", "", ["one", "two words"], ["two"]],
    ["one,two", "two", ["one"], ["two", "two words"]],
    ["none", "", [], ["one", "two", "two words"]],
  ])("named %j, left out %j: are %j, and %j is said to be left out", async (named, leftOut, copied, left) => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `insert into storage.buckets (id, name) select b, b
         from unnest(array['one', 'two', 'two words', 'data-exports'] || backup.own_buckets()) as b
         on conflict (id) do nothing`,
      );
      await postgres.query("update backup.settings set value = $1 where name = 'file_buckets'", [named]);
      await postgres.query("update backup.settings set value = $1 where name = 'file_buckets_left_out'", [leftOut]);
      const told = await scalar(postgres, "select to_jsonb(b) from backup.file_buckets() as b");
      expect(JSON.parse(told ?? "")).toEqual({ copied, left_out: left });
    });
  });
});
