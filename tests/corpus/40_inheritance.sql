-- run as: postgres
create schema corpus_inheritance;

create table corpus_inheritance.base (id integer not null, name text default 'base', constraint named check (name <> '') );
create table corpus_inheritance.extra (more text, tags text[] default '{}', constraint only_here check (more <> 'x') no inherit);
create table corpus_inheritance.child (own integer) inherits (corpus_inheritance.base);
create table corpus_inheritance.changed (name text default 'changed', own integer not null) inherits (corpus_inheritance.base);
create table corpus_inheritance.both (id integer, z text) inherits (corpus_inheritance.base, corpus_inheritance.extra);
create table corpus_inheritance.grandchild (g integer) inherits (corpus_inheritance.child);
alter table corpus_inheritance.child alter column name drop default;
alter table corpus_inheritance.grandchild alter column name set default 'grand';
alter table corpus_inheritance.grandchild alter column own set not null;
alter table corpus_inheritance.both add constraint local_check check (z <> 'no');
alter table only corpus_inheritance.extra add constraint not_valid_yet check (more <> 'y') no inherit not valid;
alter table only corpus_inheritance.child add constraint child_key primary key (id);
insert into corpus_inheritance.base values (1, 'one');
insert into corpus_inheritance.child values (2, 'two', 22);
insert into corpus_inheritance.grandchild values (3, 'three', 33, 333);
insert into corpus_inheritance.both (id, name, more, z) values (4, 'four', 'more', 'z');

-- Joined later, with columns in another order: the order must stay.
create table corpus_inheritance.joined (x text, name text, id integer not null, constraint named check (name <> ''));
alter table corpus_inheritance.joined inherit corpus_inheritance.base;
insert into corpus_inheritance.joined values ('x', 'joined', 5);
