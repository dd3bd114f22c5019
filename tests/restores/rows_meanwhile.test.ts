/** What others do to tables and rows while a restore is planned, confirmed and applied. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { parentsFirst } from "../../src/shared/rows/apply/parents_first.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";
import { shrinkDifference } from "../../src/shared/rows/apply/put_back_steps.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { besideOf, bringBack, lay, type Past, pastOf, patient, rowsOf } from "./rows_fixture.ts";

const cluster = useCluster();
const [ann, ben] = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];
let past: Past;

const change = (sql: string) => query(past.url, sql);
const ofAnn: RowsAsked = {
  scope: "user",
  choice: { user: ann, as: null, credentials: false, shared: false, map: emptyMap, replaces: true },
};

beforeAll(async () => {
  past = await pastOf(
    cluster(),
    `insert into auth.users (id, email) values ('${ann}', 'ann@example.org'), ('${ben}', 'ben@example.org');
     create schema one; create table one.t (id int primary key, x text, n int default 0, code int unique);
     create table one.c (id int primary key, t int references one.t);
     insert into one.t select i, 'then', 0, i from generate_series(1, 500) as i;
     create schema late; create table late.p (id int primary key); create table late.c (id int primary key, p int);
     insert into late.p values (1), (2); insert into late.c values (1, 1), (2, 2);
     create table late.made (id int primary key, x text); insert into late.made values (1, 'then');
     create table late.plain (id int primary key, x text); insert into late.plain values (1, 'then'), (2, 'then');
     create schema big; create table big.t (id int primary key, x text); insert into big.t select i, 'then' from generate_series(1, 2000) as i;
     create schema cut; create table cut.t (id int primary key, v varchar(10), n numeric(8, 2), at timestamp, f float8, j json, w int);
     insert into cut.t values (1, 'abcdef', 12.75, '2024-01-01 10:20:30', 1.23456789012345, '{"a":  1}', 7);
     create schema cyc; create table cyc.a (id int primary key, user_id uuid references auth.users, b int, x text);
     create table cyc.b (id int primary key, a int references cyc.a, x text);
     alter table cyc.a add foreign key (b) references cyc.b deferrable initially deferred;
     begin; insert into cyc.a values (1, '${ann}', 1, 'then'); insert into cyc.b values (1, 1, 'then');
     insert into cyc.a select i, '${ben}', i, 'bens' from generate_series(10, 19) as i; insert into cyc.b select i, i, 'bens' from generate_series(10, 19) as i; commit;
     create schema own; create table own.e (id int primary key, user_id uuid references auth.users, x text);
     create table own.att (id int primary key, e int references own.e);
     insert into own.e select i, '${ann}', repeat('then', 50) from generate_series(1, 300) as i; insert into own.att values (1, 1);
     insert into own.e select i, '${ben}', 'bens' from generate_series(1001, 1999) as i; insert into own.att select i, i from generate_series(1001, 1010) as i;
     create schema twice; create table twice.p (a int, b int, primary key (a, b)); create table twice.c (id int primary key, k int);
     alter table twice.c add foreign key (k, k) references twice.p; insert into twice.p values (1, 1); insert into twice.c values (1, 1)`,
  );
}, clusterMs);
afterAll(() => past?.connection.close());

describe("a write of the app that waits for a row", () => {
  it("finds it afterwards: nothing of it is lost, and its child finds its parent", async () => {
    await change("update one.t set x = 'now' where id < 4");
    const beside = await besideOf(past, "one", "t", ["id=1"]);
    await planRows(past.connection, beside.pairs, beside.keys, "merge");
    const waiting: Promise<unknown>[] = [];
    await putBack(past.connection, beside.pairs, beside.keys, {
      ...patient,
      mode: "merge",
      wholeTables: false,
      beforeCommit: async () => {
        const start = async (sql: string) => {
          waiting.push(withClient(past.url, async (client) => (await client.query(sql)).rowCount));
          await expect.poll(async () =>
            (await change(`select 1 from pg_stat_activity where query = '${sql}'
              and (wait_event_type = 'Lock' or state = 'idle')`)).length
          ).toBe(1);
        };
        await start("update one.t set n = n + 1 where id = 1");
        await start("insert into one.c values (1, 1)");
      },
    });
    expect(await Promise.all(waiting)).toEqual([1, 1]);
    expect(await rowsOf(past.url, "(select * from one.t where id < 3)")).toEqual(["(1,then,1,1)", "(2,now,0,2)"]);
  }, 60_000);

  it("finds it in a table that is put back in steps as well, where unique values are swapped too", async () => {
    await change("update one.t set x = 'now', n = 0, code = -code; update one.t set code = 501 + code");
    const beside = await besideOf(past, "one", "t");
    await planRows(past.connection, beside.pairs, beside.keys, "merge");
    let going = true;
    const inVain: number[] = [];
    const writers = [1, 2, 3].map((seed) =>
      withClient(past.url, async (client) => {
        for (let at = 0; going; at++) {
          const id = 1 + (at * 7 + seed * 31) % 500;
          const { rowCount } = await client.query("update one.t set n = n + 1 where id = $1", [id]);
          if (rowCount !== 1) inVain.push(id);
        }
      })
    );
    const options = { ...patient, lockMs: 20_000, mode: "merge" } as const;
    try {
      await shrinkDifference(past.connection, beside.pairs, beside.keys, { ...options, capBytes: 1000 });
      await putBack(past.connection, beside.pairs, beside.keys, options);
    } finally {
      going = false;
      await Promise.all(writers);
    }
    expect(inVain).toEqual([]);
    expect(await change("select count(*)::int as n from one.t where x <> 'then' or code <> id")).toEqual([{ n: 0 }]);
  }, 60_000);
});

it("a key that names a column twice is verified", async () => {
  await change("delete from twice.c");
  await bringBack(past, await besideOf(past, "twice", "c"), "missing");
  expect(await rowsOf(past.url, "twice.c")).toEqual(["(1,1)"]);
}, 60_000);

describe("a table that changes between the plan and the transaction", () => {
  const refused = async (beside: Awaited<ReturnType<typeof besideOf>>, mode: "missing" | "replace", sql: string) => {
    await planRows(past.connection, beside.pairs, beside.keys, mode);
    let came = false;
    const session: Connection = {
      ...past.connection,
      query: (text, values) => past.connection.query(text, values),
      copyIn: (sql, feed) => past.connection.copyIn(sql, feed),
      copyOut: (sql, take) => past.connection.copyOut(sql, take),
      close: () => past.connection.close(),
      execute: async (text) => {
        // Before any lock is taken.
        if (text.includes("session_replication_role") && !came) {
          came = true;
          await change(sql);
        }
        await past.connection.execute(text);
      },
    };
    await expect(putBack(session, beside.pairs, beside.keys, { ...patient, mode })).rejects.toMatchObject({
      code: "rows_conflict",
      message: expect.stringContaining("not as it was when this was planned"),
    });
    expect(came).toBe(true);
  };

  it("by a foreign key, is left as it is: no orphan comes under it", async () => {
    await change("delete from late.c; delete from late.p where id = 2");
    const beside = await besideOf(past, "late", "c");
    await refused(beside, "missing", "alter table late.c add constraint late foreign key (p) references late.p");
    expect(await rowsOf(past.url, "late.c")).toEqual([]);
  }, 60_000);

  it("by being made anew, is left as it is, with those that refer to it", async () => {
    await change("update late.made set x = 'now'");
    await refused(
      await besideOf(past, "late", "made"),
      "replace",
      `drop table late.made; create table late.made (id int primary key, x text); create table late.kid (m int references late.made);
       insert into late.made values (5, 'new'); insert into late.kid values (5)`,
    );
    expect(await rowsOf(past.url, "late.made")).toEqual(["(5,new)"]);
  }, 60_000);

  it.each([
    [
      "a trigger that fires always",
      `create function late.f() returns trigger language plpgsql as 'begin return new; end';
      create trigger f before insert on late.plain for each row execute function late.f(); alter table late.plain enable always trigger f`,
    ],
    ["a deferrable key", "alter table late.plain add unique (x, id) deferrable"],
    ["another type", "alter table late.plain alter x type varchar(40)"],
  ])("by %s, is left as it is", async (_what, sql) => {
    await change("delete from late.plain where id = 2");
    await refused(await besideOf(past, "late", "plain"), "missing", sql);
    expect(await change("select id from late.plain")).toEqual([{ id: 1 }]);
  }, 60_000);

  it("by the role's rights alone, is in nobody's way where nothing of it is touched", async () => {
    await query(
      cluster().plainUrl(cluster().superuser, new URL(past.url).pathname.slice(1)),
      "alter table twice.p owner to supabase_auth_admin; grant select on twice.p to postgres",
    );
    const { result } = await bringBack(past, await besideOf(past, "twice", "p"), "replace");
    expect(result).toMatchObject({ inserted: 0, updated: 0, deleted: 0 });
  }, 60_000);
});

describe("a replacement in steps", () => {
  it("leaves the table equal, whatever others did to rows that were done", async () => {
    await change("update big.t set x = 'now'");
    const beside = await besideOf(past, "big", "t");
    await planRows(past.connection, beside.pairs, beside.keys, "replace");
    let steps = 0;
    const options = { ...patient, mode: "replace" } as const;
    await shrinkDifference(past.connection, beside.pairs, beside.keys, {
      ...options,
      capBytes: 60_000,
      onStep: async () => {
        if (++steps !== 3) return;
        await change(`update big.t set x = 'bad' where id in (select id from big.t where x = 'then' limit 50);
          delete from big.t where x = 'bad' and id % 2 = 0; insert into big.t values (9999, 'since')`);
      },
    });
    expect(steps).toBeGreaterThan(3);
    await putBack(past.connection, beside.pairs, beside.keys, options);
    expect(await change("select x, count(*)::int as n from big.t group by 1")).toEqual([{ x: "then", n: 2000 }]);
  }, 60_000);

  it("deletes no row that came into a person's rows by its own steps", async () => {
    await change(
      `update own.e set x = 'now' where id < 1000; update own.e set user_id = '${ben}' where id = 1; insert into own.att values (99, 1)`,
    );
    const beside = await lay(past, ofAnn);
    const pairs = parentsFirst(beside.pairs, beside.keys);
    await planRows(past.connection, pairs, beside.keys, "replace");
    const options = { ...patient, wholeTables: false, mode: "replace" } as const;
    await shrinkDifference(past.connection, pairs, beside.keys, { ...options, capBytes: 60_000 });
    await putBack(past.connection, pairs, beside.keys, options);
    expect(await change("select count(*)::int as n from own.e where x like 'then%'")).toEqual([{ n: 300 }]);
    expect(await change("select id from own.att where id < 1000 order by id")).toEqual([{ id: 1 }, { id: 99 }]);
  }, 60_000);
});

it("tables that refer to each other are replaced for a person, whose rows are told by both", async () => {
  await change(
    "update cyc.a set x = 'now' where id = 1; update cyc.b set x = 'now' where id = 1; insert into cyc.b values (2, 1, 'new')",
  );
  const beside = await lay(past, ofAnn);
  const pairs = parentsFirst(beside.pairs, beside.keys);
  await planRows(past.connection, pairs, beside.keys, "replace");
  await putBack(past.connection, pairs, beside.keys, { ...patient, wholeTables: false, mode: "replace" });
  expect([
    await rowsOf(past.url, "(select * from cyc.a where id < 10)"),
    await rowsOf(past.url, "(select * from cyc.b where id < 10)"),
  ]).toEqual([[`(1,${ann},1,then)`], [
    "(1,1,then)",
  ]]);
}, 60_000);

it.each([
  ["varchar(3)", "v"],
  ["numeric(8, 0)", "n"],
  ["date", "at"],
  ["float4", "f"],
  ["name", "v"],
])("no value is cut by a type that is narrower now: %s", async (type, column) => {
  await change(`delete from cut.t; alter table cut.t alter ${column} type ${type}`);
  const beside = await besideOf(past, "cut", "t");
  const isCut = type !== "name";
  const plan = await planRows(past.connection, beside.pairs, beside.keys, "missing");
  expect(plan.tables[0]?.conflicts).toEqual(
    isCut ? [{ what: "a value would be cut", name: column, other: null, rows: 1 }] : [],
  );
  const done = putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode: "missing" });
  if (isCut) {
    await expect(done).rejects.toMatchObject({ code: "value_unfit", message: expect.stringContaining(column) });
  } else await done;
  await change(
    `delete from cut.t; alter table cut.t alter v type varchar(10), alter n type numeric(8, 2), alter at type timestamp,
    alter f type float8`,
  );
}, 60_000);

it("a type that is wider now, or JSON that is kept otherwise, takes all values", async () => {
  await change(
    "delete from cut.t; alter table cut.t alter v type text, alter n type numeric, alter j type jsonb, alter w type bigint",
  );
  await bringBack(past, await besideOf(past, "cut", "t"), "missing");
  expect(await rowsOf(past.url, "cut.t")).toEqual([
    `(1,abcdef,12.75,"2024-01-01 10:20:30",1.23456789012345,"{""a"": 1}",7)`,
  ]);
}, 60_000);
