import { describe, expect, it } from "vitest";
import type { Check, Column, Relation } from "../../src/shared/schema/relations.ts";
import { createTable, planTable, type TableFacts } from "../../src/shared/schema/table_statements.ts";

const relation = (name: string, rest: Partial<Relation> = {}): Relation => ({
  oid: "1",
  schema: "s",
  name,
  relkind: "r",
  persistence: "p",
  accessMethod: "heap",
  tablespace: null,
  options: [],
  toastOptions: [],
  rowSecurity: false,
  forceRowSecurity: false,
  replicaIdentity: "d",
  isPartition: false,
  partitionBound: null,
  partitionKey: null,
  populated: true,
  ofType: null,
  ofTypeOid: "0",
  rowType: "2",
  toastOid: "0",
  server: null,
  foreignOptions: null,
  viewDefinition: null,
  parents: [],
  ...rest,
});
const column = (name: string, rest: Partial<Column> = {}): Column => ({
  relation: "1",
  name,
  attnum: 1,
  type: "integer",
  typeOid: "23",
  typmod: -1,
  collation: null,
  notNull: false,
  generated: "",
  identity: "",
  isLocal: true,
  inherited: 0,
  storage: null,
  compression: null,
  statistics: null,
  options: null,
  foreignOptions: null,
  defaultOid: null,
  defaultText: null,
  ...rest,
});
const inherited = (name: string, rest: Partial<Column> = {}) => column(name, { isLocal: false, inherited: 1, ...rest });
const check = (name: string, rest: Partial<Check> = {}): Check => ({
  oid: name,
  relation: "1",
  name,
  definition: "CHECK ((a > 0))",
  validated: true,
  isLocal: true,
  inherited: 0,
  callsUserFunction: false,
  ...rest,
});
const text = (facts: Partial<TableFacts> & { relation: Relation }): string[] => {
  const whole: TableFacts = { columns: [], checks: [], parents: [], ...facts };
  return createTable(whole, planTable(whole), new Set());
};

describe("CREATE TABLE", () => {
  it("works without any column", () => {
    expect(text({ relation: relation("t") })).toEqual(["create table s.t ()"]);
  });

  it("leaves to the time after the data what looks at other tables or was never checked", () => {
    const checks = [check("a"), check("b", { callsUserFunction: true }), check("c", { validated: false })];
    expect(text({ relation: relation("t"), columns: [column("a")], checks })).toEqual([
      "create table s.t (\n    a integer,\n    constraint a CHECK ((a > 0))\n)",
    ]);
  });

  it("prints inherited columns only where they are the child's own, and what the child changed", () => {
    const parent = {
      relation: relation("p"),
      columns: [column("a", { defaultText: "1" }), column("b", { notNull: true })],
    };
    const columns = [
      inherited("a", { defaultText: "2", notNull: true }),
      inherited("b"),
      column("c", { collation: 'pg_catalog."C"', type: "text" }),
    ];
    expect(text({ relation: relation("t"), columns, parents: [parent] })).toEqual([
      'create table s.t (\n    c text collate pg_catalog."C"\n) inherits (s.p)',
      "alter table only s.t alter column a set default 2",
      "alter table only s.t alter column a set not null",
      "alter table only s.t alter column b drop not null",
    ]);
  });

  it("names a column whose parents disagree about the default, since PostgreSQL refuses to guess", () => {
    const p = { relation: relation("p"), columns: [column("a", { defaultText: "1" })] };
    const q = { relation: relation("q"), columns: [column("a", { defaultText: "2" })] };
    expect(text({ relation: relation("t"), columns: [inherited("a", { defaultText: "3" })], parents: [p, q] })[0]).toBe(
      "create table s.t (\n    a integer default 3\n) inherits (s.p, s.q)",
    );
  });

  it("keeps the columns' order where INHERITS would change it, and warns what that costs", () => {
    const parent = { relation: relation("p"), columns: [column("a"), column("b")] };
    const facts: TableFacts = {
      relation: relation("t"),
      columns: [inherited("a"), column("x"), inherited("b")],
      checks: [],
      parents: [parent],
    };
    const plan = planTable(facts);
    expect(plan.mode).toBe("joins");
    expect(plan.warnings).toEqual([expect.stringContaining("s.t keeps its column order")]);
    expect(createTable(facts, plan, new Set())).toEqual([
      "create table s.t (\n    a integer,\n    x integer,\n    b integer\n)",
      "alter table s.t inherit s.p",
    ]);
  });

  it("keeps storage, compression, statistics and options of columns, and of the table and its toast", () => {
    const columns = [
      column("a", { storage: "external", compression: "pglz", statistics: 0, options: ["n_distinct=-1"] }),
    ];
    const options = { options: ["fillfactor=70"], toastOptions: ["autovacuum_enabled=false"] };
    expect(text({ relation: relation("t", { persistence: "u", replicaIdentity: "f", ...options }), columns })).toEqual([
      "create unlogged table s.t (\n    a integer\n) with (fillfactor = 70, toast.autovacuum_enabled = 'false')",
      "alter table only s.t alter column a set storage external",
      "alter table only s.t alter column a set compression pglz",
      "alter table only s.t alter column a set statistics 0",
      "alter table only s.t alter column a set (n_distinct = '-1')",
      "alter table only s.t replica identity full",
    ]);
  });

  it("of a type prints only what the type does not say", () => {
    const columns = [column("a"), column("b", { defaultText: "1", notNull: true })];
    expect(text({ relation: relation("t", { ofType: "s.row" }), columns })).toEqual([
      "create table s.t of s.row (\n    b with options default 1 not null\n)",
    ]);
    expect(text({ relation: relation("t", { ofType: "s.row" }), columns: [column("a")] })).toEqual([
      "create table s.t of s.row",
    ]);
  });

  it("keeps generated columns generated when defaults stand apart", () => {
    const facts: TableFacts = {
      relation: relation("t"),
      columns: [
        column("a", { defaultOid: "7", defaultText: "f()" }),
        column("b", { defaultOid: "8", defaultText: "a + 1", generated: "s" }),
      ],
      checks: [],
      parents: [],
    };
    expect(createTable(facts, planTable(facts), new Set(["pg_attrdef:7", "pg_attrdef:8"]))).toEqual([
      "create table s.t (\n    a integer,\n    b integer generated always as (a + 1) stored\n)",
    ]);
  });
});
