/** What sessions do behind a full backup that a replay could take for something else: by whom, of what, under which label. */

type Step = string | { readonly other: string };

export interface Case {
  /** In each schema of its own, with tables `kept` and `other`; `@` is that schema, `@_2` another one. */
  readonly before?: string;
  /** By a superuser. */
  readonly events?: string;
  /** Each of them is sent as one string, in one session, but for those of somebody else. */
  readonly steps: readonly Step[];
}

/** An event trigger that does `work` once, at the first command of `tag` on the schema. */
function answering(trigger: string, tag: string, work: string): string {
  return `create function @.answer() returns event_trigger language plpgsql as $answer$ begin
      if current_setting('my.answered', true) = 'yes' or current_query() !~ '@\\.' then return; end if;
      perform set_config('my.answered', 'yes', true); ${work}; perform set_config('my.answered', '', true);
    end $answer$;
    create event trigger ${trigger} on ddl_command_end when tag in (${tag}) execute function @.answer()`;
}

const secured =
  `create function @.secure() returns event_trigger language plpgsql security definer set search_path = pg_catalog as $f$
    declare made record;
    begin
      for made in select * from pg_event_trigger_ddl_commands() where object_type = 'table' and schema_name = '@' loop
        execute format('alter table if exists %s enable row level security', made.object_identity);
      end loop;
    end $f$;
    create event trigger ensure_rls on ddl_command_end when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
      execute function @.secure()`;

const moods =
  `create type @.mood as enum ('a', 'b'); create domain @.felt_mood as @.mood; create type @.pair as (m @.mood, n int);
  create type @.span as range (subtype = @.mood, multirange_type_name = @.spans); create domain @.felt_pair as @.pair;
  create table @.felt (id int primary key, m @.mood, ms @.mood[], d @.felt_mood, p @.pair, s @.span, ds @.felt_mood[],
    ps @.pair[], ss @.spans, dp @.felt_pair)`;
const swapped = `alter type @.mood rename value 'a' to 'it''s'; alter type @.mood rename value 'b' to 'a';
  alter type @.mood rename value 'it''s' to 'b'`;
const felt = (id: number) =>
  `insert into @.felt values (${id}, 'a', '{a,b}', 'a', row('a', 1), '[a,a]', '{a,b}', array[row('a', 3)::@.pair], '{[a,a]}', row('a', 9))`;

