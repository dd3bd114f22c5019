/** Tables, names and changes that a restore of rows could trip over. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { insertTexts } from "../../src/shared/rows/apply/insert_text.ts";
import { readForeignKeys } from "../../src/shared/rows/apply/keys.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { readAsOwner } from "../../src/shared/rows/apply/read_as_owner.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";
import { query, useCluster } from "../support/cluster.ts";
import { besideOf, bringBack, type Past, pastOf, patient, rowsOf } from "./rows_fixture.ts";

const cluster = useCluster();
let past: Past;

/** What stands in the backup; each test has a schema of its own. */
const worlds: Readonly<Record<string, string>> = {
  keynames:
    `create table keynames.t ("action" text, "done" int, "step" int, "copies" int, "row" text, s int, l int, d int, x text,
      primary key ("action", "done", "step", "copies", "row", s, l, d));
    insert into keynames.t select 'a' || i, i, i, i, 'r', i, i, i, 'x' from generate_series(1, 5) as i`,
  leafkeys: `create table leafkeys.parent (id int primary key); insert into leafkeys.parent values (1), (2), (3);
    create table leafkeys.t (id int, day int, parent_id int references leafkeys.parent, primary key (id, day)) partition by list (day);
    create table leafkeys.t_1 partition of leafkeys.t for values in (1); create table leafkeys.t_2 partition of leafkeys.t for values in (2);
    insert into leafkeys.t select i, 1 + i % 2, i from generate_series(1, 3) as i`,
  leafparent: `create table leafparent.t (id int, day int, x text, primary key (id, day)) partition by list (day);
    create table leafparent.t_1 partition of leafparent.t for values in (1); create table leafparent.t_2 partition of leafparent.t for values in (2);
    create table leafparent.child (id int primary key, t_id int, day int, foreign key (t_id, day) references leafparent.t);
    insert into leafparent.t select i, 1 + i % 2, 'x' from generate_series(1, 4) as i`,
  leafown: `create table leafown.parent (id int primary key); insert into leafown.parent values (1), (2), (3);
    create table leafown.t (id int, day int, parent_id int, primary key (id, day)) partition by list (day);
    create table leafown.t_1 partition of leafown.t for values in (1); create table leafown.t_2 partition of leafown.t for values in (2);
    alter table leafown.t_1 add constraint own_key foreign key (parent_id) references leafown.parent;
    insert into leafown.t values (1, 1, 1), (2, 2, 99), (3, 1, 3)`,
  heir: `create table heir.parent (id int primary key); create table heir.parent_child () inherits (heir.parent);
    create table heir.t (id int primary key, p int references heir.parent);
    insert into heir.parent values (1), (2); insert into heir.t values (1, 1), (2, 2)`,
  heirchild:
    `create table heirchild.parent (id int primary key, x text); create table heirchild.t (id int primary key, p int references heirchild.parent);
    create table heirchild.t_child () inherits (heirchild.t);
    insert into heirchild.parent values (1, 'a'), (2, 'b'); insert into heirchild.t_child values (1, 9), (2, 5)`,
  deferred:
    `create table deferred.t (id int primary key, place int, constraint one_place unique (place) deferrable initially deferred);
    insert into deferred.t values (1, 1), (2, 2), (3, 3)`,
  excluded:
    `create table excluded.t (id int primary key, during int4range, constraint apart exclude using gist (during with &&) deferrable);
    insert into excluded.t values (1, '[1,10)'), (2, '[10,20)')`,
  deferpart:
    `create table deferpart.t (id int, day int, x text, primary key (id, day), unique (day, x) deferrable) partition by list (day);
    create table deferpart.t_1 partition of deferpart.t for values in (1); insert into deferpart.t values (1, 1, 'A'), (2, 1, 'B')`,
  defernull:
    `create table defernull.t (id int primary key, x int, unique nulls not distinct (x) deferrable); insert into defernull.t values (1, null), (2, 5)`,
  deferexpr:
    `create table deferexpr.t (id int primary key, x text, live boolean, constraint "One; name" exclude (lower(trim(x)) with =) where (live) deferrable);
    insert into deferexpr.t values (1, 'a', true), (2, 'a', false), (3, 'b', true)`,
  deferbag:
    `create table deferbag.t (a int unique deferrable, x text); insert into deferbag.t values (1, 'x'), (2, 'y')`,
  policy: `insert into auth.users (id) values ('11111111-1111-4111-8111-111111111111');
    create table policy.t (id int primary key, user_id uuid references auth.users);
    insert into policy.t values (1, '11111111-1111-4111-8111-111111111111');
    alter table policy.t enable row level security; create policy failing on policy.t using (current_setting('app.nope') = 'x');
    grant usage on schema policy to authenticated; grant select on policy.t to authenticated`,
  renamed:
    `create table renamed.t (id int primary key, a text, b text); insert into renamed.t values (1, 'a1', 'b1'), (2, 'a2', 'b2')`,
  longer:
    `create table longer.t (id int primary key, code varchar(3), x text); insert into longer.t values (1, 'abc', 'x'), (2, 'abd', 'x')`,
  priced:
    `create table priced.t (id int primary key, price numeric(6, 2)); insert into priced.t values (1, 1.24), (2, 1.23)`,
  loose: `create collation loose.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table loose.t (id int primary key, name text collate loose.ci, x text); insert into loose.t values (1, 'Bob', 'x'), (2, 'bob', 'y'), (3, 'eve', 'z')`,
  loosekey: `create collation loosekey.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table loosekey.t (name text collate loosekey.ci primary key, x text); insert into loosekey.t values ('Bob', 'x'), ('eve', 'y'), ('Ann', 'z')`,
  bag:
    `create table bag.t (a int, b text, c text); insert into bag.t values (1, 'x', 'c'), (1, 'x', 'c'), (2, 'y', 'c')`,
  composite:
    `create type composite.pair as (a int, b int); create table composite.t (k composite.pair primary key, x text);
    insert into composite.t values (row(1, 2), 'x'), (row(null, null), 'nulls'), (row(1, null), 'half')`,
  compositefk:
    `create type compositefk.pair as (a int, b int); create table compositefk.parent (k compositefk.pair primary key);
    create table compositefk.t (id int primary key, k compositefk.pair references compositefk.parent);
    insert into compositefk.parent values (row(1, null)), (row(2, 2)); insert into compositefk.t values (1, row(1, null)), (2, row(2, 2))`,
  wide:
    `do $$ begin execute 'create table wide.t (' || (select string_agg('c' || i || ' smallint' || case i when 1 then ' primary key' else '' end, ',') from generate_series(1, 1600) as i) || ')'; end $$;
    insert into wide.t (c1, c1600) select i, i from generate_series(1, 20) as i`,
  widebag:
    `do $$ begin execute 'create table widebag.t (' || (select string_agg('c' || i || ' smallint', ',') from generate_series(1, 1600) as i) || ')'; end $$;
    insert into widebag.t (c1, c1600) select i, i from generate_series(1, 20) as i`,
  matchfull:
    `create table matchfull.parent (a int, b int, primary key (a, b)); insert into matchfull.parent values (1, 1);
    create table matchfull.t (id int primary key, a int, b int); insert into matchfull.t values (1, 1, null), (2, 1, 1)`,
  seq:
    `create table seq.t (id int generated by default as identity (maxvalue 100) primary key, x text); insert into seq.t values (500, 'beyond'), (7, 'x')`,
  seqleaf:
    `create table seqleaf.t (id bigserial, day int, primary key (id, day)) partition by list (day); create table seqleaf.t_1 partition of seqleaf.t for values in (1);
    insert into seqleaf.t (day) select 1 from generate_series(1, 5)`,
  dom:
    `create domain dom.pos as int check (value > 0); create table dom.t (id int primary key, v dom.pos); insert into dom.t values (1, 1), (2, 2)`,
  newkey:
    `create table newkey.t (id int primary key, other int, x text); insert into newkey.t values (1, null, 'a'), (2, 22, 'b')`,
  retyped: `create table retyped.t (id int primary key, n text); insert into retyped.t values (1, 'word'), (2, '2')`,
  ruled: `create table ruled.t (id int primary key, x text); insert into ruled.t values (1, 'a'), (2, 'b')`,
  moved:
    `create table moved.p (id int primary key); create table moved.t (id int primary key, p int references moved.p, owner int);
    insert into moved.p values (1); insert into moved.t values (1, 1, 5)`,
  partialu:
    `create table partialu.t (id int primary key, x text, live boolean); create unique index one_live on partialu.t (x) where live;
    create unique index low on partialu.t (lower(x)) where id > 100;
    insert into partialu.t values (1, 'a', true), (2, 'a', false), (3, 'b', true)`,
  nnd:
    `create table nnd.t (id int primary key, x int unique nulls not distinct); insert into nnd.t values (1, null), (2, 2)`,
  arrays:
    `create table arrays.t (id int[] primary key, e int4range, m int4multirange[], x char(5), "char" "char", bits bit(3), vb bit varying(5), dt interval hour to second, ts timestamp(3), tz time(2) with time zone, nm name, o oid, v xml[], cidr cidr);
    insert into arrays.t values ('{1,2}', '[1,4)', '{"{[1,2)}"}', 'ab', 'q', '101', '11', '03:04:05', '2024-01-01 10:00:00.123', '10:00+02', 'nm', 4294967295, array['<a/>'::xml], '10.0.0.0/8'), ('[2:3]={1,2}', 'empty', '{}', '', '', '000', '', '0', 'infinity', null, '', 0, null, null)`,
};

