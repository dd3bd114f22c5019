import { describe, expect, it } from "vitest";
import { loosenPolicy } from "../../src/shared/restore/in_place/plan/policy_changes.ts";
import { planDefinitionChanges } from "../../src/shared/restore/in_place/plan/plan_definition_changes.ts";
import { privilegeChanges } from "../../src/shared/restore/in_place/plan/privilege_changes.ts";
import { remarkChanges } from "../../src/shared/restore/in_place/texts/remark_changes.ts";
import {
  mentions,
  replaceColumn,
  replaceOwner,
  replaceQualified,
  splitAtCommas,
} from "../../src/shared/restore/in_place/texts/sql_text.ts";
import { tableChanges } from "../../src/shared/restore/in_place/texts/table_changes.ts";
import { parseTable, type TableText } from "../../src/shared/restore/in_place/texts/table_text.ts";
import type { Definition, SchemaCapture } from "../../src/shared/schema/capture_format.ts";

const odd = `create unlogged table "A b"."t,(" (
    id integer not null,
    "x, y" text collate pg_catalog."C" default 'a,
    b'::text not null,
    "default" timestamp(3) with time zone default E'\\\\ ''it'::text,
    n numeric(10,2) generated always as ((id * 2)) stored,
    constraint "c,1" CHECK ((("x, y" <> ')'::text) AND (id > 0)))
) partition by RANGE (id, lower("x, y")) with (fillfactor = 70, toast.autovacuum_enabled = 'false')`;

function parsed(text: string, ...rest: string[]): TableText {
  const table = parseTable([text, ...rest]);
  if (table === null) throw new Error(`not parsed: ${text}`);
  return table;
}

const changesOf = (was: string, is: string) => tableChanges(parsed(was), parsed(is), false);
const texts = (list: readonly { readonly text: string }[]) => list.map((each) => each.text);

describe("CREATE TABLE of a capture", () => {
  it("is taken apart, whatever stands in its names and constants", () => {
    const table = parsed(odd);
    expect(table.columns.map(({ name, type, notNull }) => [name, type, notNull])).toEqual([
      ["id", "integer", true],
      ['"x, y"', "text", true],
      ['"default"', "timestamp(3) with time zone", false],
      ["n", "numeric(10,2)", false],
    ]);
    expect(table.columns[1]?.default).toBe("'a,\n    b'::text");
    expect(table.columns[3]?.generated).toBe("((id * 2)) stored");
    expect(table.checks).toEqual([{ name: '"c,1"', text: `CHECK ((("x, y" <> ')'::text) AND (id > 0)))` }]);
    expect([table.partitionBy, table.options]).toEqual([
      'RANGE (id, lower("x, y"))',
      ["fillfactor = 70", "toast.autovacuum_enabled = 'false'"],
    ]);
  });

  it("is left alone where reading and writing do not give the same text", () => {
    for (
      const text of [
        "create table a.b of a.c",
        "create table a.b (c text)",
        "create table a.b (\n    id integer primary key\n) tablespace x",
        "create foreign table a.b () server s",
      ]
    ) {
      expect(parseTable([text])).toBeNull();
    }
  });
});

