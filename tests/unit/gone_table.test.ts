/** A table that was dropped: what is made again with it, in which order, and what it is refused for. Captures are written by hand. */
import { describe, expect, it } from "vitest";
import { planGoneTable } from "../../src/shared/restore/in_place/plan/plan_gone_table.ts";
import type { Definition, SchemaCapture } from "../../src/shared/schema/capture_format.ts";

function definition(kind: string, name: string, more: Partial<Definition> = {}): Definition {
  return {
    identity: `${kind} public.${name}`,
    kind,
    section: "pre-data",
    schema: "public",
    name,
    owner: "postgres",
    statements: [`make ${kind} ${name}`],
    ownership: [],
    privileges: [],
    dependsOn: [],
    platform: null,
    held: null,
    release: [],
    table: null,
    ...more,
  };
}

const on = (table: string, ...others: string[]) => ({
  table: `table public.${table}`,
  dependsOn: [`table public.${table}`, ...others],
});

function capture(definitions: readonly Definition[], sequences: SchemaCapture["sequences"] = []): SchemaCapture {
  return {
    format: 1,
    server: {
      versionNum: 150020,
      encoding: "UTF8",
      collate: "C",
      ctype: "C",
      localeProvider: "c",
      icuLocale: null,
      database: "d",
    },
    definitions: [...definitions],
    tables: [],
    sequences: [...sequences],
    extensions: [],
    notCaptured: [],
    warnings: [],
  };
}

const sequence = (name: string, ownedBy: string | null) => ({
  identity: `sequence public.${name}`,
  schema: "public",
  name,
  ownedBy,
  dataOwner: "user",
  restoreData: true,
  lastValue: "9",
  isCalled: true,
  setValueSql: `set value of ${name}`,
});

const postData = { section: "post-data" } as const;
const parent = definition("table", "parent");
const other = definition("table", "other");
const mood = definition("enum", "mood");
const gone = [
  definition("sequence", "gone_id"),
  definition("table", "gone", { dependsOn: ["enum public.mood"] }),
  definition("sequence ownership", "gone_id", on("gone", "sequence public.gone_id")),
  definition("default", "gone.id", on("gone", "sequence public.gone_id")),
  definition("index", "gone_index", { ...postData, ...on("gone") }),
  definition("foreign key", "up", { ...postData, ...on("gone", "table public.parent") }),
  definition("foreign key", "down", { ...postData, ...on("other", "table public.gone") }),
  definition("trigger", "stamped", { ...postData, ...on("gone") }),
  definition("row security", "gone", { ...postData, ...on("gone") }),
  definition("policy", "own", { ...postData, ...on("gone") }),
];
const view = definition("view", "seen", { dependsOn: ["table public.gone"] });
const stranger = definition("table", "stranger");
const was = capture([mood, parent, other, ...gone, view, stranger], [
  sequence("gone_id", "public.gone.id"),
  sequence("gone_no", "public.gone.no"),
  sequence("free", null),
  sequence("gone_too", "public.gone_too.id"),
]);
const is = capture([mood, parent, other]);
const me = { user: "postgres", superuser: false, reachable: new Set(["postgres"]) };
const table = { schema: "public", name: "gone" };

describe("a table that was dropped", () => {
  it("is made with all that hung on it, and a key of another table; what else is gone stays gone", () => {
    const plan = planGoneTable(was, is, table, me);
    expect([...plan.makes].sort()).toEqual(gone.map(({ identity }) => identity).sort());
    const said = [...plan.before, ...plan.after].filter((one) => one.startsWith("make "));
    expect([...said].sort()).toEqual(gone.flatMap(({ statements }) => statements).sort());
    expect(plan.notes).toEqual(["view public.seen used it, is gone too, and does not come back with it"]);
  });

  it("has its rows before keys, triggers and policies, and its sequences where they were", () => {
    const { before, after } = planGoneTable(was, is, table, me);
    expect(before).toEqual(
      expect.arrayContaining(["make sequence gone_id", "make table gone", "make default gone.id"]),
    );
    for (const late of ["index gone_index", "foreign key up", "foreign key down", "trigger stamped", "policy own"]) {
      expect(after).toContain(`make ${late}`);
    }
    expect(after.filter((one) => one.startsWith("set value"))).toEqual([
      "set value of gone_id",
      "set value of gone_no",
    ]);
  });

  it.each([
    ["a type", [parent, other], "table public.gone needs enum public.mood, which is gone too"],
    [
      "the table that its key points to",
      [mood, other],
      "foreign key public.up needs table public.parent, which is gone too",
    ],
  ])("is refused where %s is gone as well", (_, left, message) => {
    expect(() => planGoneTable(was, capture(left), table, me)).toThrow(
      expect.objectContaining({ code: "definitions_stuck", message }),
    );
  });

  it("is refused where it is there, and where it never was", () => {
    expect(() => planGoneTable(was, was, table, me)).toThrow(expect.objectContaining({ code: "definitions_stuck" }));
    expect(() => planGoneTable(is, is, table, me)).toThrow(expect.objectContaining({ code: "table_not_found" }));
  });

  it("comes without the key of another table that is gone as well", () => {
    const left = capture([mood, parent]);
    expect(planGoneTable(was, left, table, me).makes).not.toContain("foreign key public.down");
  });

  it("is refused where a key of somebody else's table would have to be made", () => {
    const theirs = { ...other, owner: "somebody" };
    expect(() => planGoneTable(capture([mood, parent, theirs, ...gone]), capture([mood, parent, theirs]), table, me))
      .toThrow(expect.objectContaining({ code: "definitions_stuck" }));
  });

  it("brings its partitions, and as a partition is attached again", () => {
    const leaf = definition("table", "leaf");
    const attached = definition("partition", "leaf of whole", on("leaf", "table public.whole"));
    const whole = definition("table", "whole");
    const all = capture([whole, leaf, attached]);
    const names = (plan: { makes: readonly string[] }) => [...plan.makes].sort();
    const made = ["partition public.leaf of whole", "table public.leaf", "table public.whole"];
    expect(names(planGoneTable(all, capture([]), { schema: "public", name: "whole" }, me))).toEqual(made);
    expect(names(planGoneTable(all, capture([whole]), { schema: "public", name: "leaf" }, me))).toEqual(
      made.slice(0, 2),
    );
  });
});
