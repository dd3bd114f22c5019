/** What was done to definitions behind a full backup in ways that a replay got wrong once. */

export interface Case {
  /** Each of them is sent as one string, in one session, but for those of somebody else. */
  readonly steps: readonly (string | { readonly other: string })[];
  /** The session has begun with this before the chain of the stream began. */
  readonly early?: string;
  readonly before?: string;
  readonly bySuperuser?: boolean;
}

/** Each in a schema of its own, with tables `kept` and `other`. `@` is that schema. */
export const cases: Readonly<Record<string, Case>> = {
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
  "one string of several transactions, and what it takes back itself": {
    before: `create policy p on @.kept using (true); create policy "p 2" on @.other using (true);
      create function @.f() returns int language sql as 'select 1'; create type @.mood as enum ('a');
      create table @.felt (id int primary key, m @.mood); create type @.role as enum ('user')`,
    steps: [
      'begin; alter policy p on @.kept using (id < 3); commit; begin; alter policy "p 2" on @.other using (false); commit;',
      "begin; savepoint a; alter function @.f() security definer; rollback to a; alter function @.f() stable; commit",
      "alter function @.f() strict; rollback; begin; alter function @.f() immutable; commit",
      "alter type @.mood add value if not exists 'x'; commit; alter type @.mood add value if not exists 'y'; commit",
      "insert into @.felt values (1, 'x'), (2, 'y')",
      `begin; create type @.role_new as enum ('user', 'admin'); alter type @.role rename to role_old;
       alter type @.role_new rename to role; drop type @.role_old; commit; alter table @.kept add column r @.role; `,
      "alter table @.kept alter gone set default 1; commit; alter table @.kept alter gone set default 2; commit",
    ],
  },
  "a default that its own command takes away, in a DO block": {
    steps: [
      "do $$ begin alter table @.kept add column n int default 7, alter column n set default null; end $$",
      "do $$ begin alter table @.kept add column o text not null default 'it''s', alter column o set default null; end $$",
    ],
  },
  "temporary tables": {
    before: "create function @.f() returns trigger language plpgsql as 'begin return new; end'",
    steps: [
      "set search_path = @, public",
      "create temp table kept (id int); create temp table scratch (id int)",
      "grant select on kept to anon",
      "grant select on scratch to anon; grant select on @.other to anon",
      "create trigger t before insert on scratch for each row execute function f()",
      "create policy p on scratch using (true)",
      "create rule r as on insert to scratch do instead nothing",
      "comment on trigger t on scratch is 'x'",
      "drop table pg_temp.kept",
      "create policy p on kept using (true)",
    ],
  },
  "a session that does not see what others have done since": {
    steps: [
      "begin isolation level repeatable read",
      "select pg_current_xact_id()",
      {
        other: `alter table @.kept enable row level security; alter table @.kept alter t set default 'theirs';
          alter table @.kept add column theirs int default 4; grant update (t) on @.other to anon`,
      },
      "alter table @.kept alter gone set default 5",
      "grant select on @.kept to anon; grant insert (id) on @.other to anon; revoke all on @.kept from service_role",
      "create table @.mine (id int generated always as identity)",
      "do $$ begin alter table @.mine add column x int default 3; create policy p on @.kept using (true); end $$",
      "commit",
    ],
  },
  "a session with a snapshot from before the chain": {
    early: "begin isolation level repeatable read; select from @.kept",
    steps: [
      "alter table @.kept enable row level security; alter table @.kept add column secret text default 'k'",
      "commit",
    ],
  },
  "a label that is renamed while rows with it are written": {
    before: `create type @.mood as enum ('a', 'b'); create table @.felt (id int primary key, m @.mood);
      insert into @.felt values (1, 'a'), (2, 'b'); alter table @.felt replica identity full`,
    steps: [
      "begin",
      "update @.felt set id = 3 where m = 'a'; insert into @.felt values (4, 'a'), (5, 'b')",
      { other: "alter type @.mood rename value 'a' to 'it''s'; alter type @.mood rename value 'b' to 'a'" },
      "commit",
      "insert into @.felt values (6, 'a'); delete from @.felt where id = 4",
    ],
  },
  "a script of grants": {
    steps: [
      Array.from(
        { length: 9 },
        (_, at) =>
          `create table @.made_${at} (id int, t text); grant select on @.made_${at} to anon; grant update (t) on @.made_${at} to anon;`,
      ).join("\n"),
      "grant insert on all tables in schema @ to authenticated; revoke update (t) on @.made_1 from anon; grant usage on schema @ to anon",
    ],
  },
};
export const schemaOf = (name: string) => `attacked_${Object.keys(cases).indexOf(name)}`;
