/** Which statement of a string a row of the DDL log is of: by who gave the command, by schemas, paths and temporary names. */
import { describe, expect, it } from "vitest";
import { DdlTransaction, readDdlRow } from "../../src/shared/changes/definitions/ddl_replay.ts";
import { RenamedLabels } from "../../src/shared/changes/plan/renamed_labels.ts";

interface Given {
  readonly what?: string;
  readonly tag: string;
  readonly query: string;
  readonly type: string;
  readonly identity: string;
  readonly schema?: string | null;
  readonly reason?: number;
  readonly made?: unknown;
  readonly settings?: Readonly<Record<string, string>>;
}

function rowOf({ what = "command", tag, query, settings = {}, schema = "app", ...object }: Given) {
  return readDdlRow(
    new Map([
      ["id", "1"],
      ["what", what],
      ["tag", tag],
      ["objects", JSON.stringify([{ schema, oid: 1, ...object }])],
      ["query", query],
      ["role_name", "postgres"],
      ["search_path", "public"],
      ["settings", JSON.stringify({ caller: "client", search_path: "app, public", ...settings })],
    ]),
  );
}

const noSettings = /^(?:set local|select pg_catalog.set_config|reset role|select '.*'::pg_catalog)/;

/** The statement that runs, or what is done without one; all in one transaction. */
function ran(...rows: readonly Given[]): string[] {
  const transaction = new DdlTransaction();
  return rows.map((row) => {
    const step = transaction.next(rowOf(row));
    return step.do === "run" ? step.statements.filter((one) => !noSettings.test(one)).join("; ") : step.do;
  });
}

const view = { tag: "ALTER VIEW", type: "view", identity: "app.v" };
const f = { tag: "ALTER FUNCTION", type: "function", identity: "app.f()" };

describe("a statement that names another schema, or that did nothing,", () => {
  it.each([
    ["alter view if exists nope.v set (a = 1); alter view app.v set (a = 2)", "app, public"],
    ['alter view if exists "App".v set (a = 1); alter view app . "v" set (a = 2)', "app, public"],
    ["alter view /* app. */ if exists x.v -- app.v\n set (a = 1); alter view app.v set (a = 2)", "app, public"],
    ["alter view if exists v set (a = 1); alter view app.v set (a = 2)", "public"],
    ["alter view pg_temp.v set (a = 1); alter view app.v set (a = 2)", "app"],
  ])("is not a row's: %s", (query, path) => {
    expect(ran({ ...view, query, settings: { search_path: path } })).toEqual([query.split("; ")[1]]);
  });

  it("is a row's by a bare name on the path, also of the user's own schema, and by the schema that it left", () => {
    const query = "alter view v set (a = 1)";
    expect(ran({ ...view, query })).toEqual([query]);
    expect(ran({ ...view, query, schema: "postgres", settings: { search_path: '"$user"' } })).toEqual([query]);
    const moved = "alter view old.v set schema app";
    expect(ran({ ...view, query: moved })).toEqual([moved]);
  });

  it("takes nothing where a temporary relation may be meant", () => {
    const query = "alter view v set (a = 1); alter view app.v set (a = 2)";
    expect(ran({ ...view, query, settings: { temporary: "other,v" } })).toEqual(["refuse"]);
    expect(ran({ ...view, query: `create temp view v as select 1; ${query}; drop view v` })).toEqual(["refuse"]);
    expect(ran({ ...view, query: `create view pg_temp.v as select 1; ${query}` })).toEqual(["refuse"]);
    expect(ran({ ...view, query, settings: { temporary: "w" } })).toEqual(["alter view v set (a = 1)"]);
  });

  it("does not say that a rewrite of another table is settled", () => {
    const rewritten = (query: string, settings = {}) =>
      ran({
        what: "rewrite",
        tag: "ALTER TABLE",
        type: "table",
        identity: "app.t",
        schema: null,
        reason: 4,
        query,
        settings,
      });
    const using = "alter table app.t alter x type bigint using x * 2";
    expect(rewritten(`alter table if exists nope.t alter x type bigint; ${using}`)).toEqual(["close"]);
    expect(rewritten(`alter table t alter x type bigint; ${using}`, { temporary: "t" })).toEqual(["close"]);
    expect(rewritten(`alter table t alter x type bigint; ${using}`)).toEqual(["nothing"]);
    const code = { caller: "code", statement: "alter table app.t alter x type bigint" };
    expect(rewritten("select app.g()", code)).toEqual(["nothing"]);
    expect(rewritten("select app.g()", { ...code, statement: using })).toEqual(["close"]);
    expect(rewritten("alter table app.t alter x type bigint", { caller: "code" })).toEqual(["close"]);
  });

  it("of a kind that has no description is known by its name", () => {
    const made = { tag: "CREATE COLLATION", type: "collation", identity: "app.c2" };
    const query = "create collation if not exists app.c (locale = 'C'); create collation app.c2 (locale = 'C')";
    expect(ran({ ...made, query })).toEqual(["create collation app.c2 (locale = 'C')"]);
    expect(
      ran({
        what: "drop",
        tag: "DROP OPERATOR",
        type: "operator",
        identity: "app.===(integer,integer)",
        query: "drop operator if exists nope.=== (int, int); drop operator app.=== (int, int)",
      }),
    ).toEqual(["drop operator app.===(integer,integer) cascade"]);
  });
});