describe("a table that differs", () => {
  it("gets NOT NULL and checks only once its rows are back", () => {
    const { before, after } = changesOf(
      "create table a.t (\n    b text not null,\n    constraint k CHECK ((b <> ''::text))\n)",
      "create table a.t (\n    b text\n)",
    );
    expect(texts(before)).toEqual([]);
    expect(texts(after)).toEqual([
      "alter table a.t alter column b set not null",
      "alter table a.t add constraint k CHECK ((b <> ''::text))",
    ]);
  });

  it("takes its default off before a type is changed, and gets it after", () => {
    const { convert, retyped } = changesOf(
      "create table a.t (\n    b integer default 1\n)",
      "create table a.t (\n    b text default 'x'::text\n)",
    );
    expect(texts(convert)).toEqual([
      "alter table only a.t alter column b drop default",
      "alter table a.t alter column b type integer using b::text::integer",
      "alter table only a.t alter column b set default 1",
    ]);
    expect([...retyped]).toEqual(["b"]);
  });

  it("makes a generated column again where what it is computed from changes its type", () => {
    const { before, convert, remade } = changesOf(
      "create table a.t (\n    b integer,\n    c integer generated always as ((b * 2)) stored\n)",
      "create table a.t (\n    b bigint,\n    c integer generated always as ((b * 2)) stored\n)",
    );
    expect([...remade]).toEqual(["c"]);
    expect(texts(before)).toEqual(["alter table a.t drop column c"]);
    expect(texts(convert)).toEqual([
      "alter table a.t alter column b type integer using b::text::integer",
      "alter table a.t add column c integer generated always as ((b * 2)) stored",
    ]);
  });

  it("loses what is computed before what it is computed from", () => {
    const { before } = changesOf(
      "create table a.t (\n    b integer\n)",
      "create table a.t (\n    b integer,\n    c integer,\n    d integer generated always as ((c * 2)) stored\n)",
    );
    expect(texts(before)).toEqual(["alter table a.t drop column d", "alter table a.t drop column c"]);
  });

  it("says which columns come last", () => {
    const { keeps } = changesOf("create table a.t (\n    b text,\n    c text\n)", "create table a.t (\n    c text\n)");
    expect(keeps).toEqual(["column b comes last: none can be put between"]);
    expect(changesOf("create table a.t (\n    b text,\n    c text\n)", "create table a.t (\n    b text\n)").keeps)
      .toEqual([]);
  });
});

describe("grants", () => {
  it("are taken and given one right at a time", () => {
    expect(privilegeChanges(
      ["grant select on table a.t to anon", "revoke execute on routine a.f() from public"],
      ["grant select, insert on table a.t to anon with grant option", 'grant update ("c, d") on table a.t to "O p"'],
    )).toEqual([
      "revoke grant option for select on table a.t from anon",
      "revoke insert on table a.t from anon",
      'revoke update ("c, d") on table a.t from "O p"',
      "revoke execute on routine a.f() from public",
    ]);
  });

  it("that were there by default come back, and those of others are taken by those", () => {
    expect(privilegeChanges([], ["revoke execute on routine a.f() from public"])).toEqual([
      "grant execute on routine a.f() to public",
    ]);
    expect(privilegeChanges([], ["set role x", "grant select on table a.t to anon", "reset role"])).toEqual([
      "set role x",
      "revoke select on table a.t from anon",
      "reset role",
    ]);
  });

  it("in a form that is not known are not guessed at", () => {
    expect(privilegeChanges([], ["do 'begin execute x; end'"])).toBeNull();
  });
});

describe("texts", () => {
  it("lose comments that came since, whatever the comment says", () => {
    expect(
      remarkChanges(["comment on table a.t is 'x'"], [
        "comment on table a.t is 'it''s is ''x'''",
        "comment on column a.t.b is E'\\\\'",
      ]),
    )
      .toEqual(["comment on column a.t.b is null", "comment on table a.t is 'x'"]);
  });

  it("are searched by whole names, not inside of constants", () => {
    expect([mentions("a = 'b'", "b"), mentions("ab = 1", "b"), mentions("(b = 1)", "b")]).toEqual([false, false, true]);
    expect(splitAtCommas(`a(1,2), 'x,y', "p,q"`)).toEqual(["a(1,2)", "'x,y'", '"p,q"']);
    expect(replaceQualified("a.t, a.tt, x.a.t, 'a.t'", "a.t", "b.u")).toBe("b.u, a.tt, x.a.t, 'a.t'");
    expect(replaceOwner("t.a, s.t.a, tt.a", "t", "u")).toBe("u.a, s.t.a, tt.a");
    expect(replaceColumn("a, t.a, s.t.a, s.a, a.b, a(b), 'a'", "a", "c", new Set(["s"]))).toBe(
      "c, t.c, s.t.c, s.a, a.b, a(b), 'a'",
    );
  });

  it("of a restrictive policy are shut, not dropped, so that nothing is seen in between", () => {
    const policy = (text: string) => definition({ identity: "policy p on a.t", kind: "policy", statements: [text] });
    expect(loosenPolicy(policy("create policy p on a.t as restrictive for select using ((b = 'with check'::text))")))
      .toEqual([
        "alter policy p on a.t using (false)",
      ]);
    expect(loosenPolicy(policy("create policy p on a.t as restrictive using (true) with check (true)"))).toEqual([
      "alter policy p on a.t using (false) with check (false)",
    ]);
    expect(loosenPolicy(policy("create policy p on a.t using (true)"))).toEqual(["drop policy p on a.t"]);
  });
});

