-- run as: postgres
create schema "Odd schéma";
create schema "Odd Schéma";
create type "Odd schéma"."Type" as enum ('A', 'a');
create type "Odd schéma"."type" as enum ('B');
create table "Odd schéma"."Table" ("id" integer primary key, "ID" integer, "with ""quotes""" text, "with space" text, "new
line" text, "select" text, "ünï¢ödé ✓" "Odd schéma"."Type", "$dollar" text, "tab	tab" text, "back\slash" text, "per%cent" text);
create table "Odd schéma"."table" (id integer references "Odd schéma"."Table" ("id"), t "Odd schéma"."type");
create table "Odd Schéma"."Table" (id serial primary key);
create table "Odd schéma"."'; drop table x; --" ("a'b" text default 'a''b');
create table "Odd schéma"."name_with_the_longest_possible_length_of_63_bytes_in_postgresqls" (id serial);
create sequence "Odd schéma"."Séq ""1""";
create index "Index with ""quotes""" on "Odd schéma"."Table" ("with ""quotes""", "ID");
create view "Odd schéma"."View" as select "with ""quotes""" as "q""q", "select" from "Odd schéma"."Table";
create function "Odd schéma"."Func""tion"("Arg 1" integer, out "Out" text) language sql as 'select ''x''';
create policy "Policy ""x""" on "Odd schéma"."Table" using ("ID" = 1);
create trigger "Trig ""x""" before insert on "Odd schéma"."Table" for each row execute function corpus_routines.on_change();
alter table "Odd schéma"."Table" add constraint "Check ""x""" check ("ID" > 0);
create domain "Odd schéma"."Dom on ain" as text constraint "c on d" check (value <> '');
comment on constraint "c on d" on domain "Odd schéma"."Dom on ain" is 'odd';
comment on constraint "Check ""x""" on "Odd schéma"."Table" is 'odd too';
comment on column "Odd schéma"."Table"."with ""quotes""" is 'a ''comment'' with \ and $$';
create statistics "Odd schéma"."Stat ""x""" on "ID", "select" from "Odd schéma"."Table";
insert into "Odd schéma"."Table" ("id", "ID", "new
line", "select", "ünï¢ödé ✓", "back\slash") values (1, 2, 'x', 'y', 'a', 'b\c'), (2, 3, E'\n', '✓', 'A', '\N');
insert into "Odd schéma"."table" values (1, 'B'), (2, null);
insert into "Odd Schéma"."Table" default values;
