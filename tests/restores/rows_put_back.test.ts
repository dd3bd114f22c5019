/** Rows of a backup back into tables that went on living. The oracle is the table as it was, row by row. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { query, useCluster, withClient } from "../support/cluster.ts";
import { besideOf, bringBack, type Past, pastOf, patient, rowsOf } from "./rows_fixture.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";

const cluster = useCluster();

/** One table, what happens to it behind the backup, and what each mode is to do. */
interface Case {
  readonly name: string;
  readonly table?: readonly [string, string];
  readonly make: string;
  readonly then: string;
  /** Inserted, updated, deleted by `replace`. */
  readonly counts: readonly [number, number, number];
}

const odd = `create schema "Odd x"; create type "Odd x"."Mo.od" as enum ('a', 'B"', 'ü');`;

const equalAgain: readonly Case[] = [
  {
    name: "rows that were deleted, changed and added",
    make:
      "create table app.t (id int primary key, x text); insert into app.t select i, 'x' || i from generate_series(1, 3000) as i",
    then:
      "delete from app.t where id <= 10; update app.t set x = 'other' where id between 20 and 24; insert into app.t values (9001, 'n')",
    counts: [10, 5, 1],
  },
  {
    name: "unique values that were swapped",
    make:
      "create table app.t (id int primary key, place int unique); insert into app.t select i, i from generate_series(1, 100) as i",
    then: "update app.t set place = -place; update app.t set place = case id when 1 then 2 when 2 then 1 else id end",
    counts: [0, 2, 0],
  },
  {
    name: "identity columns that are always generated, and generated ones",
    make:
      `create table app.t (id int generated always as identity primary key, a int, b int generated always as (a * 2) stored);
      insert into app.t (a) select i from generate_series(1, 50) as i`,
    then: "delete from app.t where id > 40; update app.t set a = 0 where id = 3",
    counts: [10, 1, 0],
  },
  {
    name: "values of every awkward kind",
    make:
      `create table app.t (id uuid primary key default gen_random_uuid(), f float8, n numeric, j json, jb jsonb, arr int[], ts timestamptz,
        iv interval, b bytea, d date, p point, x xml, txt text, nul text);
      insert into app.t (f, n, j, jb, arr, ts, iv, b, d, p, x, txt) values
        ('-0', '1.00', '{"a": 1,  "a": 2}', 'null', '[2:3]={1,2}', 'infinity', '1 mon -1 day', '\\x00ff', '0044-03-15 BC', '(1,2)', '<a/>', E'tab\\there\\nline\\\\'),
        ('NaN', 'NaN', 'null', '{"a": null}', '{}', '-infinity', '0', '\\x', 'infinity', '(-0,0)', null, ''),
        ('0', '1.0', '[]', '[1.0, 1]', null, '2024-01-01 12:00:00.000001+00', '1 year', null, '2024-02-29', null, '<b/>', repeat('long ', 5000))`,
    then:
      `update app.t set f = 0 where f::text = '-0'; update app.t set n = 1.0 where n::text = '1.00'; update app.t set nul = '';
      delete from app.t where f::text = 'NaN'`,
    counts: [1, 2, 0],
  },
  {
    name: "names with quotes, spaces and other letters",
    table: ["Odd x", 'Ta"ble.1'],
    make:
      `${odd} create table "Odd x"."Ta""ble.1" ("I d" int, "k""2" "Odd x"."Mo.od", "Groß" text, "row" text, "done" int, "action" text,
        copies int, primary key ("I d", "k""2"));
      insert into "Odd x"."Ta""ble.1" select i, (array['a', 'B"', 'ü'])[1 + i % 3]::"Odd x"."Mo.od", 'x', 'r', i, 'insert', 1 from generate_series(1, 30) as i`,
    then:
      `delete from "Odd x"."Ta""ble.1" where "I d" < 5; update "Odd x"."Ta""ble.1" set "Groß" = null where "I d" = 7`,
    counts: [4, 1, 0],
  },
  {
    name: "a table without a key, where rows are there several times",
    make:
      `create table app.t (a int, b text); insert into app.t values (1, 'x'), (1, 'x'), (1, 'x'), (2, null), (3, 'gone')`,
    then:
      "delete from app.t where ctid = (select min(ctid) from app.t where a = 1); delete from app.t where a = 3; insert into app.t values (2, null), (9, 'new')",
    counts: [2, 0, 2],
  },
  {
    name: "a table without columns",
    make: "create table app.t (); insert into app.t select from generate_series(1, 4)",
    then: "delete from app.t where ctid = (select min(ctid) from app.t)",
    counts: [1, 0, 0],
  },
  {
    name: "a partitioned table, whose rows moved between partitions",
    make: `create table app.t (id int, day date, x text, primary key (id, day)) partition by range (day);
      create table app.t_1 partition of app.t for values from ('2024-01-01') to ('2024-02-01');
      create table app.t_2 (x text, day date not null, id int not null); alter table app.t attach partition app.t_2 for values from ('2024-02-01') to ('2024-03-01');
      create table app.t_rest partition of app.t default;
      insert into app.t select i, '2024-01-01'::date + i, 'x' from generate_series(1, 80) as i`,
    then:
      "delete from app.t where id < 10; update app.t set x = 'y' where id = 50; update app.t set day = '2024-01-02' where id = 70",
    counts: [10, 1, 1],
  },
  {
    name: "a table that others inherit from",
    make: `create table app.t (id int primary key, x text); create table app.child (y int) inherits (app.t);
      insert into app.t values (1, 'a'), (2, 'b'); insert into app.child values (1, 'child', 5), (7, 'child', 6)`,
    then: "delete from only app.t where id = 1; delete from app.child where id = 7",
    counts: [1, 0, 0],
  },
  {
    name: "a primary key in another order than its columns, with others beside it",
    make:
      "create table app.t (x text, b int, a int, primary key (a, b) include (x)); insert into app.t select 'x', i % 7, i from generate_series(1, 90) as i",
    then: "delete from app.t where a % 9 = 0; update app.t set x = 'y' where a = 4",
    counts: [10, 1, 0],
  },
  {
    name: "rows that point at each other",
    make:
      `create table app.t (id int primary key, parent int references app.t deferrable); insert into app.t values (1, 2), (2, 3), (3, 1), (4, null)`,
    then: "begin; set constraints all deferred; delete from app.t where id < 4; commit",
    counts: [3, 0, 0],
  },
  {
    name: "case twins under a type of an extension",
    make:
      "create schema if not exists extensions; create extension if not exists citext schema extensions; create table app.t (k extensions.citext primary key, x int); insert into app.t values ('Aa', 1), ('b', 2)",
    then: "update app.t set k = 'aA' where k = 'Aa'; delete from app.t where k = 'B'",
    counts: [1, 1, 0],
  },
];

