/** What leads from one table to another. That the statements do it is shown against servers; here is what must be refused. */
import { describe, expect, it } from "vitest";
import type { DescribedColumn, DescribedTable } from "../../src/shared/changes/definitions/definition_format.ts";
import {
  droppedAndBack,
  hasSameTexts,
  isSameTable,
  tableDifference,
} from "../../src/shared/changes/definitions/table_difference.ts";

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
    statistics: null,
    comment: null,
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
    major: 17,
    uniqueIndexes: [],
    clusterIndex: null,
    triggers: {},
    rules: {},
    comment: null,
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

  it("drops a column that the same command dropped and added, with what hangs on it", () => {
    const made = table([column("a"), column("B b"), column("c", { isLocal: false })]);
    expect(droppedAndBack(made, made, new Set(['app.t."B b"', "app.t.c", "app.t.gone", "app.u.a"]))).toEqual([
      'alter table app.t drop column "B b" cascade',
    ]);
    expect(droppedAndBack(made, table([column("a")]), new Set(['app.t."B b"']))).toEqual([]);
  });

  it("sees states of triggers and rules that both have, and passes over those that one side lacks", () => {
    const before = table([], { triggers: { one: "O", two: "A", mine: "O" }, rules: { r: "O" } });
    const after = table([], { triggers: { one: "D", two: "O", theirs: "D" }, rules: { r: "R" } });
    expect(tableDifference(before, after, none)).toEqual([
      "alter table app.t disable trigger one",
      "alter table app.t enable trigger two",
      "alter table app.t enable replica rule r",
    ]);
    expect(isSameTable(before, after)).toBe(false);
    expect(isSameTable(before, table([], { triggers: { one: "O", two: "A", theirs: "D" }, rules: { r: "O" } }))).toBe(
      true,
    );
  });

  it("makes a constraint of the index that became it", () => {
    const constraint = (text: string) => ({ constraints: [{ name: "k", text, inherited: false }] });
    const indexes = { uniqueIndexes: [{ name: "other", key: "a" }, { name: '"I"', key: 'a, "b c"' }] };
    const becomes = (text: string, left: string[] = ["other"]) =>
      tableDifference(
        table([], indexes),
        table([], {
          ...constraint(text),
          uniqueIndexes: indexes.uniqueIndexes.filter(({ name }) => left.includes(name)),
        }),
        none,
      );
    expect(becomes('PRIMARY KEY (a, "b c")')).toEqual([
      'alter table app.t add constraint k primary key using index "I"',
    ]);
    expect(becomes('UNIQUE (a, "b c") INCLUDE (x) DEFERRABLE INITIALLY DEFERRED')).toEqual([
      'alter table app.t add constraint k unique using index "I" DEFERRABLE INITIALLY DEFERRED',
    ]);
    expect(becomes("UNIQUE (a)")).toEqual(["alter table app.t add constraint k UNIQUE (a)"]);
  });

  it("has other texts under other settings; of another server's only those that both write alike count", () => {
    const due = (text: string, changes = {}) => table([column("due", { default: text })], changes);
    expect(hasSameTexts(due("'2026-07-01 08:00:00+00'"), due("'2026-07-01 10:00:00+00'"))).toBe(false);
    expect(hasSameTexts(due("'2026-07-01 08:00:00+00'"), due("'2026-07-01 10:00:00+00'", { major: 15 }))).toBe(true);
    const key = (to: string, changes = {}) =>
      table([], {
        constraints: [{ name: "k", text: `FOREIGN KEY (a) REFERENCES ${to}(id)`, inherited: false }],
        ...changes,
      });
    expect(hasSameTexts(key("app.parents"), key("app2.parents", { major: 15 }))).toBe(false);
  });
});
