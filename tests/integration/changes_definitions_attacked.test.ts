/** Definitions changed in ways that a replay got wrong once: under other settings, more than once, inside of functions. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { freshDatabase, useCluster, withClient } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { drainNow, restored, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster();

interface Case {
  /** Each of them is sent as one string, in one session. */
  readonly steps: readonly string[];
  readonly before?: string;
  readonly bySuperuser?: boolean;
}

/** Each in a schema of its own, with tables `kept` and `other`. `@` is that schema. */
const cases: Readonly<Record<string, Case>> = {
  "a column that a DO block drops and adds in one command": {
    steps: [
      "do $$ begin alter table @.kept drop column gone, add column gone int; end $$",
      "do $$ begin alter table @.other drop column t, add column t text default 'new'; end $$",
      "begin; do $$ begin alter table @.other drop column n, add column n int default 3; alter table @.other add column m int; end $$; update @.other set n = 7 where id = 1; do $$ begin alter table @.other add column o int; end $$; commit",
    ],
  },
  "a key that goes with its column and comes back, in a DO block": {
    steps: [
      "do $$ begin alter table @.kept drop column gone, add column gone int unique; end $$",
    ],
  },
  "constants under another interval style, date style and precision": {
    steps: [
      "set intervalstyle = 'sql_standard'; set datestyle = 'SQL, DMY'; set extra_float_digits = 0",
      "alter table @.kept add column i interval default '-1 days -02:00:00'::interval, add column d date default '05/11/2026'",
      "do $$ begin alter table @.kept add column j interval default '-1 days -02:00:00'::interval; end $$",
      "alter table @.kept add column f float8 default 0.1::float8 + 0.2::float8, add column g float8 default 0.30000000000000004::float8",
      "create view @.v as select id from @.kept where d > '05/11/2026'::date",
      "create table @.days (d date not null) partition by range (d)",
      "create table @.days_1 partition of @.days for values from ('01/02/2026') to ('01/03/2026')",
      "insert into @.days values ('03/02/2026')",
    ],
  },
  "constants under another zone": {
    before: "create domain @.at as timestamptz; create policy q on @.other using (true)",
    steps: [
      "set timezone = 'Europe/Berlin'; set datestyle = 'ISO, DMY'",
      "alter table @.kept add column due timestamptz default '2026-07-01 10:00', add column d date default '05/11/2026'",
      "alter table @.kept add constraint later check (due > '2026-01-01')",
      "alter table @.kept alter column due set default '2026-07-01 12:00'",
      "create table @.made (at timestamptz default '2026-07-01 12:00', check (at > '2026-02-01'))",
      "alter domain @.at set default '2026-07-01 12:00'",
      "alter policy q on @.other using (now() > '2026-01-01 12:00')",
    ],
  },
  "names under another search_path": {
    before:
      `create schema @_2; create table @_2.parents (id int primary key); create table @.parents (id int primary key);
      create function @_2.f() returns int language sql as 'select 2'; create function @.f() returns int language sql as 'select 1';
      create policy q on @.other using (true); create table @_2.kept (id int primary key)`,
    steps: [
      "set search_path = @_2, public",
      "alter table @.other add constraint p foreign key (n) references parents not valid",
      "alter table @.other add column made int default f()",
      "alter table @.other alter column n set default f()",
      "alter policy q on @.other using (id = f())",
      "grant select on kept to anon",
      "grant update (id) on kept to authenticated",
      "revoke all on parents from service_role",
    ],
  },
  "a grant in a function's own search_path": {
    before: "create schema @_2; create table @_2.kept (id int primary key)",
    steps: [
      "create function @.open() returns void language plpgsql set search_path = @_2 as 'begin grant select on kept to anon; end'",
      "select @.open()",
    ],
  },
  "states of triggers and rules, which a DO block changes": {
    before: `create function @.f() returns trigger language plpgsql as 'begin return new; end';
      create trigger one before insert on @.kept for each row execute function @.f();
      create trigger two before insert on @.kept for each row execute function @.f();
      create rule r as on delete to @.other do instead nothing`,
    steps: [
      "do $$ begin alter table @.kept disable trigger one; alter table @.kept enable always trigger two; alter table @.other disable rule r; end $$",
    ],
  },
  "options of an identity, which a DO block changes": {
    before: "create table @.made (id int generated always as identity)",
    steps: [
      "do $$ begin alter table @.made alter column id set increment by 10 set maxvalue 1000000 set cycle; end $$",
    ],
  },
  "an index that a DO block makes a key": {
    before: `create unique index kept_gone on @.kept (gone); create table @.made (id int not null, "A b" text);
      create unique index made_id on @.made (id, "A b")`,
    steps: [
      `do $$ begin alter table @.kept add constraint one unique using index kept_gone deferrable;
         alter table @.made add constraint made_key primary key using index made_id; end $$`,
    ],
  },
  "comments, statistics targets and the order of rows, which a DO block copies or sets": {
    before: `comment on table @.kept is 'kept'; comment on column @.kept.t is 'it''s text';
      alter table @.kept alter t set statistics 7`,
    steps: [
      `do $$ begin create table @.made (like @.kept including all); alter table @.other alter t set statistics 9;
         alter table @.kept cluster on kept_t; end $$`,
    ],
  },
  "the same text several times in one transaction": {
    before: `create function @.f() returns trigger language plpgsql as 'begin return new; end'; create sequence @.s;
      create trigger one before insert on @.kept for each row execute function @.f()`,
    steps: [
      "begin",
      "alter table @.kept disable trigger one",
      "alter table @.kept enable trigger one",
      "alter table @.kept disable trigger one",
      "alter sequence @.s increment 3",
      "alter sequence @.s increment 4",
      "alter sequence @.s increment 3",
      "create function @.g() returns int language sql as 'select 1'; alter function @.g() stable; drop function @.g()",
      "create function @.g() returns int language sql as 'select 1'; alter function @.g() stable; drop function @.g()",
      "commit",
    ],
  },
  "a statement that did nothing, before one of its kind that did": {
    before: "create sequence @.s; create function @.g() returns int language sql as 'select 1'",
    steps: [
      "alter sequence if exists @.nope increment by 5; alter sequence @.s increment by 10",
    ],
  },
  "partitions and heirs that are rewritten with their parent": {
    before:
      `create table @.p (id int, v text, n int) partition by range (id); create table @.p_1 partition of @.p for values from (0) to (9);
      insert into @.p values (1, 'a', 1); create table @.heir () inherits (@.kept); insert into @.heir values (70, 'heir', 1)`,
    steps: [
      "alter table @.p alter column n type bigint",
      "create type @.mood as enum ('a'); alter table @.kept alter column gone type bigint; alter table @.other alter n type numeric",
      "update @.other set n = 1.5 where id = 2; insert into @.p values (2, 'b')",
    ],
  },
  "an extension of an older version": {
    steps: ["create extension pg_trgm schema @ version '1.5'"],
  },
  "comments on columns of what is no table, and on constraints of domains": {
    before: `create view @.v as select * from @.kept; create materialized view @.m as select 1 as x;
      create type @.pair as (a int); create domain @.d as int constraint "a on b" check (value > 0)`,
    steps: [
      "comment on column @.v.t is 'x'",
      "comment on column @.m.x is 'x'",
      "comment on column @.pair.a is 'x'",
      `comment on constraint "a on b" on domain @.d is 'x'`,
      "comment on column @.kept.t is 'x'; comment on constraint kept_pkey on @.kept is 'x'; comment on view @.v is null",
    ],
  },
  "a function that makes a table and gives it to an extension": {
    before: `create extension hstore schema @; create function @.make() returns void language plpgsql as $f$ begin
      create table @.made (id int primary key, t text); alter extension hstore add table @.made;
      create sequence @.made_s; alter extension hstore add sequence @.made_s; end $f$`,
    steps: ["select @.make()"],
  },
  "a session that quotes all identifiers": {
    steps: [
      "set quote_all_identifiers = on",
      "alter table @.kept add column x int default 1",
      "do $$ begin alter table @.kept drop column gone; alter table @.other drop column t, add column t text; end $$",
      "do $$ begin alter table @.kept rename to moved; create table @.kept (id int primary key); end $$",
      "drop table @.kept",
    ],
  },
  "what somebody makes on another's table": {
    before: `create role attacked_owner; create role attacked_maker; grant attacked_owner, attacked_maker to postgres;
      create schema @_2 authorization attacked_maker; grant usage on schema @ to attacked_owner, attacked_maker;
      alter table @.kept owner to attacked_owner; grant trigger on @.kept to attacked_maker;
      create view @.v as select 1 as x; alter view @.v owner to attacked_owner`,
    steps: [
      "set role attacked_maker",
      "create function @_2.f() returns trigger language plpgsql as 'begin return new; end'; revoke all on function @_2.f() from public",
      "create trigger theirs before insert on @.kept for each row execute function @_2.f()",
      "reset role",
      "create index kept_id on @.kept (id, t)",
      "create or replace view @.v as select 2 as x",
    ],
    bySuperuser: true,
  },
};
const schemaOf = (name: string) => `attacked_${Object.keys(cases).indexOf(name)}`;

