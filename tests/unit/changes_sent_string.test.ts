/** Strings with transactions of their own: a row of the DDL log takes no statement that may be another's. */
import { describe, expect, it } from "vitest";
import { DdlTransaction, readDdlRow } from "../../src/shared/changes/definitions/ddl_replay.ts";

interface Given {
  readonly what?: string;
  readonly type: string;
  readonly identity: string;
  readonly made?: unknown;
  readonly reason?: number;
}

function rowOf(tag: string, query: string, { what = "command", ...object }: Given) {
  return readDdlRow(
    new Map([
      ["id", "1"],
      ["what", what],
      ["tag", tag],
      ["objects", JSON.stringify([{ schema: "app", oid: 1, ...object }])],
      ["query", query],
      ["role_name", "postgres"],
      ["search_path", "public"],
      ["settings", "{}"],
    ]),
  );
}

/** The statement that runs, or what is done without one; each of the objects in one transaction. */
function ran(tag: string, query: string, ...objects: readonly Given[]): string[] {
  const transaction = new DdlTransaction();
  return objects.map((object) => {
    const step = transaction.next(rowOf(tag, query, object));
    return step.do === "run" ? step.statements[2] ?? "" : step.do;
  });
}

const f = { type: "function", identity: "app.f()" };

describe("a row of the DDL log, of a string with transactions of its own,", () => {
  it("is refused where statements of two of them fit it", () => {
    expect(ran("ALTER FUNCTION", "alter function f() security definer; commit; alter function f() stable", f)).toEqual([
      "refuse",
    ]);
    const privileges = { type: "default acl", identity: "for role postgres in schema app on tables" };
    const [given, taken] = ["grant select on tables to anon", "revoke select on tables from anon"]
      .map((one) => `alter default privileges in schema app ${one}`);
    expect(ran("ALTER DEFAULT PRIVILEGES", `${given}; commit; ${taken}; commit`, privileges)).toEqual(["refuse"]);
    expect(ran("ALTER DEFAULT PRIVILEGES", `begin; ${given}; ${taken}; commit`, privileges, privileges)).toEqual([
      given,
      taken,
    ]);
  });

  it("takes a statement that is there twice, and one that no other transaction has", () => {
    const query =
      "begin; alter function f() strict; commit; begin; alter function f() strict; alter function g() stable; end";
    expect(ran("ALTER FUNCTION", query, f)).toEqual(["alter function f() strict"]);
    expect(ran("ALTER FUNCTION", query, f, { ...f, identity: "app.g()" })).toEqual([
      "alter function f() strict",
      "alter function g() stable",
    ]);
  });

  it("keeps to the transaction that its first rows are of", () => {
    const query = `begin; alter type a rename to old; alter type b rename to a; commit;
      begin; alter type a add value 'x'; commit`;
    const types = ["app.old", "app.a"].map((identity) => ({ type: "type", identity }));
    expect(ran("ALTER TYPE", query, ...types)).toEqual(["alter type a rename to old", "alter type b rename to a"]);
    expect(ran("ALTER TYPE", query, { type: "type", identity: "app.a" })).toEqual(["refuse"]);
  });

  it.each([
    "savepoint a; alter function f() security definer; rollback to a; alter function f() stable",
    'savepoint "a b"; alter function f() strict; ROLLBACK TRANSACTION TO SAVEPOINT "a b"; alter function f() stable; commit',
    "alter function f() security definer; rollback; begin; alter function f() stable; commit",
    "savepoint a; savepoint b; alter function f() strict; release b; rollback to a; alter function f() stable",
    "alter function f() strict; /* from before */ rollback /* to */ to savepoint earlier; alter function f() stable",
    "alter function f() security definer; abort; alter function f() stable; prepare transaction 'x'",
  ])("takes nothing that the string took back: %s", (query) => {
    expect(ran("ALTER FUNCTION", query, f)).toEqual(["alter function f() stable"]);
  });

  it("takes none where a function may have done it in another of them", () => {
    const query = "alter function f() strict; commit; do $$ begin perform app.alter_f(); end $$";
    expect(ran("ALTER FUNCTION", query, f)).toEqual(["refuse"]);
    expect(ran("ALTER FUNCTION", "alter function f() strict; commit; insert into t values (1)", f)).toEqual([
      "alter function f() strict",
    ]);
  });

  it("knows a policy by its name and its table", () => {
    const query = "begin; alter policy p on app.t using (a); commit; begin; alter policy p on app.u using (b); commit";
    for (const [table, condition] of [["app.t", "a"], ["app.u", "b"]]) {
      expect(ran("ALTER POLICY", query, { type: "policy", identity: `p on ${table}` })).toEqual([
        `alter policy p on ${table} using (${condition})`,
      ]);
    }
  });

  it("closes a table that may have been rewritten by a statement whose values another session cannot compute", () => {
    const rewrite = (query: string) =>
      ran("ALTER TABLE", query, { what: "rewrite", type: "table", identity: "app.t", reason: 4 });
    const [plain, using] = [
      "alter table app.t alter x type bigint",
      "alter table app.t alter x type bigint using x * 100",
    ];
    expect(rewrite(`${plain}; commit; ${using}`)).toEqual(["close"]);
    expect(rewrite(`begin; ${plain}; rollback; begin; ${using}; commit`)).toEqual(["close"]);
    expect(rewrite(`begin; savepoint a; ${plain}; rollback to a; ${using}; commit`)).toEqual(["close"]);
    expect(rewrite(`begin; savepoint a; ${using}; rollback to a; ${plain}; commit`)).toEqual(["nothing"]);
    expect(rewrite(`${plain}; commit; alter table app.t enable row level security; ${using}`)).toEqual(["close"]);
    expect(rewrite(`${plain}; commit; alter table app.t enable row level security`)).toEqual(["nothing"]);
  });
});