function definition(rest: Partial<Definition> & Pick<Definition, "identity" | "kind">): Definition {
  return {
    section: "pre-data",
    schema: "a",
    name: "",
    owner: "postgres",
    statements: [],
    ownership: [],
    privileges: [],
    dependsOn: [],
    platform: null,
    held: null,
    release: [],
    table: null,
    ...rest,
  };
}

function captureOf(definitions: readonly Definition[]): SchemaCapture {
  return {
    format: 1,
    server: {
      versionNum: 150000,
      encoding: "UTF8",
      collate: "C",
      ctype: "C",
      localeProvider: "c",
      icuLocale: null,
      database: "d",
    },
    definitions: [...definitions],
    tables: [],
    sequences: [],
    extensions: [],
    notCaptured: [],
    warnings: [],
  };
}

const options = {
  sameDatabase: true,
  dropExtra: false,
  replacesRows: false,
  user: "postgres",
  superuser: false,
  reachable: new Set(["postgres"]),
};

describe("a plan", () => {
  const table = definition({
    identity: "table a.t",
    kind: "table",
    name: "t",
    statements: ["create table a.t (\n    b text\n)"],
  });
  const view = (text: string) =>
    definition({ identity: "view a.v", kind: "view", name: "v", statements: [text], dependsOn: ["table a.t"] });
  const policy = definition({
    identity: "policy p on a.t",
    kind: "policy",
    section: "post-data",
    statements: ["create policy p on a.t using (a.f())"],
    dependsOn: ["function a.f()", "table a.t"],
    table: "table a.t",
  });
  const routine = (result: string) =>
    definition({
      identity: "function a.f()",
      kind: "function",
      name: "f",
      statements: [
        `CREATE OR REPLACE FUNCTION a.f()\n RETURNS ${result}\n LANGUAGE sql\nAS $function$ select 1 $function$`,
      ],
    });

  it("has no step where nothing differs", () => {
    const same = captureOf([table, routine("integer"), view("create view a.v"), policy]);
    expect(planDefinitionChanges(same, same, options)).toEqual({ steps: [], kept: [], refused: [] });
  });

  it("takes what stands on an object away before it, and makes it last: nothing is dropped by CASCADE", () => {
    const plan = planDefinitionChanges(
      captureOf([table, routine("boolean"), policy]),
      captureOf([table, routine("integer"), policy]),
      options,
    );
    expect(plan.steps.map((step) => step.key)).toEqual([
      "before drop policy p on a.t",
      "before drop function a.f()",
      "before replace function a.f()",
      "last replace policy p on a.t",
    ]);
    expect(plan.steps.flatMap((step) => step.statements).join()).not.toMatch(/cascade/i);
    const views = planDefinitionChanges(
      captureOf([table, view("create or replace view a.v as\nSELECT 1")]),
      captureOf([table, view("create or replace view a.v as\nSELECT 2")]),
      options,
    );
    expect(views.steps.map((step) => step.statements)).toEqual([["drop view a.v"], [
      "create or replace view a.v as\nSELECT 1",
    ]]);
  });

  it("never touches schemas of ours, nor what the platform owns", () => {
    const foreign = [
      definition({ identity: "table backup.runs", kind: "table", schema: "backup", name: "runs" }),
      definition({ identity: "table restore_0123abcd.t", kind: "table", schema: "restore_0123abcd", name: "t" }),
      definition({ identity: "table auth.users", kind: "table", schema: "auth", name: "users", platform: "auth" }),
    ];
    const plan = planDefinitionChanges(captureOf([]), captureOf(foreign), { ...options, dropExtra: true });
    expect(plan).toEqual({ steps: [], kept: [], refused: [] });
  });

  it("refuses to make a table anew whose rows do not come back, whatever its comment says", () => {
    const other = { ...table, statements: ["create table a.t (\n    b text\n) partition by LIST (b)"] };
    const said = { ...table, statements: [...table.statements, "comment on table a.t is 'we partition by name'"] };
    for (const one of [table, said]) {
      const plan = planDefinitionChanges(captureOf([other]), captureOf([one]), options);
      expect(plan.steps).toEqual([]);
      expect(plan.refused.map((note) => note.identity)).toEqual(["table a.t"]);
    }
  });
});
