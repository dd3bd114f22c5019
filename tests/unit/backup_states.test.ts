import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runStates, taskStates } from "../../src/shared/jobs/states.ts";
import { holdfastVersion } from "../../src/shared/backup/deps.ts";

const root = new URL("../../", import.meta.url);
const migrations = new URL("supabase/migrations/", root);
const sql = readdirSync(migrations).sort().map((file) => readFileSync(new URL(file, migrations), "utf8")).join("\n");

/** The names in the check `status_is_known` of a table. */
function statesOf(table: string): string[] {
  const body = sql.slice(sql.indexOf(`create table backup.${table} (`));
  const list = /constraint status_is_known check \(status in \(([^)]*)\)/.exec(body)?.[1] ?? "";
  return [...list.matchAll(/'([a-z]+)'/g)].map((found) => found[1] ?? "");
}

/** The text of one SQL function. */
function functionText(name: string): string {
  const start = sql.indexOf(`create function backup.${name}(`);
  return start < 0 ? "" : sql.slice(start, sql.indexOf("\n$$;", start));
}

describe("the states in states.ts", () => {
  it("are those that the tables allow", () => {
    expect(Object.keys(runStates).sort()).toEqual(statesOf("runs").sort());
    expect(Object.keys(taskStates).sort()).toEqual(statesOf("tasks").sort());
  });

  it("name SQL functions that there are", () => {
    for (const facts of [...Object.values(runStates), ...Object.values(taskStates)]) {
      for (const name of facts.setBy) expect(functionText(name), name).not.toBe("");
    }
  });
});

it("a manifest carries the version of package.json", () => {
  const { version } = JSON.parse(readFileSync(new URL("package.json", root), "utf8")) as { version: string };
  expect(holdfastVersion).toBe(version);
});