/** Each in a schema of its own instead of `app`, all in one backup. */
function inSchema(one: Case, index: number): Case {
  const own = (sql: string) => sql.replace(/\bapp\./g, `app_${index}.`);
  const [schema, name] = one.table ?? ["app", "t"];
  return {
    ...one,
    table: [schema === "app" ? `app_${index}` : schema, name],
    make: own(one.make),
    then: own(one.then),
  };
}

describe("replace makes a table what it was", () => {
  const cases = equalAgain.map(inSchema);
  let past: Past;

  beforeAll(async () => {
    const schemas = cases.map((_, index) => `create schema app_${index}`).join("; ");
    past = await pastOf(cluster(), [schemas, ...cases.map((one) => one.make)].join(";\n"));
  }, 60_000);
  afterAll(() => past.connection.close());

  for (const one of cases) {
    it(one.name, async () => {
      const [schema, name] = one.table ?? ["", ""];
      const relation = `${/partition by/.test(one.make) ? "" : "only "}${quoted(schema)}.${quoted(name)}`;
      const was = await rowsOf(past.url, relation);
      expect(was.length).toBeGreaterThan(1);
      await query(past.url, one.then);
      expect(await rowsOf(past.url, relation)).not.toEqual(was);
      const beside = await besideOf(past, schema, name);
      const { plan, result } = await bringBack(past, beside, "replace");
      const [insert, update, gone] = one.counts;
      expect(plan.tables[0]).toMatchObject({ insert, update, delete: gone, conflicts: [] });
      expect(result).toMatchObject({ inserted: insert, updated: update, deleted: gone });
      expect(await rowsOf(past.url, relation)).toEqual(was);
      // Again: nothing is left to do.
      const again = await planRows(past.connection, beside.pairs, beside.keys, "replace");
      expect(again.tables[0]).toMatchObject({ insert: 0, update: 0, delete: 0 });
    }, 60_000);
  }
});

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

