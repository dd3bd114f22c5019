-- run as: postgres
create schema corpus_constraints;
create extension if not exists btree_gist with schema public;

create table corpus_constraints.parent (
  id integer constraint parent_key primary key with (fillfactor = 80),
  a integer, b integer, c text,
  constraint unique_ab unique (a, b) include (c) with (fillfactor = 60),
  constraint unique_nulls unique nulls not distinct (b, c),
  constraint unique_deferred unique (a) deferrable initially deferred
);
comment on constraint parent_key on corpus_constraints.parent is 'the key';
create table corpus_constraints.child (
  id integer primary key,
  to_key integer constraint to_key references corpus_constraints.parent on delete cascade on update restrict,
  a integer, b integer,
  constraint to_pair foreign key (a, b) references corpus_constraints.parent (a, b) match full on delete set null,
  constraint set_some foreign key (b, a) references corpus_constraints.parent (a, b) on delete set default (b),
  self integer constraint to_self references corpus_constraints.child deferrable initially deferred
);
alter table corpus_constraints.child add constraint unchecked foreign key (self) references corpus_constraints.parent not valid;
alter table corpus_constraints.child add constraint unchecked_check check (id < 0) not valid;
alter table corpus_constraints.child add constraint inline_check check (id <> 13), add constraint no_inherit check (id > -99) no inherit;
insert into corpus_constraints.parent values (1, 1, 1, 'x'), (2, 2, 2, 'y'), (3, null, null, null);
create table corpus_constraints.dep (id integer);

create table corpus_constraints.round_a (id integer primary key, b_id integer);
create table corpus_constraints.round_b (id integer primary key, a_id integer references corpus_constraints.round_a deferrable initially deferred);
alter table corpus_constraints.round_a add constraint to_b foreign key (b_id) references corpus_constraints.round_b deferrable;
begin;
set constraints all deferred;
insert into corpus_constraints.round_a values (1, 1), (2, 2);
insert into corpus_constraints.round_b values (1, 2), (2, 1);
commit;

create table corpus_constraints.booking (
  room integer, during tstzrange, cancelled boolean default false,
  constraint no_overlap exclude using gist (room with =, during with &&) with (fillfactor = 90) where (not cancelled),
  constraint deferred_overlap exclude using gist (during with &&) where (room = 0) deferrable initially deferred
);
insert into corpus_constraints.booking values (1, '[2024-01-01,2024-01-02)'), (1, '[2024-01-02,2024-01-03)');

-- A check that reads another table can only be made when the data is there.
create function corpus_constraints.is_parent(integer) returns boolean language sql stable
  as $$ select exists (select from corpus_constraints.parent p where p.id = $1) $$;
create table corpus_constraints.aaa_checked (parent integer constraint is_there check (corpus_constraints.is_parent(parent)));
insert into corpus_constraints.aaa_checked values (1), (2);

create table corpus_constraints.indexed (id integer, t text, j jsonb, arr integer[], v tsvector, n numeric, "Odd col" text);
create index plain on corpus_constraints.indexed (id);
create index multi on corpus_constraints.indexed (t collate "C" text_pattern_ops desc nulls last, n asc nulls first) include (id);
create index partial on corpus_constraints.indexed (n) where t is not null and n > 10;
create index expression on corpus_constraints.indexed ((lower(t)), (id + 1)) with (fillfactor = 55);
alter index corpus_constraints.expression alter column 1 set statistics 555;
create index gin_json on corpus_constraints.indexed using gin (j jsonb_path_ops) with (fastupdate = off);
create index brin_n on corpus_constraints.indexed using brin (n numeric_minmax_multi_ops (values_per_range = 16)) with (pages_per_range = 8);
create index hash_t on corpus_constraints.indexed using hash (t);
create unique index unique_expression on corpus_constraints.indexed (upper("Odd col")) nulls not distinct;
create index odd on corpus_constraints.indexed ("Odd col");
create statistics corpus_constraints.some_statistics (dependencies, ndistinct) on id, t from corpus_constraints.indexed;
create statistics corpus_constraints.expression_statistics on (id % 10), (lower(t)) from corpus_constraints.indexed;
alter statistics corpus_constraints.some_statistics set statistics 321;
comment on statistics corpus_constraints.some_statistics is 'statistics';
insert into corpus_constraints.indexed values (1, 'T', '{"a":1}', '{1,2}', 'a b', 11, 'odd');
