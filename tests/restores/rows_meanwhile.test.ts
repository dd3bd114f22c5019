/** What others do to tables and rows while a restore is planned, confirmed and applied. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { parentsFirst } from "../../src/shared/rows/apply/parents_first.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";
import { shrinkDifference } from "../../src/shared/rows/apply/put_back_steps.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { layDatabaseBeside } from "../../src/shared/rows/beside/database_beside.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { besideOf, bringBack, lay, type Past, pastOf, patient, rowsOf, sideName } from "./rows_fixture.ts";

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
     create domain cut.short as varchar(3); create table cut.u (id int primary key, i int, b int, n numeric, j text, at text, r int4range, a numeric[]);
     insert into cut.u values (1, 5, 1, 12.5, '{"a":1}', '2024-01-01T10:00:00.000Z', '[1,5)', '{1.5}');
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

/** Starts them while the rows are in and not committed; each is waited for until it waits, or is through. */
async function meanwhile(writes: readonly string[], restore: (beforeCommit: () => Promise<void>) => Promise<unknown>) {
  const waiting: Promise<unknown>[] = [];
  await restore(async () => {
    for (const sql of writes) {
      waiting.push(withClient(past.url, async (client) => (await client.query(sql)).rowCount).catch(String));
      await expect.poll(async () =>
        (await query(
          past.url,
          "select from pg_stat_activity where query = $1 and (wait_event_type = 'Lock' or state = 'idle')",
          [sql],
        ))
          .length
      ).toBe(1);
    }
  });
  return await Promise.all(waiting);
}