describe("the other modes", () => {
  it("put back what is gone, or also what differs, and leave the rest alone", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id int primary key, x text); insert into app.t values (1, 'a'), (2, 'b'), (3, 'c')",
    );
    await query(
      past.url,
      "delete from app.t where id = 1; update app.t set x = 'changed' where id = 2; insert into app.t values (4, 'new')",
    );
    const beside = await besideOf(past, "app", "t");
    const missing = await bringBack(past, beside, "missing");
    expect(missing.result).toMatchObject({ inserted: 1, updated: 0, deleted: 0 });
    expect(await rowsOf(past.url, "app.t")).toEqual(["(1,a)", "(2,changed)", "(3,c)", "(4,new)"]);
    const merge = await bringBack(past, beside, "merge");
    expect(merge.result).toMatchObject({ inserted: 0, updated: 1, deleted: 0 });
    expect(await rowsOf(past.url, "app.t")).toEqual(["(1,a)", "(2,b)", "(3,c)", "(4,new)"]);
    await past.connection.close();
  }, 60_000);

  it("of records touch the rows that fit the condition alone", async () => {
    const past = await pastOf(
      cluster(),
      `create schema app; create table app.t (id int primary key, owner uuid, x text);
       insert into app.t values (1, '11111111-1111-1111-1111-111111111111', 'a'), (2, '11111111-1111-1111-1111-111111111111', 'b'),
         (3, '22222222-2222-2222-2222-222222222222', 'c')`,
    );
    await query(
      past.url,
      "delete from app.t; insert into app.t values (8, '11111111-1111-1111-1111-111111111111', 'new'), (9, null, 'other')",
    );
    const beside = await besideOf(past, "app", "t", ["owner=11111111-1111-1111-1111-111111111111"]);
    expect(beside.sides[0]?.rows).toBe(2);
    const { result } = await bringBack(past, beside, "replace", { wholeTables: false });
    expect(result).toMatchObject({ inserted: 2, updated: 0, deleted: 1 });
    expect(await query(past.url, "select id, x from app.t order by id")).toEqual([
      { id: 1, x: "a" },
      { id: 2, x: "b" },
      { id: 9, x: "other" },
    ]);
    await past.connection.close();
  }, 60_000);
});

describe("a table that was altered since", () => {
  it("keeps what its new columns hold, gives defaults to rows that come new, and says what is lost", async () => {
    const past = await pastOf(
      cluster(),
      `create schema app; create table app.t (id int primary key, old_name text, gone text, n text, kept text);
       insert into app.t select i, 'o' || i, 'g', i::text, 'k' from generate_series(1, 5) as i`,
    );
    await query(
      past.url,
      `alter table app.t rename old_name to new_name; alter table app.t drop gone; alter table app.t add added text default 'preset';
       alter table app.t alter n type int using n::int; alter table app.t rename to notes;
       update app.notes set added = 'by hand', kept = 'changed' where id = 2; delete from app.notes where id = 1`,
    );
    const beside = await besideOf(past, "app", "t");
    const { plan, result } = await bringBack(past, beside, "replace");
    expect(result).toMatchObject({ inserted: 1, updated: 1, deleted: 0 });
    expect(await query(past.url, "select id, new_name, n, kept, added from app.notes where id < 3 order by id"))
      .toEqual([
        { id: 1, new_name: "o1", n: 1, kept: "k", added: "preset" },
        { id: 2, new_name: "o2", n: 2, kept: "k", added: "by hand" },
      ]);
    expect(plan.tables[0]?.notes.join("\n")).toMatch(
      /app\.t is called app\.notes now[^]*old_name .*called new_name[^]*n .*was text and is integer[^]*no column gone[^]*got column added/,
    );
    await past.connection.close();
  }, 60_000);

  it("refuses a value that its type does not take any more, and is left as it was", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id int primary key, n text); insert into app.t values (1, 'word'), (2, '2')",
    );
    await query(
      past.url,
      "delete from app.t; alter table app.t alter n type int using n::int; insert into app.t values (7, 7)",
    );
    const beside = await besideOf(past, "app", "t");
    await expect(bringBack(past, beside, "replace")).rejects.toMatchObject({ code: "value_unfit" });
    expect(await rowsOf(past.url, "app.t")).toEqual(["(7,7)"]);
    await past.connection.close();
  }, 60_000);

  it("that is gone has its rows beside, and nowhere to go back to", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id int primary key); insert into app.t values (1), (2)",
    );
    await query(past.url, "drop table app.t");
    const beside = await besideOf(past, "app", "t");
    expect(beside.pairs).toEqual([]);
    expect(beside.unfit).toMatchObject([{ reason: "table app.t is not there any more" }]);
    expect(await rowsOf(past.url, `${beside.schema}.t`)).toEqual(["(1)", "(2)"]);
    await past.connection.close();
  }, 60_000);
});

