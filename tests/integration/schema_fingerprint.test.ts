import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { catalogFingerprint, tableFingerprints } from "../../src/shared/schema/fingerprint.ts";
import { type Cluster, clusterMs, query, startTestCluster } from "../support/cluster.ts";
import { fillWithCorpus, plainDatabase, withSession } from "./schema_fixture.ts";

const leaveOutSchemas = ["left_out"];

const setUp = `
  create schema f;
  create schema left_out;
  create type f.mood as enum ('sad', 'happy');
  create type f.pair as (a integer, b text);
  create domain f.short as varchar(5) default 'x';
  create domain f.moods as f.mood[];
  create type f.pairs as range (subtype = f.mood);
  create table f.t (id integer primary key, n numeric(10, 2), note text default 'd', gone text);
  create table f.enums (m f.mood);
  create table f.nested (p f.pair[], d f.moods, r f.pairs);
  create table f.names (c regclass);
  create type f.holds_name as (x regtype[]);
  create domain f.deep as f.holds_name;
  create table f.deep_names (d f.deep[]);
  create table f.child () inherits (f.t);
  create table f.parted (k integer) partition by list (k);
  create table f.part partition of f.parted for values in (1);
  create sequence f.s;
  create view f.v as select id from f.t;
  create materialized view f.m as select id from f.t;
  create function f.fn() returns integer language sql as 'select 1';
  create function f.tr() returns trigger language plpgsql as 'begin return new; end';
  create trigger tr before insert on f.t for each row execute function f.tr();
  create policy p on f.t using (true);
  create index i on f.t (n);
  create publication pub for table f.enums;
  insert into f.t values (1, 1, 'a', 'g'), (2, 2, 'b', 'h');
  insert into f.enums values ('sad'), ('happy');
  insert into f.nested values (array[row(1, 'x')::f.pair], '{sad}', '[sad,happy]');`;

/** Each changes what a definition or a COPY says. */
const changes = [
  "alter type f.mood rename value 'sad' to 'gloomy'",
  "alter type f.mood add value 'new'",
  "alter type f.pair add attribute c integer",
  "alter type f.pair rename attribute a to z",
  "alter domain f.short set default 'y'",
  "alter domain f.short add constraint c check (value <> 'q') not valid",
  "alter table f.t alter column note set default 'other'",
  "alter table f.t alter column note set storage external",
  "alter table f.t alter column note set statistics 55",
  "alter table f.t add column extra integer default 7",
  "alter table f.t drop column gone",
  "alter table f.t rename column note to remark",
  "alter table f.t alter column n type numeric(12, 3)",
  "alter table f.t alter column n set not null",
  "alter table f.t set (fillfactor = 50)",
  "alter table f.t enable row level security",
  "alter table f.t replica identity full",
  "alter table f.t set unlogged",
  "alter table f.t disable trigger tr",
  "alter table f.child no inherit f.t",
  "alter table f.parted detach partition f.part",
  "alter sequence f.s increment by 5",
  "create or replace view f.v as select id, n from f.t",
  "create or replace function f.fn() returns integer language sql as 'select 2'",
  "alter function f.fn() set search_path to ''",
  "revoke execute on function f.fn() from public",
  "grant select on f.t to corpus_reader",
  "grant select (id) on f.t to corpus_reader",
  "alter policy p on f.t using (false)",
  "drop policy p on f.t",
  "drop index f.i",
  "create index j on f.t (remark)",
  "alter table f.t add constraint c check (id > 0) not valid",
  "alter table f.t validate constraint c",
  "comment on table f.t is 'x'",
  "comment on column f.t.id is 'x'",
  "alter table f.t owner to corpus_owner",
  "alter publication pub add table f.child",
  "alter default privileges in schema f grant select on tables to corpus_reader",
  "create extension citext",
  "create role fingerprint_test",
  "grant corpus_reader to fingerprint_test",
  "alter role fingerprint_test set work_mem to '9MB'",
  "create schema another",
] as const;

/** None of them changes a definition. */
const others = [
  "insert into f.t select g, g, 'x' from generate_series(100, 400) g",
  "analyze f.t",
  "vacuum f.t",
  "truncate f.enums",
  "select nextval('f.s')",
  "refresh materialized view f.m",
  "create temporary table t (id integer primary key default 5, body text)",
  "create table left_out.t (id serial primary key, c text default 'x' check (c <> ''))",
  "create function left_out.fn() returns integer language sql as 'select 1'",
  "comment on table left_out.t is 'x'",
] as const;

