/** Which statement of a client's string a row of the DDL log is of. */
import { describe, expect, it } from "vitest";
import { DdlTransaction, readDdlRow } from "../../src/shared/changes/definitions/ddl_replay.ts";
import { leadingWords, splitStatements } from "../../src/shared/changes/definitions/statements.ts";

describe("splitStatements", () => {
  it("cuts at semicolons that are code, and nowhere else", () => {
    expect(splitStatements("select 1; select 2")).toEqual(["select 1", "select 2"]);
    expect(splitStatements("select ';', E'\\';', \"a;\"\"b\", $$;$$, $a$ $$; $a$; x")).toEqual([
      "select ';', E'\\';', \"a;\"\"b\", $$;$$, $a$ $$; $a$",
      "x",
    ]);
    expect(splitStatements("/* ; /* nested; */ ; */ a; -- b; c\n d")).toEqual(["a", "d"]);
    expect(splitStatements("select a$b$;select c$b$")).toEqual(["select a$b$", "select c$b$"]);
    expect(splitStatements("select $1;select $2")).toEqual(["select $1", "select $2"]);
    expect(splitStatements("select 'it''s; fine'; x")).toEqual(["select 'it''s; fine'", "x"]);
    expect(splitStatements('select U&"d\\0061t;a"; x')).toEqual(['select U&"d\\0061t;a"', "x"]);
    expect(splitStatements(" ;; -- nothing\n ; ")).toEqual([]);
  });

  it("does not guess: what does not end, and bodies of their own, are null", () => {
    for (const open of ["select 'a", 'select "a', "select $$ a", "/* a", "select E'\\'", "select $x$ $y$"]) {
      expect(splitStatements(open), open).toBe(null);
    }
    expect(splitStatements("create function f() returns int begin atomic select 1; end")).toBe(null);
  });

  it("reads the words that say which command it is, past comments and quotes", () => {
    expect(leadingWords('CREATE /* or */ Unique INDEX "Weird" on t', 4)).toEqual(["create", "unique", "index", "on"]);
  });
});

interface Given {
  readonly what?: string;
  readonly tag: string;
  readonly objects?: readonly Record<string, unknown>[];
  readonly query: string;
  readonly searchPath?: string;
  readonly settings?: Readonly<Record<string, string>>;
}

function rowOf({ what = "command", tag, objects = [], query, searchPath = '"$user", public', settings = {} }: Given) {
  return readDdlRow(
    new Map([
      ["id", "1"],
      ["what", what],
      ["tag", tag],
      ["objects", JSON.stringify(objects)],
      ["query", query],
      ["role_name", "postgres"],
      ["search_path", searchPath],
      ["settings", JSON.stringify(settings)],
    ]),
  );
}

const table = (identity: string, schema = identity.split(".")[0]) => ({ type: "table", identity, schema, oid: 20_000 });

function ran(transaction: DdlTransaction, given: Given): string {
  const step = transaction.next(rowOf(given));
  return step.do === "run" ? step.statements[2] ?? "" : step.do;
}