const family = `create schema app;
  create table app.parent (id int primary key, code text unique);
  create table app.child (id int primary key, parent_id int references app.parent on delete cascade, code text references app.parent (code));
  insert into app.parent select i, 'c' || i from generate_series(1, 5) as i;
  insert into app.child select i, i, null from generate_series(1, 5) as i`;

describe("conflicts are in the plan, and applying changes nothing", () => {
  it("a parent that is missing", async () => {
    const past = await pastOf(cluster(), family);
    await query(past.url, "delete from app.parent where id = 1");
    const beside = await besideOf(past, "app", "child");
    const plan = await planRows(past.connection, beside.pairs, beside.keys, "missing");
    expect(plan.tables[0]?.conflicts).toEqual([
      { what: "a parent is missing", name: "child_parent_id_fkey", other: "app.parent", rows: 1 },
    ]);
    await expect(putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode: "missing" })).rejects
      .toMatchObject({ code: "rows_conflict", message: expect.stringContaining("child_parent_id_fkey") });
    expect(await rowsOf(past.url, "app.child")).toHaveLength(4);
    await past.connection.close();
  }, 60_000);

  it("rows that others now refer to, by a key of any kind", async () => {
    const past = await pastOf(cluster(), family);
    await query(past.url, "insert into app.parent values (9, 'nine'); insert into app.child values (9, 9, null)");
    const beside = await besideOf(past, "app", "parent");
    const plan = await planRows(past.connection, beside.pairs, beside.keys, "replace");
    expect(plan.tables[0]?.conflicts).toEqual([
      { what: "still referred to", name: "child_parent_id_fkey", other: "app.child", rows: 1 },
    ]);
    await expect(putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode: "replace" })).rejects
      .toMatchObject({ code: "rows_conflict" });
    // A referenced value that is no primary key goes with a merge.
    await query(past.url, "delete from app.child where id = 9; delete from app.parent where id = 9");
    await query(
      past.url,
      "update app.parent set code = 'other' where id = 2; update app.child set code = 'other' where id = 3",
    );
    await expect(bringBack(past, await besideOf(past, "app", "parent"), "merge")).rejects.toMatchObject({
      code: "rows_conflict",
      message: expect.stringContaining("child_code_fkey"),
    });
    expect(await query(past.url, "select code from app.parent where id = 2")).toEqual([{ code: "other" }]);
    await past.connection.close();
  }, 60_000);

  it("a unique value that another row has taken", async () => {
    const past = await pastOf(cluster(), family);
    await query(
      past.url,
      "delete from app.child where id = 1; delete from app.parent where id = 1; insert into app.parent values (70, 'c1')",
    );
    const beside = await besideOf(past, "app", "parent");
    const plan = await planRows(past.connection, beside.pairs, beside.keys, "missing");
    expect(plan.tables[0]?.conflicts).toEqual([
      { what: "a unique key is taken", name: "parent_code_key", other: null, rows: 1 },
    ]);
    await expect(putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode: "missing" })).rejects
      .toMatchObject({ code: "rows_conflict" });
    // `replace` takes the other row away, so that nothing is in the way.
    const replaced = await planRows(past.connection, beside.pairs, beside.keys, "replace");
    expect(replaced.tables[0]?.conflicts).toEqual([]);
    await past.connection.close();
  }, 60_000);

  it("what a check, a column that has to have a value, an exclusion or a key over an expression refuses", async () => {
    const past = await pastOf(
      cluster(),
      `create schema app;
       create or replace function public.limit_of() returns int language sql immutable as 'select 99';
       create function app.is_short(t text) returns boolean language sql immutable as $$ select length(t) < limit_of() $$;
       create table app.people (id int primary key, email text, nick text, span int4range, gone bool not null default false, pay int);
       insert into app.people select i, 'Person' || i || '@x', 'n' || i, int4range(i * 10, i * 10 + 5), false, i from generate_series(1, 6) i;
       insert into app.people values (7, null, null, null, true, null);
       create table app.notes (said text); insert into app.notes values ('a'), ('a'), ('too long');
       create function app.none() returns boolean language sql stable as $$ select not exists (select from app.notes) $$`,
    );
    await query(
      past.url,
      `delete from app.people; truncate app.notes;
       create unique index "one e-mail" on app.people (lower(email)) where not gone;
       alter table app.people add constraint apart exclude using gist (span with &&), alter nick set not null,
         add constraint paid check (pay < 6), add column later int default 3, add constraint later check (later > 5),
         alter gone drop not null;
       alter table app.notes add constraint short check (length(said) < 3);
       insert into app.people values (80, 'PERSON1@X', 'x', null, false, 1, 9), (81, 'person2@x', 'x', null, true, 1, 9),
         (83, null, 'x', int4range(38, 43), true, 1, 9);
       alter table app.people add constraint short check (app.is_short(nick)) not valid, add constraint none check (app.none())`,
    );
    const beside = [await besideOf(past, "app", "people"), await besideOf(past, "app", "notes")] as const;
    const plans = [];
    for (const { pairs, keys } of beside) plans.push(await planRows(past.connection, pairs, keys, "missing"));
    expect(plans.map(({ tables }) => tables[0]?.conflicts)).toEqual([[
      { what: "a value is missing", name: "nick", other: null, rows: 1 },
      { what: "a check refuses it", name: "paid", other: null, rows: 1 },
      { what: "a unique key is taken", name: "apart", other: null, rows: 1 },
      { what: "a unique key is taken", name: "one e-mail", other: null, rows: 1 },
    ], [
      { what: "a check refuses it", name: "short", other: null, rows: 1 },
    ]]);
    for (const { pairs, keys } of beside) {
      await expect(putBack(past.connection, pairs, keys, { ...patient, mode: "missing" })).rejects
        .toMatchObject({ code: "rows_conflict" });
    }
    // A condition that the backup's rows do not decide is left to the server; one that cannot be asked is named.
    await query(
      past.url,
      `drop index app."one e-mail"; alter table app.people drop constraint apart, drop constraint paid, alter nick drop not null`,
    );
    const people = await besideOf(past, "app", "people");
    const open = await planRows(past.connection, people.pairs, people.keys, "missing");
    expect(open.tables[0]).toMatchObject({ insert: 7, conflicts: [] });
    expect(open.tables[0]?.notes).toContain("whether short of app.people refuses rows is seen when they go in");
    await expect(putBack(past.connection, people.pairs, people.keys, { ...patient, mode: "missing" })).rejects
      .toMatchObject({ code: "rows_conflict", message: expect.stringContaining("later") });
    await past.connection.close();
  }, 60_000);

  it("triggers that fire whatever a restore sets", async () => {
    const past = await pastOf(
      cluster(),
      `${family}; create table app.fired (x text); create function app.fire() returns trigger language plpgsql as
         $$ begin insert into app.fired values (tg_op); return new; end $$;
       create trigger ordinary before insert on app.child for each row execute function app.fire();
       create trigger always before insert on app.child for each row execute function app.fire();
       alter table app.child enable always trigger always`,
    );
    await query(past.url, "delete from app.child where id = 2; truncate app.fired");
    const beside = await besideOf(past, "app", "child");
    const plan = await planRows(past.connection, beside.pairs, beside.keys, "missing");
    expect(plan.tables[0]?.alwaysTriggers).toEqual(["always"]);
    await expect(putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode: "missing" })).rejects
      .toMatchObject({ code: "triggers_would_fire" });
    await putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode: "missing", fireTriggers: true });
    expect(await rowsOf(past.url, "app.fired")).toEqual(["(INSERT)"]);
    expect(await rowsOf(past.url, "app.child")).toHaveLength(5);
    await past.connection.close();
  }, 60_000);
});

