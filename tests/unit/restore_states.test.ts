import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { restoreStates } from "../../src/shared/jobs/restore_states.ts";

const migration = new URL("../../supabase/migrations/20261121120010_holdfast_restores.sql", import.meta.url);
const sql = readFileSync(migration, "utf8");
const table = sql.slice(sql.indexOf("create table backup.restores ("));

function namesIn(constraint: string): string[] {
  const list = new RegExp(`constraint ${constraint} check \\((?:[^;]*?) in \\(([^)]*)\\)`).exec(table)?.[1] ?? "";
  return [...list.matchAll(/'([a-z_]+)'/g)].map((found) => found[1] ?? "").sort();
}

describe("the states of a restore", () => {
  it("are those that the table allows; the final ones are those that say when they ended", () => {
    expect(Object.keys(restoreStates).sort()).toEqual(namesIn("status_is_known"));
    const final = Object.entries(restoreStates).filter(([, facts]) => facts.final).map(([name]) => name).sort();
    expect(
      /constraint ended_restore_says_when check \(\s*\(status in \(([^)]*)\)/.exec(table)?.[1]?.match(/[a-z]+/g)
        ?.sort(),
    )
      .toEqual(final);
    expect(namesIn("stage_is_known")).toEqual(
      Object.entries(restoreStates).filter(([, facts]) => !facts.final).map(([name]) => name).sort(),
    );
  });

  it("name SQL functions that there are", () => {
    const folder = new URL(".", migration);
    const all = readdirSync(folder).map((name) => readFileSync(new URL(name, folder), "utf8")).join("\n");
    for (const { setBy } of Object.values(restoreStates)) {
      for (const name of setBy) expect(all, name).toContain(`create function backup.${name}(`);
    }
  });
});