export const cases: Readonly<Record<string, Case>> = {
  "an event trigger that sorts first and secures each new table": {
    events: secured,
    steps: [
      "create table @.a (id int primary key, t text)",
      "insert into @.a values (1, 'x')",
      "create table @.b (id int); alter table @.b add column t text default 'q'; insert into @.b values (1)",
      "create table @.c as select * from @.kept",
      "select * into @.d from @.kept",
      "do $$ begin create table @.e (id int primary key); insert into @.e values (3); end $$",
    ],
  },
  "an event trigger that alters a function which its string alters as well": {
    events: answering("answer_1", "'CREATE FUNCTION'", "alter function @.f() security definer"),
    steps: ["create function @.f() returns int language sql as 'select 1'; alter function @.f() stable"],
  },
  "an event trigger that takes back what was altered": {
    before: "create function @.f() returns int language sql as 'select 1'",
    events: answering("zz_answer_2", "'ALTER FUNCTION'", "alter function @.f() volatile"),
    steps: ["alter function @.f() stable"],
  },
  "an event trigger that drops what was made": {
    events: answering("answer_3", "'CREATE TABLE'", "drop table if exists @.bad"),
    steps: ["create table @.bad (id int)", "create table @.good (id int)"],
  },
  "an event trigger that gives a new table columns, a policy, an index, grants, a row and another owner": {
    before: "create role leftover_taker; grant leftover_taker to postgres; grant all on schema @ to leftover_taker",
    events: answering(
      "answer_4",
      "'CREATE TABLE'",
      `alter table @.a add column at timestamptz default now(); create policy p on @.a using (true); comment on table @.a is 'c';
       create index a_at on @.a (at); grant select on @.a to anon; insert into @.a (id) values (99);
       alter table @.a owner to leftover_taker`,
    ),
    steps: ["create table @.a (id serial primary key)", { other: "grant insert on @.a to service_role" }],
  },
  "an event trigger that renames and moves a new table": {
    before: "create schema @_2",
    events: answering("answer_5", "'CREATE TABLE'", "alter table @.a rename to a2; alter table @.a2 set schema @_2"),
    steps: ["create table @.a (id int primary key)", "insert into @_2.a2 values (1)"],
  },
  "an event trigger that answers a grant by a grant": {
    events: answering("zz_answer_6", "'GRANT'", "grant insert on @.kept to authenticated"),
    steps: ["grant select on @.kept to anon"],
  },
  "an event trigger that fires for a replica too": {
    before: "create table @.told (id int, what text)",
    events: `${answering("answer_7", "'CREATE TABLE', 'ALTER TABLE'", "insert into @.told values (1, tg_tag)")};
      alter event trigger answer_7 enable always`,
    steps: ["create table @.good (id int)", "alter table @.good add x int"],
  },
  "labels that are renamed while rows with them are written, at any depth": {
    before: moods,
    steps: [
      "begin",
      felt(1),
      { other: swapped },
      felt(2),
      "update @.felt set p = row('b', 5) where id = 1",
      "commit",
      felt(3),
      "delete from @.felt where id = 1",
    ],
  },
  "labels that a DO block renames while rows with them are written": {
    before: moods,
    steps: ["begin", felt(1), { other: `do $$ begin ${swapped}; end $$` }, felt(2), "commit"],
  },
  "labels of a type that has another name since, and another schema": {
    before: `${moods}; create schema @_2`,
    steps: [
      "begin",
      felt(1),
      { other: "alter type @.mood rename value $q$a$q$ to 'x'; alter type @.mood rename to feel" },
      { other: "alter type @.feel set schema @_2" },
      { other: "alter schema @_2 rename to @_3" },
      { other: "alter schema @_3 rename to @_2" },
      "commit",
    ],
  },
  "what a DO block or a function alters that no description says": {
    before: `create view @.v as select 1 as x; create function @.f() returns int language sql as 'select 1';
      create policy p on @.kept using (true); create index kept_t on @.kept (t); create sequence @.s; create domain @.d as int;
      create type @.mood as enum ('a'); create type @.pair as (x int, y int); create function @.g() returns void language plpgsql
      set search_path = @ as 'begin alter type mood rename to feel; alter type pair rename attribute x to xx; end'`,
    steps: [
      `do $$ begin alter view @.v rename to w; alter view @.w set (security_barrier = true); alter function @.f() stable;
        alter policy p on @.kept using (false); alter index @.kept_t rename to kept_t2; alter sequence @.s increment 7;
        alter domain @.d set not null; alter sequence @.s rename to s2; execute 'alter function @.f() strict; alter function @.f() cost 7'; end $$`,
      "select @.g()",
    ],
  },
  "functions that alter, called by what is no call": {
    before: `create function @.g() returns int language sql as 'select 1';
      create function @.f() returns int language plpgsql as $$ begin alter function @.g() security definer; return 1; end $$;
      create function @.h() returns trigger language plpgsql as $$ begin alter function @.g() leakproof; return new; exception
        when others then alter function @.g() cost 9; return new; end $$;
      create trigger t before insert on @.other for each row execute function @.h()`,
    steps: [
      "create table @.made as select @.f(); alter function @.g() stable",
      "insert into @.other values (50); alter function @.g() parallel safe",
    ],
  },
  "statements that did nothing, before those that did": {
    before:
      `create view @.t as select 1 as x; create sequence @.s; create index kept_t on @.kept (t); create table @.tt (id int);
      create function @.eq(int, int) returns boolean language sql immutable as 'select $1 = $2';
      create operator @.=== (leftarg = int, rightarg = int, function = @.eq); create collation @.c (locale = 'C');
      create text search dictionary @.d (template = simple)`,
    steps: [
      "alter view if exists nope.t set (security_barrier = true); alter view @.t set (security_invoker = true)",
      "alter sequence if exists nope.s increment 3; alter sequence @.s increment 5",
      "alter index if exists public.kept_t set (fillfactor = 50); alter index @.kept_t set (fillfactor = 60)",
      "alter table if exists nope.tt set (fillfactor = 50); alter table @.tt set (fillfactor = 60)",
      "set search_path = public; alter sequence if exists s increment 4; alter sequence @.s increment 6",
      "drop operator if exists public.=== (int, int); drop operator @.=== (int, int)",
      "drop text search dictionary if exists public.d; drop text search dictionary @.d",
      "create collation if not exists @.c (locale = 'POSIX'); create collation @.c2 (locale = 'POSIX')",
      `drop table if exists nope; create function @.f() returns int language sql as 'select 1; select 2';
       create or replace function @.f() returns int language sql as $x$ select ';'::text = 'create view'; select 3 $x$;
       create view @.v as select ';' as a; /* ; create view @.v */ create or replace view @.v as select ';' as a, 2 as b; -- ; drop view @.v
       create aggregate @.ag(int) (sfunc = int4pl, stype = int); create or replace aggregate @.ag(int) (sfunc = int4pl, stype = int, initcond = '5')`,
    ],
  },
  "partitions that are detached while others read, also to be finished later": {
    before: `create table @.p (id int, v text, primary key (id)) partition by range (id);
      create table @.p1 partition of @.p for values from (0) to (10);
      create table @.p2 partition of @.p for values from (10) to (20) partition by range (id);
      create table @.p2a partition of @.p2 for values from (10) to (12);
      insert into @.p values (1, 'a'), (11, 'b')`,
    steps: [
      "alter table @.p detach partition @.p1 concurrently",
      "insert into @.p1 values (2, 'c')",
      "alter table @.p detach partition @.p2 concurrently",
      "insert into @.p2 values (10, 'd')",
    ],
  },
  "a default partition beside those that come and go": {
    before: `create table @.p (id int, v text) partition by range (id);
      create table @.p1 partition of @.p for values from (0) to (10); create table @.pd partition of @.p default;
      alter table @.p1 replica identity full; alter table @.pd replica identity full; insert into @.p values (1, 'a'), (11, 'b')`,
    steps: [
      "alter table @.p detach partition @.p1",
      "create table @.p2 (id int, v text); alter table @.p2 replica identity full; insert into @.p2 values (15, 'new')",
      "delete from @.p where id between 10 and 19",
      "alter table @.p attach partition @.p2 for values from (10) to (20)",
      `begin; alter table @.p detach partition @.p2; insert into @.p values (16, 'in default'); insert into @.p2 values (17, 'alone');
       update @.pd set v = 'x'; commit`,
      "do $$ begin alter table @.p attach partition @.p1 for values from (0) to (5); end $$",
      "insert into @.p values (3, 'q'), (7, 'r')",
    ],
  },
  "everything of a role, given to another one or dropped": {
    before:
      `create role leftover_a; create role leftover_b; create role leftover_c; grant leftover_a, leftover_b, leftover_c to postgres;
      grant all on schema @ to leftover_a, leftover_b, leftover_c; alter table @.kept owner to leftover_a;
      create function @.f() returns int language sql as 'select 1'; alter function @.f() owner to leftover_a;
      create type @.mood as enum ('a'); alter type @.mood owner to leftover_a; create sequence @.s; alter sequence @.s owner to leftover_a;
      create table @.theirs (id int); alter table @.theirs owner to leftover_c; grant select on @.other to leftover_c;
      create policy p on @.other to leftover_c using (true); create policy q on @.other to leftover_c, leftover_b using (true)`,
    steps: ["reassign owned by leftover_a to leftover_b", "insert into @.kept values (70)", "drop owned by leftover_c"],
  },
  "what a role has made since the last drain, or altered in the same transaction, given to another one": {
    before: `create role leftover_d; create role leftover_e; grant leftover_d, leftover_e to postgres;
      grant all on schema @ to leftover_d, leftover_e;
      create table @.both (id int); alter table @.both owner to leftover_d;
      create function @.both_f() returns int language sql as 'select 1'; alter function @.both_f() owner to leftover_d`,
    steps: [
      `set role leftover_d; create table @.made (id serial primary key); create type @.made_t as enum ('a');
       create function @.made_f() returns int language sql as 'select 1'; create sequence @.made_s;
       create aggregate @.made_ag(int) (sfunc = int4pl, stype = int); create view @.made_v as select 1 as x; reset role`,
      `begin; alter table @.both add column n int; alter function @.both_f() stable; reassign owned by leftover_d to leftover_e;
       commit`,
    ],
  },
  "what functions make with the rights of their owner, or under a role that was set": {
    before: `create role leftover_maker; create role leftover_other; grant leftover_maker, leftover_other to postgres;
      grant all on schema @ to leftover_maker, leftover_other;
      create function @.make(n text) returns void language plpgsql security definer as $$ begin
        execute format('create table @.%I (id serial primary key, g int generated always as identity)', n);
        execute format('create view @.%I as select 1 as x', n || '_v'); execute format('alter view @.%I rename to %I', n || '_v', n || '_w');
        execute format('create function @.%I() returns int language sql as ''select 1''', n || '_f');
        execute format('create type @.%I as enum (''a'')', n || '_t'); execute format('create sequence @.%I', n || '_s');
        execute format('create aggregate @.%I(int) (sfunc = int4pl, stype = int)', n || '_ag'); end $$;
      alter function @.make(text) owner to leftover_maker`,
    steps: [
      "select @.make('one')",
      "set role leftover_other; select @.make('two'); create table @.three (id int); create collation @.c (locale = 'C'); reset role; alter table @.three owner to postgres",
    ],
  },
};
export const schemaOf = (name: string) => `leftover_${Object.keys(cases).indexOf(name)}`;