describe("while others write", () => {
  it("a parent that came back cannot be deleted before the commit, and no orphan is left", async () => {
    const past = await pastOf(cluster(), family);
    await query(past.url, "delete from app.child where id = 1");
    const beside = await besideOf(past, "app", "child");
    let blocked = false;
    await putBack(past.connection, beside.pairs, beside.keys, {
      ...patient,
      mode: "missing",
      beforeCommit: async () => {
        await withClient(past.url, async (client) => {
          await client.query("set lock_timeout = '200ms'");
          await client.query("delete from app.parent where id = 1").catch((error: { code?: string }) => {
            blocked = error.code === "55P03";
          });
        });
      },
    });
    expect(blocked).toBe(true);
    await past.connection.close();
  }, 60_000);

  it("a row that somebody inserted meanwhile makes it fail as a whole", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id int primary key, x text); insert into app.t values (1, 'a'), (2, 'b')",
    );
    await query(past.url, "delete from app.t");
    const beside = await besideOf(past, "app", "t", ["id=1"]);
    await withClient(past.url, async (client) => {
      await client.query("begin; insert into app.t values (1, 'mine')");
      const restoring = putBack(past.connection, beside.pairs, beside.keys, {
        ...patient,
        wholeTables: false,
        mode: "missing",
      });
      const ended = expect(restoring).rejects.toMatchObject({ code: "rows_conflict" });
      // It waits for the other's transaction, whose end decides.
      await expect.poll(async () => {
        const [row] = await query(past.url, "select count(*)::int as n from pg_locks where not granted");
        return row?.["n"];
      }).toBe(1);
      await client.query("commit");
      await ended;
    });
    expect(await rowsOf(past.url, "app.t")).toEqual(["(1,mine)"]);
    await past.connection.close();
  }, 60_000);
});