describe("a row of the DDL log", () => {
  it("takes its own statement of a string with several", () => {
    const query = "create table a (x int); insert into a values (1); create table b (y int); drop table a";
    const transaction = new DdlTransaction();
    expect(ran(transaction, { tag: "CREATE TABLE", objects: [table("public.a")], query })).toBe(
      "create table a (x int)",
    );
    expect(ran(transaction, { tag: "CREATE TABLE", objects: [table("public.b")], query })).toBe(
      "create table b (y int)",
    );
  });

  it("of a drop names what was dropped, whatever its text says and under which path", () => {
    const dropped = (objects: readonly unknown[], tag = "DROP TABLE") => {
      const step = new DdlTransaction().next(rowOf({ what: "drop", tag, objects, query: "select tidy_up()" } as Given));
      return step.do === "run" ? step.statements : step.do;
    };
    expect(dropped([table("app.a"), { ...table("app.v"), type: "view", original: false }])).toEqual([
      "drop table app.a cascade",
    ]);
    expect(dropped([{ type: "policy", identity: "p on app.a", schema: null, oid: 1 }], "DROP POLICY")).toEqual([
      "drop policy p on app.a cascade",
    ]);
    expect(dropped([{ type: "user mapping", identity: "anon on server far", schema: null, oid: 1 }], "DROP CAST")).toBe(
      "refuse",
    );
  });

  it("takes what the object has become, where the log says it, and the text of a table only where it says more", () => {
    const view = (query: string) =>
      new DdlTransaction().next(
        rowOf({
          tag: "CREATE VIEW",
          query,
          objects: [{
            type: "view",
            identity: "app.v",
            schema: "app",
            oid: 1,
            made: { sql: "create view app.v as select 1" },
          }],
        } as Given),
      ).do;
    expect(view("create view v as select 1")).toBe("define");
    expect(view("select make_view()")).toBe("define");
  });

  it("passes over statements of the string that did nothing, or made something temporary", () => {
    const query =
      "drop table if exists b; create temp table t (x int); create table if not exists a (x int); create table b ()";
    expect(ran(new DdlTransaction(), { tag: "CREATE TABLE", objects: [table("public.b")], query })).toBe(
      "create table b ()",
    );
  });

  it("is refused where its statement is not in the string, or not all of it", () => {
    const objects = [table("public.b")];
    for (
      const query of [
        "select make_table()",
        "do $$ begin create table b (); end $$",
        "create table a ()",
        "create table if not exists z (); select make_b()",
        `create table b (); ${" ".repeat(1_000_000)}`,
      ]
    ) expect(ran(new DdlTransaction(), { tag: "CREATE TABLE", objects, query }), query.slice(0, 60)).toBe("refuse");
    for (
      const [tag, query] of [["CREATE TABLE AS", "create table b as select 1"], ["SELECT INTO", "select 1 into b"]]
    ) {
      expect(ran(new DdlTransaction(), { tag: tag ?? "", objects, query: query ?? "" })).toBe("refuse");
    }
  });

  it("of a refresh asks for nothing, also where a function did it", () => {
    const objects = [{ type: "materialized view", identity: "app.sums", schema: "app", oid: 1 }];
    expect(ran(new DdlTransaction(), { tag: "REFRESH MATERIALIZED VIEW", objects, query: "select nightly()" })).toBe(
      "nothing",
    );
  });

  it("finds its place in a script of many statements without reading it anew for each", () => {
    const names = Array.from({ length: 3000 }, (_, at) => `t${at}`);
    const query = names.map((name) => `create table ${name} (id int primary key, t text default '${"x".repeat(100)}')`)
      .join(";");
    const transaction = new DdlTransaction();
    const start = performance.now();
    for (const name of names) {
      expect(ran(transaction, { tag: "CREATE TABLE", objects: [table(`public.${name}`)], query })).toContain(
        `table ${name} (`,
      );
    }
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  it("reads a GRANT, of which the server names no object", () => {
    const objects = [{ type: "TABLE", identity: null, schema: null, oid: null, extension: false }];
    const query = "grant select on app.t to anon";
    expect(ran(new DdlTransaction(), { tag: "GRANT", objects, query })).toBe(query);
  });

  it("puts the schema of what was made first in the path, that of a policy's table too, and looks for it afterwards", () => {
    const made = new DdlTransaction().next(
      rowOf({ tag: "CREATE TABLE", objects: [table('"Odd Schema".t', "Odd Schema")], query: "create table t ()" }),
    );
    expect(made).toMatchObject({ do: "run" });
    const statements = made.do === "run" ? made.statements : [];
    expect(statements[0]).toBe(
      `select pg_catalog.set_config('search_path', '"Odd Schema", "$user", public', true)`,
    );
    expect(statements.at(-1)).toBe(`select '"Odd Schema".t'::pg_catalog.regclass`);
    const policy = new DdlTransaction().next(
      rowOf({
        tag: "CREATE POLICY",
        objects: [{ type: "policy", identity: "p on app.t", schema: null, oid: 1 }],
        query: "create policy p on t",
      }),
    );
    expect(policy.do === "run" ? policy.statements[0] : "").toBe(
      `select pg_catalog.set_config('search_path', 'app, "$user", public', true)`,
    );
  });

  it("closes a table whose values a rewrite computed in a way that another session may not", () => {
    const rewrite = (reason: number, query: string) =>
      new DdlTransaction().next(
        rowOf({ what: "rewrite", tag: "ALTER TABLE", objects: [{ ...table("app.t"), reason }], query }),
      ).do;
    expect(rewrite(2, "alter table app.t add column r float8 default random()")).toBe("close");
    expect(rewrite(4, "alter table app.t alter column n type int using length(n)")).toBe("close");
    expect(rewrite(4, "alter table app.t alter column at type timestamptz")).toBe("close");
    expect(rewrite(4, "alter table app.t alter column at type text")).toBe("close");
    expect(rewrite(4, "alter table app.t alter column id type bigint, alter column at type text")).toBe("close");
    expect(rewrite(4, "alter table app.t alter column id set data type bigint")).toBe("nothing");
    expect(rewrite(1, "alter table app.t set logged")).toBe("close");
    expect(rewrite(8, "alter table app.t set access method heap")).toBe("nothing");
  });

  it("closes a table that a function rewrites beside a plain ALTER TABLE of the same string", () => {
    const rewrite = (query: string, identity = "app.t") =>
      new DdlTransaction().next(
        rowOf({ what: "rewrite", tag: "ALTER TABLE", objects: [{ ...table(identity), reason: 4 }], query }),
      ).do;
    expect(rewrite("do $$ begin alter table app.a alter column x type bigint; perform app.m(); end $$")).toBe("close");
    expect(rewrite("alter table app.a alter column x type bigint; select 1")).toBe("close");
    expect(rewrite("select app.m(); alter table app.t alter column x type bigint")).toBe("close");
    expect(rewrite("alter table app.a alter column x type bigint")).toBe("close");
    expect(rewrite("alter table app.t alter column x type bigint using x * 1000; create index on app.t (x)")).toBe(
      "close",
    );
  });

  it("lets a partition be rewritten by the statement that names its parent", () => {
    const objects = [{ ...table("app.t_1"), reason: 4, ancestors: ["app.t_all", "app.t"] }];
    const rewrite = (query: string) =>
      new DdlTransaction().next(rowOf({ what: "rewrite", tag: "ALTER TABLE", objects, query })).do;
    expect(rewrite("alter table app.t alter column id type bigint")).toBe("nothing");
    expect(rewrite("alter table app.u alter column id type bigint")).toBe("close");
  });

  it("judges a rewrite by its own statement, whatever else the string says", () => {
    const rewrite = (query: string) =>
      new DdlTransaction().next(
        rowOf({ what: "rewrite", tag: "ALTER TABLE", objects: [{ ...table("app.t"), reason: 4 }], query }),
      ).do;
    expect(rewrite("create type app.mood as enum ('a'); alter table app.t alter column id type bigint")).toBe(
      "nothing",
    );
    expect(rewrite("create index tj on app.t using gin (j); alter table app.t alter column id type bigint")).toBe(
      "nothing",
    );
    expect(rewrite("alter table app.u alter column at type text; alter table app.t alter column id type int")).toBe(
      "nothing",
    );
  });

  it("finds the statements of a string that comes again, unless functions could have done it", () => {
    const sequence = { type: "sequence", identity: "app.s", schema: "app", oid: 1 };
    const twice = (query: string) => {
      const transaction = new DdlTransaction();
      const given = { tag: "ALTER SEQUENCE", objects: [sequence], query };
      return [ran(transaction, given), ran(transaction, given)];
    };
    const query = "alter sequence app.s restart";
    expect(twice(query)).toEqual([query, query]);
    expect(twice(`${query}; select app.f()`)).toEqual([query, "refuse"]);
    // One that is of no statement leaves the others their places.
    const transaction = new DdlTransaction();
    const script = "alter sequence app.s increment 3; alter sequence app.s increment 5";
    const take = (identity: string) =>
      ran(transaction, { tag: "ALTER SEQUENCE", objects: [{ ...sequence, identity }], query: script });
    expect([take("app.s"), take("app.other"), take("app.s")]).toEqual([
      "alter sequence app.s increment 3",
      "refuse",
      "alter sequence app.s increment 5",
    ]);
  });

  it("takes no statement about another object of its kind", () => {
    const altered = (type: string, identity: string, query: string) =>
      ran(new DdlTransaction(), {
        tag: query.split(" ").slice(0, 2).join(" ").toUpperCase(),
        objects: [{ type, identity, schema: "app", oid: 1 }],
        query,
      });
    expect(
      altered("sequence", "app.s", "alter sequence if exists app.nope increment 5; alter sequence app.s increment 7"),
    )
      .toBe("alter sequence app.s increment 7");
    expect(
      altered(
        "index",
        "app.i",
        "alter index if exists app.nope set (fillfactor = 50); alter index app.i reset (fillfactor)",
      ),
    )
      .toBe("alter index app.i reset (fillfactor)");
    expect(
      altered("function", 'app.f(integer,app."x(y")', "alter function g(int) stable; alter function f(int, x) strict"),
    )
      .toBe("alter function f(int, x) strict");
  });

  it("runs its text under the settings that it was read under, and under ours again afterwards", () => {
    const step = new DdlTransaction().next(
      rowOf({
        tag: "GRANT",
        objects: [{ type: "TABLE", identity: null, schema: null, oid: null }],
        query: "grant select on notes to anon",
        settings: {
          search_path: 'app, "$user"',
          timezone: "Europe/Berlin",
          datestyle: "SQL, DMY",
          intervalstyle: "iso_8601",
        },
      }),
    );
    expect(step.do === "run" ? step.statements : []).toEqual([
      "set local timezone = 'Europe/Berlin'",
      "set local datestyle = 'SQL, DMY'",
      "set local intervalstyle = 'iso_8601'",
      `select pg_catalog.set_config('search_path', 'app, "$user"', true)`,
      "set local role postgres",
      "grant select on notes to anon",
      "reset role",
      "set local search_path = ''",
      "set local timezone = 'UTC'",
      "set local datestyle = 'ISO, YMD'",
      "set local intervalstyle = 'postgres'",
    ]);
  });

  it("of an index that was built anew makes sure that there is one, where the log says which", () => {
    const reindex = (made: unknown) =>
      new DdlTransaction().next(
        rowOf({
          tag: "REINDEX",
          objects: [{ type: "index", identity: "app.i", schema: "app", oid: 1, made }],
          query: "reindex index concurrently app.i",
        }),
      ).do;
    expect(reindex({ owner: "postgres", sql: "CREATE UNIQUE INDEX IF NOT EXISTS i ON app.t USING btree (e)" })).toBe(
      "define",
    );
    expect(reindex(null)).toBe("nothing");
  });

  it("takes no path for SQL: anybody may have set any", () => {
    const given = {
      tag: "GRANT",
      objects: [{ type: "TABLE", identity: null }],
      query: "grant select on notes to anon",
    };
    const hostile = `"a,b';drop/**/table/**/x;--"`;
    for (
      const more of [{ searchPath: hostile }, { settings: { search_path: hostile, timezone: "'; drop table x; --" } }]
    ) {
      const step = new DdlTransaction().next(rowOf({ ...given, ...more }));
      const statements = step.do === "run" ? step.statements : [];
      expect(statements.length).toBeGreaterThan(3);
      for (const statement of statements) expect(splitStatements(statement), statement).toHaveLength(1);
    }
  });
});
