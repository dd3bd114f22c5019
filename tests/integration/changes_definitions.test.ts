/** Definitions that no text of a command says are restored as well: by pg_dump and row hashes of source and target. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { drain, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";

const cluster = useCluster();

/** What a session does, once the full backup is there; each in a schema of its own, which is its first `search_path`. */
const cases: Readonly<Record<string, string>> = {
  "CREATE TABLE AS, with its rows":
    "create table made as select i, 'row ' || i as t from generate_series(1, 2000) as i",
  "CREATE TABLE AS of what the same transaction has written": `begin;
    insert into kept select i, 'before' from generate_series(100, 120) as i;
    create table made as select *, now() as at from kept; update kept set t = 'after'; alter table made add primary key (id);
    update made set t = 'changed' where id > 110; commit`,
  "SELECT INTO": "select id, t into made from kept",
  "a DO block that makes a table and fills it": `do $$ begin
      create table made (id int generated always as identity primary key, t text not null default 'x', n numeric(8, 2) check (n > 0));
      insert into made (t, n) select 't' || i, i from generate_series(1, 300) as i;
      create index made_t on made (t) where n > 3; create unique index on made (n, lower(t));
    end $$`,
  "a function that makes tables with keys, grants, policies and triggers": `
    create function make_room(room text) returns void language plpgsql as $f$ begin
      execute format('create table %I (id bigserial primary key, owner uuid, body text collate "C", parent bigint references %I (id) deferrable)', room, room);
      execute format('alter table %I enable row level security', room);
      execute format('create policy own on %I for select to authenticated using (owner is not null)', room);
      execute format('create trigger stamps before insert on %I for each row execute function stamp()', room);
      execute format('grant select, insert (body) on %I to authenticated', room);
      execute format('revoke all on %I from service_role', room);
      execute format('comment on table %I is %L', room, 'a room''s own');
      execute format('comment on column %I.body is %L', room, 'text');
      execute format('insert into %I (body) values (''one''), (''two'')', room);
    end $f$;
    create function stamp() returns trigger language plpgsql as $f$ begin new.body := new.body || '!'; return new; end $f$;
    select make_room('first'); select make_room('The "second"')`,
  "a function that alters a table": `create function grow() returns void language plpgsql as $f$ begin
      alter table kept add column extra int not null default 7, add column at timestamptz default now();
      alter table kept rename column t to "Text";
      alter table kept alter column "Text" set not null, alter column "Text" set default 'none', add constraint long check (length("Text") < 5000);
      update kept set extra = id; alter table kept drop column gone; insert into kept (id) values (900);
      alter table kept set (fillfactor = 70); alter table kept alter column "Text" set storage external;
      alter table kept drop constraint long, add constraint long check (length("Text") < 9000);
    end $f$; select grow()`,
  "tables that a function renames and moves": `create schema attic; create table made (id int);
    do $$ begin alter table kept rename to "Kept, once"; alter table "Kept, once" add column later int default 3;
      insert into "Kept, once" (id) values (901); alter table made set schema attic; alter table attic.made rename to one;
      alter table attic.one set schema case_6; insert into one values (1); end $$`,
  "partitions whose bounds are computed": `create table days (at date not null, v text) partition by range (at);
    create table days_1 partition of days for values from (current_date) to (current_date + 1);
    do $$ begin execute format('create table %I partition of days for values from (%L) to (%L)', 'days_' || 2, current_date + 1, current_date + 2);
      create table days_3 (at date not null, v text); alter table days attach partition days_3 default; end $$;
    create index on days (v); create index days_only on only days (v, at); insert into days select current_date + i, 'v' from generate_series(0, 5) as i`,
  "materialised views, with and without rows":
    `create materialized view made as select t, count(*) as n from kept group by t;
    create unique index on made (t); create materialized view hollow as select 1 as one with no data;
    refresh materialized view hollow; create materialized view emptied as select 2 as two;
    refresh materialized view emptied with no data`,
  "types and sequences of a DO block": `do $$ begin
      create type mood as enum ('calm', 'sad'); create type place as (x float8, y text); create domain short as text check (length(value) < 9);
      create sequence numbers increment 3 start 7; perform nextval('numbers');
      create table made (m mood default 'sad', p place, s short, n int default nextval('numbers'));
      insert into made (p, s) values (row(1, 'a'), 'short'); end $$;
    do $$ begin alter type mood add value 'gloomy' before 'sad'; alter type mood rename value 'calm' to 'quiet'; end $$`,
  "views, rules, statistics and functions of a DO block": `do $$ begin
      create view seen with (security_barrier = true) as select id, t from kept;
      create rule nothing as on delete to seen do instead nothing;
      create statistics both_columns on id, t from kept;
      create function twice(n int) returns int language sql immutable as 'select n * 2';
      create procedure nop() language plpgsql as 'begin end'; end $$`,
  "what a function drops":
    `create table one (id int primary key); create table two (id int references one); create view v as select * from one;
    create function f() returns int language sql as 'select 1';
    do $$ begin drop table one cascade; drop function f(); drop index kept_t; drop policy p on kept; end $$`,
  "a column whose default is the time":
    `alter table kept add column at timestamptz default now(), add column d date default current_date,
      add column xs timestamptz[] default array[now(), null], add column area box default '(2,2),(1,1)'`,
  "a constant that was the time":
    "create table made (id int, at timestamptz default 'now'); insert into made values (1)",
  "a script of many commands":
    `create table one (id int primary key); create table two as select 1 as id; insert into one values (1);
    alter table two add foreign key (id) references one; create or replace view w as select * from two; alter view w rename to w2;
    grant select on w2 to anon`,
  "inheritance":
    `do $$ begin create table base (id int, t text default 'b'); create table child (extra int) inherits (base);
      insert into child values (1, 'c', 2); alter table base add column later int default 5; end $$`,
  "identities of a DO block":
    `do $$ begin alter table kept replica identity full; create table made (a int not null, b int);
      create unique index made_a on made (a); alter table made replica identity using index made_a;
      insert into made values (1, 1); update made set b = 2; end $$;`,
  "names under a search_path that the log does not know": `create schema aside; create type aside.mood as enum ('calm');
    create type aside.kind as enum ('same'); create type kind as enum ('same');
    set search_path = aside; create table case_17.one (m mood); create table case_17.two (k kind default 'same');
    insert into case_17.two default values; alter table case_17.kept add column m mood, add column k kind default 'same';
    create table aside.kept (id int, t text); create view case_17.v as select t from kept; create index kept_id on kept (id);
    create function case_17.f() returns kind language sql as 'select null::kind'; grant select on kept to anon;
    comment on table kept is 'aside'; drop table kept cascade; create table kept (n int); grant select on kept to anon;
    create view case_17.w as select n from kept; create index kept_n on kept (n)`,
  "an extension that a DO block makes, and a table with its type":
    "do $$ begin create extension citext schema case_18; create table made (t citext); insert into made values ('A'); end $$",
  "what is altered by itself, under a name that it did not have":
    `create type old_mood as enum ('a'); create sequence old_numbers;
    create table made (m old_mood, n int default nextval('old_numbers')); create view old_view as select m from made;
    create index old_index on made (n); create type pair as (x int, y int); create domain short as text;
    alter type old_mood rename to mood; alter sequence old_numbers rename to numbers; alter sequence numbers increment 7;
    alter view old_view rename to new_view; alter index old_index rename to new_index; alter table new_index rename to newest;
    alter table numbers rename to numbers2; alter type mood add value 'b'; alter type mood rename value 'a' to 'c';
    alter domain short set default 'x'; alter type pair add attribute z int`,
  "grants on every kind of thing":
    `create type pair as (x int, y int); create domain short as text; create function f() returns int
      language sql as 'select 1'; create table made (a int, b int); create sequence numbers; create schema case_20_aside;
    create type mood as enum ('a'); create type span as range (subtype = int);
    grant usage on type pair, short, mood, span to anon; revoke all on function f() from public; grant execute on function f() to anon;
    grant select (a), update (b) on made to anon; grant usage on sequence numbers to anon; grant usage on schema case_20_aside to anon;
    revoke usage on type short from public; do $$ begin grant insert (a) on made to authenticated;
      revoke update (b) on made from anon; grant usage on type pair to authenticated; end $$`,
};
const schemaOf = (name: string) => `case_${Object.keys(cases).indexOf(name)}`;

