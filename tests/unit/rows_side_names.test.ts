import { expect, it } from "vitest";
import type { PastTable } from "../../src/shared/rows/past/past.ts";
import { sideNames } from "../../src/shared/rows/beside/side_tables.ts";

const table = (schema: string, name: string): PastTable => ({
  schema,
  name,
  oid: "0",
  columns: [],
  key: null,
  dataOwner: "user",
  rows: 0,
  rawBytes: 0,
});

const namesOf = (...tables: readonly PastTable[]) => {
  const names = sideNames(tables);
  return tables.map((one) => names.get(one) ?? "");
};

it("tables keep their names, and have their schema before it where two have the same", () => {
  expect(namesOf(table("a", "notes"), table("a", "users"), table("b", "users"))).toEqual([
    "notes",
    "a.users",
    "b.users",
  ]);
});

it("no two names are the same, even where a table is called like another with its schema", () => {
  const names = namesOf(table("c", "a.users"), table("a", "users"), table("b", "users"));
  expect(names[0]).toBe("a.users");
  expect(new Set(names).size).toBe(3);
});

it("no name is longer than the server keeps, and those that are cut stay apart", () => {
  const long = (letter: string) => letter.repeat(40);
  const names = namesOf(
    table(long("ü").slice(0, 31), "t".repeat(40)),
    table(`${"ü".repeat(30)}v`, "t".repeat(40)),
    table(long("😀").slice(0, 30), "t".repeat(40)),
  );
  expect(new Set(names).size).toBe(3);
  for (const name of names) expect(new TextEncoder().encode(name).byteLength).toBeLessThanOrEqual(63);
});
