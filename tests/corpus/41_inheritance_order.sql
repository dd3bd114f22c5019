-- run as: postgres
-- A parent's column that came after the child: no CREATE TABLE … INHERITS puts it last, so the child's columns become its own.
create schema corpus_inheritance_order;
create table corpus_inheritance_order.parent (a integer);
create table corpus_inheritance_order.child (x text) inherits (corpus_inheritance_order.parent);
alter table corpus_inheritance_order.parent add column b text;
insert into corpus_inheritance_order.child values (1, 'x', 'b');