for (const version of [15, 17] as const) {
  describe(`fingerprints on PostgreSQL ${version}`, () => {
    let cluster: Cluster | undefined;
    let database = "";
    const running = (): Cluster => {
      if (cluster === undefined) throw new Error("no cluster");
      return cluster;
    };
    const run = (text: string) => query(running().plainUrl(running().superuser, database), text);
    const whole = () =>
      withSession(running(), "postgres", database, (connection) => catalogFingerprint(connection, { leaveOutSchemas }));
    const oneTable = (name: string) =>
      withSession(running(), "postgres", database, async (connection) => {
        const [row] = await connection.query("select $1::regclass::oid::text as oid", [name]);
        return (await tableFingerprints(connection, { leaveOutSchemas })).get(row?.["oid"] ?? "");
      });

    beforeAll(async () => {
      cluster = await startTestCluster({ version });
      database = await plainDatabase(cluster);
      await fillWithCorpus(cluster, database, (name) => name === "00_roles.sql");
      await run(setUp);
    }, clusterMs);

    afterAll(async () => {
      await cluster?.destroy();
    }, clusterMs);

    it("stay the same as long as no definition changes", async () => {
      const before = await whole();
      expect(await whole()).toBe(before);
      for (const statement of others) {
        await run(statement);
        expect([statement, await whole()]).toEqual([statement, before]);
      }
    });

    it("change with every change of a definition, and never return to an earlier value", async () => {
      const seen = new Map([[await whole(), "the start"]]);
      for (const statement of changes) {
        await run(statement);
        const now = await whole();
        expect([statement, seen.get(now)]).toEqual([statement, undefined]);
        seen.set(now, statement);
      }
    });

    it("change while another transaction holds its snapshot, which sees the old definition", async () => {
      await withSession(running(), "postgres", database, async (keeper) => {
        await keeper.execute("begin isolation level repeatable read; select 1");
        const before = await whole();
        await run("alter type f.mood rename value 'happy' to 'merry'");
        expect(await whole()).not.toBe(before);
        await expect(catalogFingerprint(keeper, { leaveOutSchemas })).rejects.toMatchObject({ code: "internal" });
        await keeper.execute("rollback");
      });
    });

    it("of a table change when the same bytes would read as another text", async () => {
      await run(
        "create type f.swap as enum ('one', 'two'); create table f.swapped (s f.swap, n integer); " +
          "insert into f.swapped values ('one', 1)",
      );
      const seen = [await oneTable("f.swapped")];
      for (
        const statement of [
          // Labels swapped: by name and type alone nothing has happened.
          "alter type f.swap rename value 'one' to 'x'; alter type f.swap rename value 'two' to 'one'; " +
          "alter type f.swap rename value 'x' to 'two'",
          // Another default for the rows that are there, under the same name and type.
          "alter table f.swapped add column v text default 'first'",
          "alter table f.swapped drop column v; alter table f.swapped add column v text default 'second'",
          "alter table f.swapped rename column n to m",
        ]
      ) {
        await run(statement);
        const now = await oneTable("f.swapped");
        expect(seen).not.toContain(now);
        expect(now).toMatch(/^[0-9a-f]{32}$/);
        seen.push(now);
      }
    });

    it("of a table look through arrays, domains, ranges and composites", async () => {
      await run(
        "create type f.inner_enum as enum ('a'); create type f.inner_row as (e f.inner_enum, t text); " +
          "create domain f.inner_domain as f.inner_row; create table f.outer_table (x f.inner_domain[], plain text)",
      );
      await run(
        "create type f.range_enum as enum ('a', 'b'); create type f.range_of as range (subtype = f.range_enum); " +
          "create table f.range_table (r f.range_of, m f.range_of[])",
      );
      const outer = await oneTable("f.outer_table");
      const range = await oneTable("f.range_table");
      await run("alter type f.inner_enum rename value 'a' to 'b'; alter type f.range_enum rename value 'a' to 'c'");
      const outerNow = await oneTable("f.outer_table");
      expect(outerNow).not.toBe(outer);
      expect(await oneTable("f.range_table")).not.toBe(range);
      await run("alter type f.inner_row drop attribute t; alter type f.inner_row add attribute t text");
      expect(await oneTable("f.outer_table")).not.toBe(outerNow);
    });

    it("of a table stay when something else changes, and are null where names of other objects are its text", async () => {
      const before = await oneTable("f.enums");
      await run("create table f.unrelated (a integer); create index on f.enums (m); analyze f.enums");
      expect(await oneTable("f.enums")).toBe(before);
      expect(await oneTable("f.names")).toBeNull();
      expect(await oneTable("f.deep_names")).toBeNull();
      await run("create table f.lists (a aclitem[]); create table f.nothing ()");
      expect(await oneTable("f.lists")).toBeNull();
      expect(await oneTable("f.nothing")).toMatch(/^[0-9a-f]{32}$|^no columns/);
    });
  });
}
