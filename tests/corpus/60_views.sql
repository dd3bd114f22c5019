-- run as: postgres
create schema corpus_views;

create table corpus_views.people (id integer primary key, name text not null, boss integer, salary numeric);
insert into corpus_views.people values (1, 'Ann', null, 10), (2, 'Bob', 1, 9), (3, 'Cy', 1, 8);
create view corpus_views.simple as select * from corpus_views.people;
create view corpus_views.renamed (a, "B b") as select id, name from corpus_views.people;
create view corpus_views.checked with (security_barrier) as select id, name from corpus_views.people where id < 10 with local check option;
create view corpus_views.invoker with (security_invoker = true) as select id from corpus_views.people with cascaded check option;
create recursive view corpus_views.chain (id, depth) as
  select id, 0 from corpus_views.people where boss is null
  union all select p.id, c.depth + 1 from corpus_views.people p join chain c on c.id = p.boss;
create view corpus_views.with_default as select id, name from corpus_views.people;
alter view corpus_views.with_default alter column name set default 'from the view';
comment on column corpus_views.with_default.name is 'column of a view';
-- Grouping by the key makes the view depend on the constraint, which comes after the data.
create view corpus_views.grouped as select id, name, count(*) from corpus_views.people group by id;
create view corpus_views.on_grouped as select id from corpus_views.grouped;
create table corpus_views.holds_grouped (g corpus_views.grouped, n integer);
create materialized view corpus_views.materialised_grouped as select id, name, salary from corpus_views.people group by id;

create function corpus_views.grouped_body() returns bigint language sql
  begin atomic select count(*) from (select id, name from corpus_views.people group by id) x; end;

-- Two views that need each other, through a function over the other's row type.
create view corpus_views.round_a as select 1 as n;
create function corpus_views.round(corpus_views.round_a) returns integer language sql immutable return $1.n + 1;
create view corpus_views.round_b as select corpus_views.round(a) as n from corpus_views.round_a a;
create or replace view corpus_views.round_a as select 1 as n where exists (select pg_catalog.to_regclass('corpus_views.round_b'));

create materialized view corpus_views.filled with (fillfactor = 75) as select id, upper(name) as name from corpus_views.people;
create unique index filled_key on corpus_views.filled (id);
alter materialized view corpus_views.filled alter column name set statistics 77;
create materialized view corpus_views.of_filled as select count(*) as n from corpus_views.filled;
create materialized view corpus_views.not_filled as select 1 as one with no data;

create rule log_insert as on insert to corpus_views.people do also notify people;
create rule no_delete as on delete to corpus_views.people do instead nothing;
alter table corpus_views.people disable rule no_delete;
create rule update_renamed as on update to corpus_views.renamed do instead update corpus_views.people set name = new."B b" where id = old.a;
comment on rule no_delete on corpus_views.people is 'off';

create function corpus_views.instead() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger instead_of instead of insert or update on corpus_views.simple for each row execute function corpus_views.instead();