function definitionsOf(url: string, schema: string): string[] {
  const text = execFileSync(
    join(cluster().bin, "pg_dump"),
    ["--schema-only", `--schema=${schema}`, `--schema=${schema}_2`, `--dbname=${url}`],
    { encoding: "utf8" },
  );
  return text.split("\n").filter((line) => line !== "" && !/^(?:--|\\(?:un)?restrict)/.test(line));
}

const extensions = `select extname, extversion,
    array(select pg_describe_object(classid, objid, 0) from pg_depend as d
      where d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and deptype = 'e' order by 1) as members
  from pg_extension as e where extnamespace::regnamespace::text like 'attacked%' order by 1`;

const superuser = (url: string) => cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));

describe("definitions behind the full backup come back as they were:", () => {
  let source = "";
  let target = "";

  beforeAll(async () => {
    const w = await world(cluster());
    source = superuser(w.url);
    for (const [name, { before = "", bySuperuser }] of Object.entries(cases)) {
      const schema = schemaOf(name);
      await query(
        w.url,
        `create schema ${schema};
         create table ${schema}.kept (id int primary key, t text, gone int); create index kept_t on ${schema}.kept (t);
         create table ${schema}.other (id int primary key, t text, n int);
         insert into ${schema}.kept select i, 'kept ' || i, i from generate_series(1, 9) as i;
         insert into ${schema}.other select i, 'other ' || i, i from generate_series(1, 9) as i`,
      );
      if (before !== "") await query(bySuperuser === true ? source : w.url, before.replaceAll("@", schema));
    }
    await drainNow(w.deps);
    await backup(w.deps);
    for (const [name, { steps, bySuperuser }] of Object.entries(cases)) {
      await inOneSession(
        bySuperuser === true ? source : w.url,
        steps.map((step) => step.replaceAll("@", schemaOf(name))),
      );
    }
    await drainNow(w.deps);
    target = superuser((await restored(cluster(), w.deps)).url);
  }, 240_000);

  it.each(Object.keys(cases))("%s", async (name) => {
    const schema = schemaOf(name);
    expect(definitionsOf(target, schema)).toEqual(definitionsOf(source, schema));
    expect(await tableHashes(target, [schema, `${schema}_2`])).toEqual(
      await tableHashes(source, [schema, `${schema}_2`]),
    );
  });

  it("and extensions have their versions and members", async () => {
    expect(await query(target, extensions)).toEqual(await query(source, extensions));
  });
});

