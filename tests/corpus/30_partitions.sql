-- run as: postgres
create schema corpus_partitions;

create table corpus_partitions.events (
  id bigint not null, happened timestamptz not null, kind text not null default 'none', n integer, constraint n_small check (n < 1000000)
) partition by range (happened);
create table corpus_partitions.events_2023 partition of corpus_partitions.events
  for values from ('2023-01-01 00:00+00') to ('2024-01-01 00:00+00');
create table corpus_partitions.events_2024 partition of corpus_partitions.events (kind default 'of 2024', constraint n_2024 check (n > -5))
  for values from ('2024-01-01 00:00+00') to ('2025-01-01 00:00+00') partition by list (kind);
create table corpus_partitions.events_2024_a partition of corpus_partitions.events_2024 for values in ('a', 'it''s', null);
create table corpus_partitions.events_2024_other partition of corpus_partitions.events_2024 default;
create table corpus_partitions."events old" (n integer, dropped text, kind text default 'old' not null, happened timestamptz not null,
  id bigint not null, constraint n_small check (n < 1000000));
alter table corpus_partitions."events old" drop column dropped;
alter table corpus_partitions.events attach partition corpus_partitions."events old" for values from (minvalue) to ('2023-01-01 00:00+00');
create table corpus_partitions.events_rest partition of corpus_partitions.events default;
alter table corpus_partitions.events add constraint events_key primary key (id, happened, kind);
create index events_n on corpus_partitions.events (n) where n > 3;
create index only_on_parent on only corpus_partitions.events (happened);
create index own_of_2023 on corpus_partitions.events_2023 (happened desc nulls last);
create unique index events_unique on corpus_partitions.events (happened, id, kind);
comment on index corpus_partitions.events_n is 'a partitioned index';
insert into corpus_partitions.events
select i, '2022-06-01 00:00+00'::timestamptz + i * interval '3 days',
  (array['a', 'b', 'it''s'])[i % 3 + 1], i from generate_series(1, 500) i;

create table corpus_partitions.hashed (id integer primary key, body text) partition by hash (id);
create table corpus_partitions.hashed_0 partition of corpus_partitions.hashed for values with (modulus 2, remainder 0);
create table corpus_partitions.hashed_1 partition of corpus_partitions.hashed for values with (modulus 2, remainder 1)
  with (fillfactor = 50);
insert into corpus_partitions.hashed select i, 'row ' || i from generate_series(1, 50) i;

create table corpus_partitions.by_expression (a text, b integer) partition by list (lower(a) collate "C");
create table corpus_partitions.by_expression_x partition of corpus_partitions.by_expression for values in ('x', 'y');
create table corpus_partitions.without_partitions (a integer, b text, primary key (a)) partition by range (a);
create table corpus_partitions.two_columns (a integer, b date) partition by range (a, b);
create table corpus_partitions.two_columns_1 partition of corpus_partitions.two_columns
  for values from (1, minvalue) to (10, '2020-01-01');

create table corpus_partitions.refers (id integer primary key, event_id bigint, happened timestamptz, kind text,
  constraint to_partitioned foreign key (event_id, happened, kind) references corpus_partitions.events (id, happened, kind));
create table corpus_partitions.child_of_plain (id integer, ref integer references corpus_partitions.refers (id)) partition by list (id);
create table corpus_partitions.child_of_plain_1 partition of corpus_partitions.child_of_plain for values in (1);
insert into corpus_partitions.refers select id, id, happened, kind from corpus_partitions.events where id < 5;
insert into corpus_partitions.child_of_plain values (1, 1);

create function corpus_partitions.stamp() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger stamped before insert on corpus_partitions.events for each row execute function corpus_partitions.stamp();
alter table corpus_partitions.events_2023 disable trigger stamped;
create trigger only_here after insert on corpus_partitions.events_rest for each row execute function corpus_partitions.stamp();

alter table corpus_partitions.events enable row level security;
create policy see_all on corpus_partitions.events for select using (true);
alter table corpus_partitions.events_2023 enable row level security;

create table corpus_partitions.with_identity (id bigint generated always as identity (start with 11), k integer, n serial) partition by list (k);
create table corpus_partitions.with_identity_1 partition of corpus_partitions.with_identity for values in (1);
create table corpus_partitions.with_identity_2 partition of corpus_partitions.with_identity for values in (2) partition by range (n);
create table corpus_partitions.with_identity_2_a partition of corpus_partitions.with_identity_2 for values from (0) to (1000);
insert into corpus_partitions.with_identity (k) values (1), (2), (1);
create table corpus_partitions.refers_to_itself (id integer primary key, other integer references corpus_partitions.refers_to_itself)
  partition by range (id);
create table corpus_partitions.refers_to_itself_1 partition of corpus_partitions.refers_to_itself for values from (0) to (10);
create table corpus_partitions.refers_to_itself_2 partition of corpus_partitions.refers_to_itself for values from (10) to (20);
insert into corpus_partitions.refers_to_itself values (1, null), (11, 1), (2, 11);
