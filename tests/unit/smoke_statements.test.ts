import { describe, expect, it } from "vitest";
import { smokeStatements } from "../../src/shared/restore/in_place/checks/smoke_statements.ts";

const texts = (sql: string) => smokeStatements(sql).map(({ text }) => text);

describe("a file of smoke queries", () => {
  it("is cut at its semicolons, with the line where each statement begins", () => {
    expect(smokeStatements("select 1;\n\n select\n 2 ;select 3")).toEqual([
      { text: "select 1", line: 1 },
      { text: "select\n 2", line: 3 },
      { text: "select 3", line: 4 },
    ]);
  });

  it.each([
    ["a text", "select ';''; '"],
    ["an escape string", "select E'\\';'"],
    ["a name", 'select 1 as "a;""b;"'],
    ["a dollar quote", "do $$ begin perform 1; end $$"],
    ["a dollar quote with a tag", "select $a$ ; $$ ; $b$ ; $a$"],
    ["nothing, where a name holds a dollar", "select a$b from c$d"],
  ])("is not cut inside of %s", (_, statement) => {
    expect(texts(`${statement}; select 2`)).toEqual([statement, "select 2"]);
  });

  it("loses its comments, whatever stands in them", () => {
    expect(texts("-- it's; one\nselect 1 /* a; /* b; */ c; ' */ + 1 -- end;\n; /* none */ ; -- none")).toEqual([
      "select 1   + 1",
    ]);
    expect(texts("")).toEqual([]);
  });

  it("that is broken off keeps what is there", () => {
    expect(texts("select 'a;")).toEqual(["select 'a;"]);
    expect(texts("select 1 /* a; ")).toEqual(["select 1"]);
  });
});