beforeAll(async () => {
  const names = Object.keys(worlds);
  past = await pastOf(
    cluster(),
    [...names.map((name) => `create schema ${name}`), ...Object.values(worlds)].join(";\n"),
  );
}, 120_000);
afterAll(() => past?.connection.close());

const change = (sql: string) => query(past.url, sql);

async function replaceAgain(schema: string, sql: string, table = "t") {
  const was = await rowsOf(past.url, `${schema}.${table}`);
  await change(sql);
  const beside = await besideOf(past, schema, table);
  const done = await bringBack(past, beside, "replace");
  expect(await rowsOf(past.url, `${schema}.${table}`)).toEqual(was);
  return done;
}

const putAnyway = async (
  schema: string,
  table: string,
  mode: "missing" | "merge" | "replace",
  where: string[] = [],
) => {
  const beside = await besideOf(past, schema, table, where);
  return await putBack(past.connection, beside.pairs, beside.keys, {
    ...patient,
    wholeTables: where.length === 0,
    mode,
  });
};

describe("a restore of rows", () => {
  it("takes key columns that are called as columns of its own tables", async () => {
    await replaceAgain(
      "keynames",
      `delete from keynames.t where "done" = 1; update keynames.t set x = 'y' where "done" = 2`,
    );
  });
  it("of one partition is refused where a key of the whole table would lack its parent", async () => {
    await change("delete from leafkeys.t; delete from leafkeys.parent where id = 2");
    await expect(putAnyway("leafkeys", "t_1", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("of one partition is refused where others refer to its rows through the whole table, and to these alone", async () => {
    await change("insert into leafparent.t values (8, 1, 'new'); insert into leafparent.child values (1, 8, 1)");
    await expect(putAnyway("leafparent", "t_1", "replace")).rejects.toMatchObject({ code: "rows_conflict" });
    await change(
      "delete from leafparent.child; delete from leafparent.t where id = 2; insert into leafparent.child values (3, 3, 2)",
    );
    await putAnyway("leafparent", "t_1", "replace");
    expect(await rowsOf(past.url, "leafparent.t")).toHaveLength(4);
  });
  it("of a partitioned table heeds a key that one partition has alone", async () => {
    await change("delete from leafown.t; delete from leafown.parent where id = 1");
    await expect(putAnyway("leafown", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
    await change("insert into leafown.parent values (1)");
    await putAnyway("leafown", "t", "missing");
    expect(await rowsOf(past.url, "leafown.t")).toHaveLength(3);
  });
  it("takes no row of an inheriting table for a parent", async () => {
    await change("delete from heir.t; delete from heir.parent where id = 1; insert into heir.parent_child values (1)");
    await expect(putAnyway("heir", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("is not hindered by rows of an inheriting table, which no key binds", async () => {
    await change("insert into heirchild.parent values (5, 'new')");
    const beside = await besideOf(past, "heirchild", "parent");
    const { plan } = await bringBack(past, beside, "replace");
    expect(plan.tables[0]?.conflicts).toEqual([]);
  });
  it("is refused by a deferrable unique key", async () => {
    await change("delete from deferred.t where id = 1; insert into deferred.t values (9, 1)");
    await expect(putAnyway("deferred", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("is refused by a deferrable exclusion", async () => {
    await change("delete from excluded.t where id = 1; insert into excluded.t values (9, '[3,5)')");
    await expect(putAnyway("excluded", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("is refused by deferrable keys of partitions, of nulls, of expressions with a condition, and without a primary key", async () => {
    await change("update deferpart.t set x = lower(x)");
    await putAnyway("deferpart", "t", "merge");
    await change("delete from deferpart.t where id = 1; insert into deferpart.t values (11, 1, 'A')");
    await expect(putAnyway("deferpart", "t", "merge")).rejects.toMatchObject({
      code: "rows_conflict",
      message: expect.stringContaining("t_day_x_key"),
    });
    await expect(putAnyway("deferpart", "t_1", "merge")).rejects.toMatchObject({ code: "rows_conflict" });
    await change("delete from defernull.t where x is null; insert into defernull.t values (9, null)");
    await expect(putAnyway("defernull", "t", "missing", ["id=1"])).rejects.toMatchObject({ code: "rows_conflict" });
    await change(
      "delete from deferexpr.t where id = 1; insert into deferexpr.t values (9, 'A  ', true), (10, 'a', false)",
    );
    await expect(putAnyway("deferexpr", "t", "missing", ["id=1"])).rejects.toMatchObject({ code: "rows_conflict" });
    await change("delete from deferexpr.t where id = 9");
    await putAnyway("deferexpr", "t", "missing", ["id=1"]);
    await change("delete from deferbag.t; insert into deferbag.t values (1, 'other')");
    await expect(putAnyway("deferbag", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
    await putAnyway("deferbag", "t", "replace");
  });
  it("is done although a policy fails for its owner, who then sees nothing", async () => {
    await change("delete from policy.t");
    const beside = await besideOf(past, "policy", "t");
    await bringBack(past, beside, "missing");
    const [pair] = beside.pairs;
    if (pair === undefined) throw new Error("no pair");
    expect(await readAsOwner(past.connection, pair)).toEqual([
      { user: "11111111-1111-4111-8111-111111111111", rows: 1, visible: 0 },
    ]);
  });
  it("sees no conflict in a child that goes back to its own parent when the new one is deleted", async () => {
    const was = await rowsOf(past.url, "moved.t");
    await change("insert into moved.p values (2); update moved.t set p = 2");
    const beside = [await besideOf(past, "moved", "p"), await besideOf(past, "moved", "t")];
    const pairs = beside.flatMap((one) => one.pairs);
    const keys = await readForeignKeys(past.connection, pairs.map((pair) => pair.fit.live.oid));
    const plan = await planRows(past.connection, pairs, keys, "replace");
    expect(plan.tables.flatMap((table) => table.conflicts)).toEqual([]);
    await putBack(past.connection, pairs, keys, { ...patient, mode: "replace" });
    expect(await rowsOf(past.url, "moved.t")).toEqual(was);
    expect(await rowsOf(past.url, "moved.p")).toEqual(["(1)"]);
  });
  it("follows a column that took the name of one that was dropped", async () => {
    await change(
      "alter table renamed.t drop a; alter table renamed.t rename b to a; update renamed.t set a = 'changed'",
    );
    await putAnyway("renamed", "t", "merge");
    expect(await rowsOf(past.url, "renamed.t")).toEqual(["(1,b1)", "(2,b2)"]);
  });
  it("looks for a condition's value as it was given, not cut to the column's length", async () => {
    const beside = await besideOf(past, "longer", "t", ["code=abcdef"]);
    expect(beside.sides[0]?.rows).toBe(0);
  });
  it("looks for a condition's value as it was given, not rounded", async () => {
    const beside = await besideOf(past, "priced", "t", ["price=1.239"]);
    expect(beside.sides[0]?.rows).toBe(0);
  });
  it("deletes no row whose longer value begins like the condition's", async () => {
    await change("alter table longer.t alter code type text; insert into longer.t values (7, 'abcdef', 'other')");
    await putAnyway("longer", "t", "replace", ["code=abc"]);
    expect(await rowsOf(past.url, "longer.t")).toEqual(["(1,abc,x)", "(2,abd,x)", "(7,abcdef,other)"]);
  });
  it("deletes no row that only a loose collation finds equal to the condition", async () => {
    await putAnyway("loose", "t", "replace", ["name=bob"]);
    expect(await rowsOf(past.url, "loose.t")).toEqual(["(1,Bob,x)", "(2,bob,y)", "(3,eve,z)"]);
  });
  it("finds rows by keys under a loose collation", async () => {
    await replaceAgain(
      "loosekey",
      "update loosekey.t set name = 'BOB' where name = 'bob'; delete from loosekey.t where name = 'EVE'; update loosekey.t set name = 'ann', x = 'n' where name = 'ann'",
    );
  });
  it("adds no copies where the column of the condition is gone", async () => {
    await change("alter table bag.t drop c");
    await putAnyway("bag", "t", "missing", ["c=c"]);
    expect(await rowsOf(past.url, "bag.t")).toEqual(["(1,x)", "(1,x)", "(2,y)"]);
  });
  it("tells composite keys with nulls inside apart", async () => {
    await replaceAgain(
      "composite",
      "update composite.t set x = 'changed'; insert into composite.t values (row(null, 3), 'n')",
    );
  });
  it("looks for the parent of a composite value with a null inside", async () => {
    await change("delete from compositefk.t; delete from compositefk.parent where k = row(1, null)::compositefk.pair");
    await expect(putAnyway("compositefk", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("takes 1,600 columns", async () => {
    await replaceAgain(
      "wide",
      "delete from wide.t where c1 = 1; update wide.t set c800 = 3 where c1 = 2; insert into wide.t (c1) values (99)",
    );
    const beside = await besideOf(past, "wide", "t", ["c1=3"]);
    const side = beside.sides[0]?.side;
    if (side === undefined) throw new Error("no side");
    expect(await insertTexts(past.connection, side, beside.pairs[0], 5)).toHaveLength(1);
  });
  it("takes 1,600 columns without a key", async () => {
    await replaceAgain(
      "widebag",
      "delete from widebag.t where c1 = 1; update widebag.t set c800 = 3 where c1 = 2; insert into widebag.t (c1) values (99)",
    );
  });
  it("is refused by a key that became MATCH FULL", async () => {
    await change(
      "delete from matchfull.t where id = 1; alter table matchfull.t add constraint whole foreign key (a, b) references matchfull.parent match full",
    );
    await expect(putAnyway("matchfull", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("takes a value that its sequence can never reach", async () => {
    await replaceAgain("seq", "delete from seq.t");
    await change("insert into seq.t (x) values ('next')");
  });
  it("of one partition moves the sequence of the whole table", async () => {
    await change("delete from seqleaf.t; alter sequence seqleaf.t_id_seq restart");
    await putAnyway("seqleaf", "t_1", "missing");
    await change("insert into seqleaf.t (day) values (1)");
  });
  it("says that a value does not fit a domain that became stricter", async () => {
    await change(
      "delete from dom.t; alter table dom.t alter v type int; alter domain dom.pos drop constraint pos_check; alter domain dom.pos add check (value > 1)",
    );
    await expect(besideOf(past, "dom", "t")).rejects.toMatchObject({ code: "value_unfit" });
  });
  it("is refused where rows of then have no value under the primary key of now", async () => {
    await change(
      "update newkey.t set other = 11 where id = 1; alter table newkey.t drop constraint t_pkey; alter table newkey.t add primary key (other)",
    );
    await expect(besideOf(past, "newkey", "t").then((b) => planRows(past.connection, b.pairs, b.keys, "merge"))).rejects
      .toMatchObject({ code: "rows_conflict" });
  });
  it("says in the plan where a value does not fit, without the value", async () => {
    await change("update retyped.t set n = '7'; alter table retyped.t alter n type int using n::int");
    const b = await besideOf(past, "retyped", "t");
    const failure = await planRows(past.connection, b.pairs, b.keys, "merge").then(
      () => null,
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({
      code: "value_unfit",
      message: expect.stringMatching(/^retyped\.t \(n integer\): /),
    });
    expect(String(failure)).not.toContain("word");
  });
  it("changes nothing where a rule fires always", async () => {
    await change(
      "create rule r as on delete to ruled.t do instead nothing; alter table ruled.t enable always rule r; insert into ruled.t values (3, 'n')",
    );
    await expect(putAnyway("ruled", "t", "replace")).rejects.toMatchObject({
      code: "triggers_would_fire",
      message: expect.stringContaining("rule r"),
    });
  });
  it("fires no ordinary rule", async () => {
    await change("drop rule r on ruled.t; create rule r as on delete to ruled.t do instead nothing");
    await putAnyway("ruled", "t", "replace");
    expect(await rowsOf(past.url, "ruled.t")).toEqual(["(1,a)", "(2,b)"]);
  });
  it("heeds partial and expression keys", async () => {
    await change("update partialu.t set live = not live where id in (1, 2)");
    await putAnyway("partialu", "t", "merge");
    expect(await rowsOf(past.url, "partialu.t")).toEqual(["(1,a,t)", "(2,a,f)", "(3,b,t)"]);
    await change("delete from partialu.t where id = 3; insert into partialu.t values (4, 'b', true)");
    await expect(putAnyway("partialu", "t", "merge")).rejects.toMatchObject({ code: "rows_conflict" });
  });
  it("heeds keys under which two nulls are alike", async () => {
    await change("delete from nnd.t where id = 1; insert into nnd.t values (5, null)");
    const b = await besideOf(past, "nnd", "t");
    const plan = await planRows(past.connection, b.pairs, b.keys, "missing");
    expect(plan.tables[0]?.conflicts).toHaveLength(1);
    await expect(putAnyway("nnd", "t", "missing")).rejects.toMatchObject({ code: "rows_conflict" });
    await putAnyway("nnd", "t", "replace");
  });
  it("takes types with odd texts, and writes INSERTs that give the same rows", async () => {
    const { result } = await replaceAgain(
      "arrays",
      "update arrays.t set x = 'zz', \"char\" = 'z', bits = '111', cidr = null where id = '{1,2}'; delete from arrays.t where id <> '{1,2}'",
    );
    expect(result).toMatchObject({ inserted: 1, updated: 1 });
    const was = await rowsOf(past.url, "arrays.t");
    const beside = await besideOf(past, "arrays", "t", ["id={1,2}", "x=ab", "cidr=10.0.0.0/8"]);
    const side = beside.sides[0]?.side;
    if (side === undefined) throw new Error("no side");
    const inserts = await insertTexts(past.connection, side, beside.pairs[0], 5);
    expect(inserts).toHaveLength(1);
    await change(`begin; delete from arrays.t where id = '{1,2}'; ${inserts.join("")} commit`);
    expect(await rowsOf(past.url, "arrays.t")).toEqual(was);
  });
});
