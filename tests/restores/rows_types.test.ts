/** Types, functions and sequences that a database brings along, met by a restore of rows that has an empty search_path. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { beginRestore, finishRestore, orderApply } from "../../src/shared/jobs/restore_queries.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { readAsOwner } from "../../src/shared/rows/apply/read_as_owner.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { readEqualities } from "../../src/shared/rows/ownership/equalities.ts";
import { liveGraph } from "../../src/shared/rows/ownership/live_graph.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { planOwnership } from "../../src/shared/rows/ownership/ownership.ts";
import { isVerdictOn, liveRelation, ownershipSql } from "../../src/shared/rows/ownership/ownership_sql.ts";
import { nameOf } from "../../src/shared/rows/past/fold_partitions.ts";
import { openBackupRows } from "../../src/shared/rows/past/backup_rows.ts";
import { backup, type World, world } from "../integration/backup_fixture.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { besideOf, bringBack, type Past, rowsOf } from "./rows_fixture.ts";
import { legsOf, uncalled, watched } from "./rows_legs_fixture.ts";

const cluster = useCluster();
let w: World;
let past: Past;
let full: string;
let legs: ReturnType<typeof legsOf>;
const [a, b] = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];

const then = `
  create extension if not exists ltree with schema extensions; create extension if not exists citext with schema extensions;
  insert into auth.users (id, email) values ('${a}', 'a@example.org'), ('${b}', 'b@example.org');
  create schema tree; create domain tree.handle as extensions.citext;
  create table tree.place (path extensions.ltree primary key, user_id uuid references auth.users);
  create table tree.note (id int primary key, path extensions.ltree references tree.place, x text);
  insert into tree.place values ('a.b', '${a}'), ('a.c', '${b}'); insert into tree.note values (1, 'a.b', 'x'), (2, 'a.c', 'y');
  create table tree.person (name tree.handle primary key, user_id uuid references auth.users);
  create table tree.said (id int primary key, who extensions.citext references tree.person, x text);
  insert into tree.person values ('Ann', '${a}'), ('Bob', '${b}'); insert into tree.said values (1, 'ANN', 'x'), (2, 'bob', 'y');

  create function public.may_see(owner uuid) returns boolean language plpgsql stable as 'begin return owner = sub_of(); end';
  create function public.sub_of() returns uuid language sql stable
    as $$ select (current_setting('request.jwt.claims', true)::json ->> 'sub')::uuid $$;
  create table public.docs (id int primary key, user_id uuid references auth.users, x text);
  alter table public.docs enable row level security; grant select on public.docs to authenticated;
  create policy own on public.docs for select to authenticated using (may_see(user_id));
  insert into public.docs values (1, '${a}', 'x');

  create function public.is_slug(text) returns boolean language plpgsql immutable as 'begin return is_word($1); end';
  create function public.is_word(text) returns boolean language plpgsql immutable as $$ begin return $1 !~ ' '; end $$;
  create table public.slugs (id int primary key, slug text check (is_slug(slug))); insert into public.slugs values (1, 'one');
  create table public.strict (id int primary key, x text); insert into public.strict values (1, 'a precious value');

  create schema seq; create sequence seq.lent; create sequence seq.packed; create domain seq.amount as bigint; create domain seq.deep as seq.amount;
  create table seq.lent_to (id int primary key default nextval('seq.lent'), x text); insert into seq.lent_to (x) select 'x' from generate_series(1, 5);
  create table seq.owned (id seq.deep primary key, x text); create sequence seq.own owned by seq.owned.id;
  alter table seq.owned alter id set default nextval('seq.own'); insert into seq.owned (x) select 'x' from generate_series(1, 5);
  create table seq.exact (id numeric(20, 2) primary key default nextval('seq.lent')::numeric, x text);
  insert into seq.exact values (40, 'x'), (41.5, 'between'), ('NaN', 'x');
  create table seq.made (id bigint primary key default nextval('seq.packed') << 20, x text); insert into seq.made (x) values ('x');

  create schema gone; create table gone.a (id int primary key, user_id uuid references auth.users);
  create table gone.b (id int primary key, user_id uuid references auth.users); insert into gone.a values (1, '${b}'); insert into gone.b values (1, '${b}');
  create schema part; create table part.t (id int, a text, b text, primary key (id)) partition by range (id);
  create table part.t_1 (gone int, b text, a text, id int not null); alter table part.t_1 drop gone;
  alter table part.t attach partition part.t_1 for values from (0) to (10);
  create table part.t_2 (b text, id int not null, a text); alter table part.t attach partition part.t_2 for values from (10) to (20);
  insert into part.t values (1, 'a', 'b'), (11, 'a', 'b');
  create schema mark; create table mark.t (id int primary key, x text); insert into mark.t values (1, 'then'), (2, 'then')`;

beforeAll(async () => {
  w = await world(cluster());
  await query(w.url, `${then}; ${uncalled}`);
  full = (await backup(w.deps)).id;
  legs = legsOf(w, full);
  const connection = await openSession(openDatabase({ url: w.url }), "holdfast:restore");
  past = { url: w.url, source: await openBackupRows(w.deps, full), connection };
}, clusterMs);
afterAll(async () => {
  await past?.connection.close();
});

const change = async (sql: string) => await query(w.url, sql);
const asUser = (user: string): RowsAsked => ({
  scope: "user",
  choice: { user, as: null, credentials: false, shared: false, map: emptyMap, replaces: true },
});
const asRecord = (schema: string, name: string): RowsAsked => ({
  scope: "record",
  table: { schema, name },
  where: [{ column: "id", value: "1" }],
});
const asTable = (schema: string, name: string): RowsAsked => ({ scope: "table", table: { schema, name } });

async function planned(asked: RowsAsked): Promise<string> {
  const id = await legs.plan(asked);
  const { row } = await legs.work(id, asked, { atOnce: true });
  expect(row, JSON.stringify(row)).toMatchObject({ status: "beside" });
  return id;
}

async function applied(id: string, asked: RowsAsked, mode: "missing" | "merge" | "replace") {
  await legs.apply(id, mode);
  return (await legs.work(id, asked, { atOnce: true })).row;
}

async function only<T>(list: readonly T[]): Promise<T> {
  const [one] = list;
  if (one === undefined || list.length > 1) throw new Error(`${list.length} instead of one`);
  return await Promise.resolve(one);
}

describe("keys over types of extensions", () => {
  it("lead to their owners by the operators of those types, through domains too", async () => {
    const graph = await liveGraph(past.connection);
    const plan = planOwnership(graph, emptyMap);
    const equals = await readEqualities(past.connection, graph.tables);
    expect(equals("extensions.ltree", "extensions.ltree")).toBe("operator(extensions.=)");
    expect(equals("tree.handle", "extensions.citext")).toBe("operator(extensions.=)");
    expect(equals("tree.handle", "extensions.ltree")).toBe("=");
    expect(equals("uuid", "uuid")).toBe("=");
    const sql = ownershipSql(
      plan,
      (name) => {
        const found = graph.tables.find((one) => nameOf(one) === nameOf(name));
        return found === undefined ? null : liveRelation(found);
      },
      "$1",
      equals,
    );
    const owned: Record<string, string[]> = {};
    for (const table of plan.groups.flatMap(({ tables }) => tables).filter(({ schema }) => schema === "tree")) {
      const rows = await past.connection.query(
        `select t::text as row from ${nameOf(table)} as t
          where exists (select from (${sql(table)}) as o where not o.shared and ${
          isVerdictOn(table, "t", "o", equals)
        })`,
        [a],
      );
      owned[table.name] = rows.map(({ row }) => row ?? "");
    }
    expect(owned).toEqual({
      place: [`(a.b,${a})`],
      note: ["(1,a.b,x)"],
      person: [`(Ann,${a})`],
      said: ["(1,ANN,x)"],
    });
  });

  it.each(["note", "said"])("bring a record back and tell that its owner sees it: tree.%s", async (name) => {
    const asked = asRecord("tree", name);
    const id = await planned(asked);
    await change(`grant usage on schema tree to authenticated; grant select on tree.${name} to authenticated;
      delete from tree.${name} where id = 1`);
    const row = await applied(id, asked, "missing");
    expect(row, JSON.stringify(row)).toMatchObject({
      status: "succeeded",
      state: { readBack: [{ rows: 1, visible: 1 }] },
    });
  });

  it("bring back a user's rows, and nobody else's", async () => {
    const was = await Promise.all(["place", "note", "person", "said"].map((name) => rowsOf(w.url, `tree.${name}`)));
    const id = await planned(asUser(a));
    await change("delete from tree.said; delete from tree.person; delete from tree.note; delete from tree.place");
    const row = await applied(id, asUser(a), "replace");
    expect(row, JSON.stringify(row)).toMatchObject({ status: "succeeded" });
    const now = await Promise.all(["place", "note", "person", "said"].map((name) => rowsOf(w.url, `tree.${name}`)));
    expect(now).toEqual(was.map(([first]) => [first]));
  });
});

describe("a record that is in place", () => {
  it.each([
    ["its owner's reading fails", () => Promise.reject(new HoldfastError("database_unreachable", "made up"))],
    [
      "somebody wishes that it ends",
      async (id: string) =>
        void await query(w.url, "update backup.restores set cancel_requested_at = backup.clock_now() where id = $1", [
          id,
        ]),
    ],
  ])("is a restore that ended well, although %s", async (_what, meanwhile) => {
    const asked = asRecord("public", "docs");
    const id = await planned(asked);
    await change("delete from public.docs");
    await legs.apply(id, "missing");
    let met = 0;
    const database = watched(w.deps.database, {
      before: async (text) => {
        if (!text.includes("request.jwt.claims")) return;
        met++;
        await meanwhile(id);
      },
    });
    const { row } = await legs.work(id, asked, { atOnce: true, deps: { database } });
    expect(row, JSON.stringify(row)).toMatchObject({ status: "succeeded" });
    expect(met).toBe(1);
    expect(await rowsOf(w.url, "public.docs")).toHaveLength(1);
  });
});

describe("code of the database that names things without their schema", () => {
  it("is found where rows are read as their owner reads them", async () => {
    await change("delete from public.docs");
    const beside = await besideOf(past, "public", "docs", ["id=1"]);
    await bringBack(past, beside, "missing", { wholeTables: false });
    expect(await readAsOwner(past.connection, await only(beside.pairs))).toEqual([{ user: a, rows: 1, visible: 1 }]);
  });

  it("is found where it checks rows that come back", async () => {
    await change("delete from public.slugs");
    let path: unknown = null;
    const beforeCommit = async (session: Connection) => {
      path = await session.query("show search_path");
    };
    await bringBack(past, await besideOf(past, "public", "slugs"), "missing", { beforeCommit });
    expect(await rowsOf(w.url, "public.slugs")).toEqual(["(1,one)"]);
    expect(path).toEqual([{ search_path: '""' }]);
  });

  it("is named with a way out where it is not found, and no value is", async () => {
    await change("delete from public.slugs; alter function public.is_slug(text) set search_path = ''");
    try {
      const beside = await besideOf(past, "public", "slugs");
      const failed = await bringBack(past, beside, "missing").then(() => null, (error: unknown) => error);
      expect(failed).toMatchObject({ code: "database_failed", hint: expect.stringContaining("set search_path") });
      expect((failed as Error).message).toBe("code of the database failed in public.is_slug (SQLSTATE 42883)");
    } finally {
      await change("alter function public.is_slug(text) reset search_path");
    }
  });
});

describe("what a restore tells of code of the database", () => {
  it.each(["PT400", "42501", "40001", "22023", "P0001"])("never has a value that it raised with %s", async (state) => {
    await change(`delete from public.strict;
      create or replace function public.refuse(x text) returns boolean language plpgsql as
        $$ begin raise sqlstate '${state}' using message = 'no ' || x, detail = x, hint = x; end $$;
      alter table public.strict add check (public.refuse(x))`);
    try {
      const asked = asRecord("public", "strict");
      const row = await applied(await planned(asked), asked, "missing");
      expect(row.status).toBe("failed");
      expect(row.errorMessage).toContain(state);
      const told = await change(
        `select r::text as told from backup.restores as r union all select a::text from backup.alerts as a
          union all select e::text from backup.audit_log as e`,
      );
      expect(told.map((one) => String(one["told"])).filter((one) => one.includes("precious"))).toEqual([]);
    } finally {
      await change("drop function public.refuse(text) cascade");
    }
  });
});

describe("sequences that columns draw from", () => {
  it.each([
    ["lent_to", "seq.lent", "where no column owns them", 5],
    ["owned", "seq.own", "through domains", 5],
    ["exact", "seq.lent", "into a numeric column, past its whole numbers", 40],
  ])("go past the rows that came back: %s (%s, %s)", async (name, sequence, _why, last) => {
    await change(`delete from seq.${name}; alter sequence ${sequence} restart`);
    const { result } = await bringBack(past, await besideOf(past, "seq", name), "missing");
    expect(result.sequences).toEqual([`${sequence} (id)`]);
    expect(await change(`select nextval('${sequence}')::int as next`)).toEqual([{ next: last + 1 }]);
  });

  it("stay where a value is put together of theirs and more", async () => {
    await change("delete from seq.made; alter sequence seq.packed restart");
    const { result } = await bringBack(past, await besideOf(past, "seq", "made"), "missing");
    expect(result.sequences).toEqual([]);
    expect(await change("select nextval('seq.packed')::int as next")).toEqual([{ next: 1 }]);
  });
});

describe("columns of a partitioned table", () => {
  const swap = "alter table part.t rename a to c; alter table part.t rename b to a; alter table part.t rename c to b";
  const notes = async () => {
    await change("delete from part.t");
    const { plan } = await bringBack(past, await besideOf(past, "part", "t"), "replace");
    return (await only(plan.tables)).notes;
  };

  it("get the values of then by what they are, not by what they are called", async () => {
    expect(await notes()).toEqual([]);
    await change(swap);
    expect(await notes()).toEqual([
      "column a of part.t is called b now",
      "column b of part.t is called a now",
    ]);
    expect(await change("select id, a, b from part.t order by id")).toEqual([
      { id: 1, a: "b", b: "a" },
      { id: 11, a: "b", b: "a" },
    ]);
    await change(swap);
  });

  it("do so in legs as well", async () => {
    const id = await planned(asTable("part", "t"));
    await change(`${swap}; delete from part.t where id = 1`);
    expect(await applied(id, asTable("part", "t"), "replace")).toMatchObject({ status: "succeeded" });
    expect(await change("select id, a, b from part.t order by id")).toEqual([
      { id: 1, a: "b", b: "a" },
      { id: 11, a: "b", b: "a" },
    ]);
    await change(swap);
  });

  it("get them by their names where the partition that could tell is gone, and a note says so", async () => {
    await change(`alter table part.t detach partition part.t_2; ${swap};
      create table part.t_3 partition of part.t for values from (10) to (20)`);
    expect(await notes()).toEqual([expect.stringContaining("go by their names")]);
    expect(await rowsOf(w.url, "part.t")).toEqual(["(1,b,a)", "(11,b,a)"]);
  });
});

describe("between a plan and its application", () => {
  it("a table that goes keeps the restore from ending well", async () => {
    const id = await planned(asUser(b));
    await change("delete from gone.a; drop table gone.b");
    const row = await applied(id, asUser(b), "missing");
    expect(row).toMatchObject({
      status: "failed",
      errorCode: "table_not_found",
      errorMessage: expect.stringContaining("gone.b"),
    });
    expect(await rowsOf(w.url, "gone.a")).toEqual([]);
  });

  it.each([
    ["altered", "update %s set x = 'made up' where id = 1"],
    ["swapped for others", "delete from %s where id = 1; insert into %s values (3, 'then')"],
    ["taken away", "delete from %s where id = 1"],
    ["added", "insert into %s values (3, 'then')"],
  ])("rows beside that were %s are not put back as rows of then", async (_what, sql) => {
    const asked = asTable("mark", "t");
    const id = await planned(asked);
    const { sideSchema } = await legs.row(id);
    await change(sql.replaceAll("%s", `${sideSchema}.t`));
    await change("delete from mark.t");
    for (const mode of ["missing", "replace"] as const) {
      const row = await applied(id, asked, mode);
      expect(row).toMatchObject({ status: "failed", errorCode: "run_state" });
    }
    expect(await rowsOf(w.url, "mark.t")).toEqual([]);
  });

  it("rows beside that nobody touched are put back, in whatever order they lie", async () => {
    const asked = asTable("mark", "t");
    const id = await planned(asked);
    const { sideSchema } = await legs.row(id);
    await change(`create temporary table kept as table ${sideSchema}.t; truncate ${sideSchema}.t;
      insert into ${sideSchema}.t select * from kept order by id desc; drop table kept; delete from mark.t`);
    expect(await applied(id, asked, "replace")).toMatchObject({ status: "succeeded" });
    expect(await rowsOf(w.url, "mark.t")).toEqual(["(1,then)", "(2,then)"]);
  });

  it("a restore that the CLI began is not handed to the function, and stays as it is", async () => {
    const told = await legs.withSession(async (session) => {
      const [here] = await session.query("select current_database() as name");
      const { id, token } = await beginRestore(session, {
        scope: "table",
        mode: "beside",
        sourceBackup: full,
        pointAt: null,
        targetLabel: "test",
        targetIsHere: true,
        userId: null,
        worker: "cli",
        leaseSeconds: 60,
      });
      await finishRestore(session, { id, token }, { tables: [] });
      const before = await query(w.url, "select * from backup.restores where id = $1", [id]);
      const failed = await orderApply(session, id, {
        mode: "replace",
        target: here?.["name"] ?? "",
        options: { safety: false },
      }).catch((error: unknown) => error);
      expect(await query(w.url, "select * from backup.restores where id = $1", [id])).toEqual(before);
      return failed;
    });
    expect(told).toBeInstanceOf(HoldfastError);
    expect(told).toMatchObject({ code: "run_state", message: expect.stringContaining("begun by the CLI") });
  });
});