function definitionsOf(url: string, schema: string): string[] {
  const text = execFileSync(
    join(cluster().bin, "pg_dump"),
    ["--schema-only", `--schema=${schema}`, `--dbname=${url}`],
    {
      encoding: "utf8",
    },
  );
  return text.split("\n").filter((line) => line !== "" && !/^(?:--|\\(?:un)?restrict)/.test(line));
}

async function rowsOf(url: string, schema: string): Promise<Record<string, string>> {
  const tables = await query(
    url,
    `select c.oid::regclass::text as name from pg_class c
      where c.relnamespace = to_regnamespace('${schema}') and (c.relkind = 'r' or c.relkind = 'm' and c.relispopulated) order by 1`,
  );
  const found: Record<string, string> = {};
  for (const { name } of tables) {
    const [row] = await query(
      url,
      `select count(*) || ' ' || md5(coalesce(string_agg(whole_row::text, e'\\n' order by whole_row::text collate "C"), '')) as hash from ${name} as whole_row`,
    );
    found[String(name)] = String(row?.["hash"]);
  }
  return found;
}

describe("definitions behind the full backup come back as they were:", () => {
  let source = "";
  let target = "";

  beforeAll(async () => {
    const w = await world(cluster());
    source = w.url;
    for (const name of Object.keys(cases)) {
      const schema = schemaOf(name);
      await query(
        w.url,
        `create schema ${schema};
         create table ${schema}.kept (id int primary key, t text, gone int);
         create index kept_t on ${schema}.kept (t); create policy p on ${schema}.kept using (true);
         insert into ${schema}.kept select i, 'kept ' || i % 7, i from generate_series(1, 50) as i`,
      );
    }
    const drained = () =>
      drain(w.deps, { worker: "test", budget: unlimited, limits: processDrainLimits, idleSeconds: 0 });
    await drained();
    await backup(w.deps);
    for (const [name, sql] of Object.entries(cases)) {
      await query(withPath(w.url, schemaOf(name)), sql);
    }
    expect(await drained()).toMatchObject({ outcome: "caught_up" });

    const database = await freshDatabase(cluster(), { platform: false });
    target = cluster().plainUrl(cluster().superuser, database);
    const deps = { ...w.deps, target: openDatabase({ url: target }) };
    await restorePoint(deps, await planPoint(deps, { by: "end" }));
  }, 240_000);

  it.each(Object.keys(cases))("%s", async (name) => {
    const schema = schemaOf(name);
    const rows = await rowsOf(source, schema);
    expect(Object.keys(rows).length, "tables").toBeGreaterThan(0);
    expect(await rowsOf(target, schema)).toEqual(rows);
    expect(definitionsOf(target, schema)).toEqual(definitionsOf(source, schema));
  });
});

/** The URL with a session default, as roles and databases have one. */
function withPath(url: string, schema: string): string {
  const made = new URL(url);
  made.searchParams.set("options", `-c search_path=${schema}`);
  return made.href;
}