describe("what code did", () => {
  const query = "create table app.t as select app.g(); alter function app.f() stable";

  it("does not take the client's text, nor leave it another's", () => {
    const byCode = { caller: "code", statement: "alter function app.f() strict" };
    expect(ran({ ...f, query, settings: byCode }, { ...f, query })).toEqual([
      "alter function app.f() strict",
      "alter function app.f() stable",
    ]);
    expect(ran({ ...f, query, settings: { caller: "code" } }, { ...f, query })).toEqual([
      "refuse",
      "alter function app.f() stable",
    ]);
  });

  it("in one string of several statements takes them in turn, also when it comes again", () => {
    const settings = { caller: "code", statement: "alter function app.f() strict; alter function app.f() cost 7" };
    const each = ["alter function app.f() strict", "alter function app.f() cost 7"];
    const row = { ...f, query, settings };
    expect(ran(row, row, row, row)).toEqual([...each, ...each]);
  });
});

describe("renamed labels", () => {
  const alter = (query: string, labels?: readonly string[], settings = {}) => ({
    tag: "ALTER TYPE",
    type: "type",
    identity: "app.mood",
    query,
    settings,
    ...labels === undefined ? {} : { made: { owner: "postgres", labels } },
  });
  const relation = {
    oid: 5,
    schema: "app",
    name: "felt",
    identity: "default",
    columns: [{ name: "m", typeOid: 17_000, typeModifier: -1, isKey: false }],
  } as const;

  function told(...rows: readonly Given[]) {
    const labels = new RenamedLabels();
    const transaction = new DdlTransaction();
    for (const given of rows) {
      const row = rowOf(given);
      labels.follow(row, transaction.next(row), 50n);
    }
    return labels;
  }

  it("are those of texts in any quotes, and of descriptions where there is no text", () => {
    const pairs = (labels: RenamedLabels) => labels.unseenBy(relation, 10n, 90n).map(({ from, to }) => [from, to]);
    expect(pairs(told(alter("alter type app.mood rename value 'it''s' to $x$b$x$")))).toEqual([["it's", "b"]]);
    expect(pairs(told(alter("alter type app.mood add value 'rename value'")))).toEqual([]);
    const code = { caller: "code" };
    const labels = told(alter("", ["a", "b"], code), alter("", ["a", "c"], code), alter("", ["a", "c", "d"], code));
    expect(pairs(labels)).toEqual([["b", "c"]]);
  });

  it("are unclear where nobody told what they were", () => {
    const labels = told(alter("", ["a", "b"], { caller: "code" }));
    expect(labels.unclearFor(relation, 10n, 90n)).toBe("app.mood");
    expect(labels.unclearFor(relation, 60n, 90n)).toBe(null);
    expect(labels.unclearFor({ ...relation, columns: [] }, 10n, 90n)).toBe(null);
    expect(told(alter("alter type app.mood rename value E'\\x61' to 'b'")).unclearFor(relation, 10n, 90n)).toBe(
      "app.mood",
    );
  });

  it("are seen by rows of behind, and by their own transaction", () => {
    const labels = told(alter("alter type app.mood rename value 'a' to 'b'"));
    expect(labels.unseenBy(relation, 60n, 90n)).toEqual([]);
    expect(labels.unseenBy(relation, 10n, 50n)).toEqual([]);
  });
});