describe("a write of the app that waits for a row", () => {
  it("finds it afterwards: nothing of it is lost, and its child finds its parent", async () => {
    await change("update one.t set x = 'now' where id < 4");
    const beside = await besideOf(past, "one", "t", ["id=1"]);
    await planRows(past.connection, beside.pairs, beside.keys, "merge");
    const options = { ...patient, mode: "merge", wholeTables: false } as const;
    const writes = ["update one.t set n = n + 1 where id = 1", "insert into one.c values (1, 1)"];
    const done = await meanwhile(
      writes,
      (beforeCommit) => putBack(past.connection, beside.pairs, beside.keys, { ...options, beforeCommit }),
    );
    expect(done).toEqual([1, 1]);
    expect(await rowsOf(past.url, "(select * from one.t where id < 3)")).toEqual(["(1,then,1,1)", "(2,now,0,2)"]);
  }, 60_000);

  it.each([
    ["one", "update one.t set code = 1000 where id = 1; delete from one.c", "id=1"],
    [
      "two",
      "update one.t set code = 1000 where id = 1; update one.t set code = 1 where id = 2; delete from one.c",
      "id=1",
    ],
  ])("finds it where a unique value is put back, of %s row", async (rows, sql, condition) => {
    await change(
      `update one.t set x = 'then', n = 0, code = id; ${sql}; update one.t set code = 2 where id = 1 and '${rows}' = 'two'`,
    );
    const beside = await besideOf(past, "one", "t", rows === "one" ? [condition] : []);
    await planRows(past.connection, beside.pairs, beside.keys, "merge");
    const options = { ...patient, mode: "merge", wholeTables: false } as const;
    const writes = [
      "insert into one.c values (1, 1)",
      "update one.t set n = n + 1 where id = 1",
      "select from one.t where id = 1 for update",
    ];
    const done = await meanwhile(
      writes,
      (beforeCommit) => putBack(past.connection, beside.pairs, beside.keys, { ...options, beforeCommit }),
    );
    expect(done).toEqual([1, 1, 1]);
    expect(await change("select id, code, n from one.t where id < 3 order by id")).toEqual([
      { id: 1, code: 1, n: 1 },
      { id: 2, code: 2, n: 0 },
    ]);
  }, 60_000);

  it("keeps a new password and a new session of a person whose e-mail address is put back", async () => {
    await change(`update auth.users set email = 'new@example.org' where id = '${ann}'`);
    const beside = await lay(past, ofAnn);
    const pairs = parentsFirst(beside.pairs, beside.keys);
    await planRows(past.connection, pairs, beside.keys, "merge");
    const options = { ...patient, mode: "merge", wholeTables: false } as const;
    const writes = [
      `update auth.users set encrypted_password = 'reset' where id = '${ann}'`,
      `insert into auth.sessions (id, user_id) values ('${ben}', '${ann}')`,
    ];
    const done = await meanwhile(
      writes,
      (beforeCommit) => putBack(past.connection, pairs, beside.keys, { ...options, beforeCommit }),
    );
    expect(done).toEqual([1, 1]);
    expect(await change(`select email, encrypted_password as password from auth.users where id = '${ann}'`)).toEqual([
      { email: "ann@example.org", password: "reset" },
    ]);
    await change("delete from auth.sessions");
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
          await client.query("begin");
          const { rowCount: seen } = await client.query("select from one.t where id = $1 for update", [id]);
          const { rowCount } = await client.query("update one.t set n = n + 1 where id = $1", [id]);
          await client.query("commit");
          if (rowCount !== 1 || seen !== 1) inVain.push(id);
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

it(
  "a transaction that the server ends, as others and it waited for each other, is tried again, a step's later",
  async () => {
    const deadlock = "do $$ begin raise exception using errcode = '40P01'; end $$";
    for (const capBytes of [60_000, 10 ** 9]) {
      await change("update big.t set x = 'now'");
      const beside = await besideOf(past, "big", "t");
      await planRows(past.connection, beside.pairs, beside.keys, "merge");
      let calls = 0;
      const beforeCommit = async (connection: Connection) => void (calls++ === 0 && await connection.execute(deadlock));
      const options = { ...patient, mode: "merge", beforeCommit } as const;
      await shrinkDifference(past.connection, beside.pairs, beside.keys, { ...options, capBytes });
      await putBack(past.connection, beside.pairs, beside.keys, options);
      expect(calls).toBeGreaterThan(1);
      expect(await change("select count(*)::int as n from big.t where x <> 'then'")).toEqual([{ n: 0 }]);
    }
  },
  60_000,
);

describe("a row that somebody else gets", () => {
  const take = `update own.e set user_id = '${ben}', x = 'bens now' where id = 1`;

  it("between the plan and the transaction is not taken from them", async () => {
    await change("update own.e set x = 'now' where id < 3");
    const beside = await lay(past, ofAnn);
    const pairs = parentsFirst(beside.pairs, beside.keys);
    await planRows(past.connection, pairs, beside.keys, "merge");
    await change(take);
    const options = { ...patient, mode: "merge", wholeTables: false } as const;
    await expect(putBack(past.connection, pairs, beside.keys, options)).rejects.toMatchObject({
      code: "rows_conflict",
    });
    expect(await change("select x from own.e where id < 3 order by id")).toEqual([{ x: "bens now" }, { x: "now" }]);
    await change(`update own.e set user_id = '${ann}', x = repeat('then', 50) where id < 3`);
  }, 60_000);

  it("between two steps is not taken from them, and the restore says that it could not go on", async () => {
    await change("update own.e set x = repeat('now ', 50) where id < 1000");
    const beside = await lay(past, ofAnn);
    const pairs = parentsFirst(beside.pairs, beside.keys);
    await planRows(past.connection, pairs, beside.keys, "merge");
    const options = { ...patient, mode: "merge", wholeTables: false } as const;
    const given = async (onStep: () => Promise<void>) => {
      await shrinkDifference(past.connection, pairs, beside.keys, { ...options, capBytes: 60_000, onStep });
      await putBack(past.connection, pairs, beside.keys, options);
    };
    let [steps, bens] = [0, 0];
    const giving = given(async () => {
      if (++steps === 2) {
        bens =
          (await change(`${take.replace("id = 1", "x like 'now%' and id between 200 and 300")} returning id`)).length;
      }
    });
    await expect(giving).rejects.toMatchObject({ code: "rows_conflict" });
    expect(bens).toBeGreaterThan(0);
    expect(await change("select count(*)::int as n from own.e where x = 'bens now'")).toEqual([{ n: bens }]);
    await change(`update own.e set user_id = '${ann}', x = repeat('then', 50) where id < 1000`);
  }, 60_000);
});

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

  it("of the whole project goes on and ends where somebody has signed in since", async () => {
    await change(`update big.t set x = 'now'; insert into auth.sessions (id, user_id) values ('${ann}', '${ann}')`);
    const wanted = new Set(["auth.users", "auth.sessions", "big.t"]);
    const tables = past.source.tables.filter(({ schema, name }) => wanted.has(`${schema}.${name}`));
    const source = { ...past.source, tables };
    const deps = { connection: past.connection, source, sameDatabase: true, schema: sideName() };
    const beside = await layDatabaseBeside(deps, { credentials: false, changingTypes: null }, "test");
    const pairs = parentsFirst(beside.pairs, beside.keys);
    await planRows(past.connection, pairs, beside.keys, "replace");
    const options = { ...patient, mode: "replace" } as const;
    await shrinkDifference(past.connection, pairs, beside.keys, { ...options, capBytes: 60_000 });
    await putBack(past.connection, pairs, beside.keys, options);
    expect(await change("select x, count(*)::int as n from big.t group by 1")).toEqual([{ x: "then", n: 2000 }]);
    expect(await change("delete from auth.sessions returning id")).toEqual([{ id: ann }]);
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
  ["cut.short", "v"],
  ["char(3)", "v"],
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

it.each([
  ["numeric(10, 2)", "i", "i", "5.00"],
  ["boolean", "b", "b::text::boolean", true],
  ["numeric(10, 2)", "n", "n", "12.50"],
  ["jsonb", "j", "j::jsonb", { a: 1 }],
  ["timestamptz", "at", "at::timestamptz", new Date("2024-01-01T10:00:00Z")],
  ["text", "r", "r::text", "[1,5)"],
  ["numeric(10, 2)[]", "a", "a", [1.5]],
])("a value that is only written otherwise by the type of now is not cut: %s", async (type, column, using, value) => {
  await change(`alter table cut.u alter ${column} type ${type} using ${using}; delete from cut.u`);
  const { plan } = await bringBack(past, await besideOf(past, "cut", "u"), "missing");
  expect(plan.tables[0]?.conflicts).toEqual([]);
  expect(await change(`select ${column} as value from cut.u`)).toEqual([{ value }]);
}, 60_000);

it("a value that cannot be read back by the type of then is no reason to refuse it", async () => {
  await change("alter table cut.u alter b type money using b::int::money; delete from cut.u");
  const { plan } = await bringBack(past, await besideOf(past, "cut", "u"), "missing");
  expect(plan.tables[0]?.notes).toContain("whether the type of now cuts values of cut.u.b cannot be told");
  expect(await change("select b::text as value from cut.u")).toEqual([{ value: "$1.00" }]);
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
