/** What leads from one table to another. That the statements do it is shown against servers; here is what must be refused. */
import { describe, expect, it } from "vitest";
import type { DescribedColumn, DescribedTable } from "../../src/shared/changes/definitions/definition_format.ts";
import { isSameTable, tableDifference } from "../../src/shared/changes/definitions/table_difference.ts";

function column(name: string, changes: Partial<DescribedColumn> = {}): DescribedColumn {
  return {
    name,
    type: "text",
    collation: null,
    notNull: false,
    generated: "",
    default: null,
    isLocal: true,
    storage: null,
    compression: null,
    identity: null,
    ...changes,
  };
}

function table(columns: readonly DescribedColumn[], changes: Partial<DescribedTable> = {}): DescribedTable {
  return {
    name: "app.t",
    schema: "app",
    bareName: "t",
    kind: "r",
    persistence: "p",
    owner: "postgres",
    partitionKey: null,
    bound: null,
    parents: [],
    partitions: null,
    options: [],
    rowSecurity: false,
    forceRowSecurity: false,
    replicaIdentity: "d",
    replicaIndex: null,
    columns: [...columns],
    constraints: [],
    ...changes,
  };
}

const none = { dropped: new Set<string>(), renamed: null };
const refused = expect.objectContaining({ code: "ddl_not_replayable" });

describe("the difference of two tables", () => {
  it("is nothing between equal ones", () => {
    const made = table([column("a", { notNull: true }), column("b", { default: "'x'::text" })]);
    expect(tableDifference(made, made, none)).toEqual([]);
    expect(isSameTable(made, made)).toBe(true);
  });

  it("never drops a column that nobody dropped: it may have another name now", () => {
    const before = table([column("a"), column("b")]);
    const after = table([column("a"), column("c")]);
    expect(() => tableDifference(before, after, none)).toThrow(refused);
    expect(() => tableDifference(before, after, { dropped: new Set(["app.t.a"]), renamed: null })).toThrow(refused);
    expect(tableDifference(before, after, { dropped: new Set(["app.t.b"]), renamed: null })).toEqual([
      "alter table app.t drop column b cascade",
      "alter table app.t add column c text",
    ]);
    expect(tableDifference(before, after, { dropped: new Set(), renamed: "c" })).toEqual([
      "alter table app.t rename column b to c",
    ]);
  });

  it("is refused where another expression or kind would have to be guessed", () => {
    const generated = (text: string) => table([column("a", { generated: "s", default: text })]);
    expect(() => tableDifference(generated("1"), generated("2"), none)).toThrow(refused);
    expect(() => tableDifference(table([column("a")]), generated("1"), none)).toThrow(refused);
    expect(() => tableDifference(table([]), table([], { kind: "p", partitionKey: "LIST (a)" }), none)).toThrow(refused);
  });

  it("replaces a constraint whose text changed, and leaves one whose column has another name", () => {
    const checked = (name: string, text: string) =>
      table([column(name)], { constraints: [{ name: "k", text, inherited: false }] });
    expect(tableDifference(checked("a", "CHECK (a > 1)"), checked("a", "CHECK (a > 2)"), none)).toEqual([
      "alter table app.t drop constraint if exists k",
      "alter table app.t add constraint k CHECK (a > 2)",
    ]);
    expect(tableDifference(checked("a", "CHECK (a > 1)"), checked("b", "CHECK (b > 1)"), { ...none, renamed: "b" }))
      .toEqual(["alter table app.t rename column a to b"]);
  });

  it("is seen in every part that a row depends on", () => {
    const made = table([column("a")]);
    for (
      const other of [
        table([column("b")]),
        table([column("a", { type: "integer" })]),
        table([column("a", { notNull: true })]),
        table([column("a", { default: "1" })]),
        table([column("a")], { rowSecurity: true }),
        table([column("a")], { constraints: [{ name: "k", text: "CHECK (true)", inherited: false }] }),
        table([column("a")], { options: ["fillfactor=10"] }),
      ]
    ) expect(isSameTable(made, other)).toBe(false);
  });
});