describe("what is around the rows", () => {
  it("sequences of identity and serial columns are ahead of what came back, and never go backwards", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id bigint generated always as identity primary key, s serial); insert into app.t default values; insert into app.t overriding system value values (500, 700)",
    );
    await query(
      past.url,
      "delete from app.t; alter sequence app.t_id_seq restart with 2; select setval('app.t_s_seq', 900)",
    );
    const { result } = await bringBack(past, await besideOf(past, "app", "t"), "missing");
    expect(result.sequences).toEqual(["app.t_id_seq (id)"]);
    await query(past.url, "insert into app.t default values");
    expect(await rowsOf(past.url, "app.t")).toEqual(["(1,1)", "(500,700)", "(501,901)"]);
    await past.connection.close();
  }, 60_000);

  it("side tables are closed to everybody, whatever default privileges say", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id int primary key); insert into app.t values (1), (2); alter default privileges grant all on tables to anon, authenticated, public",
    );
    const beside = await besideOf(past, "app", "t");
    const open = await query(
      past.url,
      `select c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = '${beside.schema}' and c.relkind = 'r' and (
          not c.relrowsecurity or exists (select from aclexplode(c.relacl) as x where x.grantee <> c.relowner))`,
    );
    expect(open).toEqual([]);
    await past.connection.close();
  }, 60_000);

  it("the rows as they were before are kept beside", async () => {
    const past = await pastOf(
      cluster(),
      "create schema app; create table app.t (id int primary key, x text); insert into app.t values (1, 'a'), (2, 'b')",
    );
    await query(past.url, "update app.t set x = 'later' where id = 1; insert into app.t values (3, 'new')");
    const beside = await besideOf(past, "app", "t");
    await bringBack(past, beside, "replace");
    expect(await rowsOf(past.url, `${beside.schema}."holdfast before 1"`)).toEqual(["(1,later)", "(3,new)"]);
    await past.connection.close();
  }, 60_000);

  it("a schema of the user's that is only called alike is in backups, or named where it cannot be", async () => {
    const past = await pastOf(
      cluster(),
      "create schema restore_20240101_old; create table restore_20240101_old.t (id int); create schema restore_20240101; create table restore_20240101.t (id int)",
    );
    expect(past.source.tables.map(({ schema }) => schema)).toContain("restore_20240101_old");
    expect(past.source.tables.map(({ schema }) => schema)).not.toContain("restore_20240101");
    const [run] = await query(past.url, "select warnings::text as warnings from backup.runs");
    expect(String(run?.["warnings"])).toMatch(/schema restore_20240101.*side schema/);
    await past.connection.close();
  }, 60_000);
});