describe("a project", () => {
  it("gets triggers and policies that users made on the tables of its services", async () => {
    const w = await world(cluster());
    await query(w.url, "create schema app; create schema private; create table app.profiles (id uuid primary key)");
    await drainNow(w.deps);
    await backup(w.deps);
    await query(
      w.url,
      `create function private.on_user() returns trigger language plpgsql security definer set search_path = ''
         as $f$ begin insert into app.profiles values (new.id); return new; end $f$;
       revoke execute on function private.on_user() from public;
       create trigger on_auth_user_created after insert on auth.users for each row execute function private.on_user();
       create policy mine on storage.objects for select using (true)`,
    );
    await drainNow(w.deps);
    const database = await freshDatabase(cluster());
    const url = cluster().plainUrl("postgres", database);
    const deps = { ...w.deps, target: openDatabase({ url }) };

    await restorePoint(deps, await planPoint(deps, { by: "end" }));
    expect(
      await query(
        superuser(url),
        `select (select tgenabled::text from pg_trigger where tgname = 'on_auth_user_created') as "trigger",
                (select count(*)::int from pg_policy where polname = 'mine') as policies`,
      ),
    ).toEqual([{ trigger: "O", policies: 1 }]);
  }, 120_000);
});

describe("a table that loses what its rows are known by", () => {
  it.each([
    [
      "an index",
      `create table app.t (id int not null, v text); create unique index t_id on app.t (id);
       alter table app.t replica identity using index t_id`,
      "drop index app.t_id",
    ],
    [
      "its partitioned parent's key",
      `create table app.p (id int, v text, primary key (id)) partition by range (id);
       create table app.t partition of app.p for values from (0) to (9)`,
      "alter table app.p drop constraint p_pkey",
    ],
    [
      "the domain of its key",
      "create domain app.number as int; create table app.t (id app.number primary key, v text)",
      "drop domain app.number cascade",
    ],
  ])("by %s takes updates at once", async (_, before, loses) => {
    const w = await world(cluster());
    await query(w.url, `create schema app; ${before}`);
    await drainNow(w.deps);
    await query(w.url, "insert into app.t values (1, 'a')");
    await query(w.url, loses);
    await query(w.url, "update app.t set v = 'b'");
    expect(await query(w.url, "select v from app.t")).toEqual([{ v: "b" }]);
  });
});

async function inOneSession(url: string, statements: readonly string[]): Promise<void> {
  await withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}
