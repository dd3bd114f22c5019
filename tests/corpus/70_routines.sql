-- run as: postgres
create schema corpus_routines;

create function corpus_routines.plain(a integer, b text default 'it''s', variadic c integer[] default '{}') returns text
  language plpgsql stable strict security definer parallel safe cost 123 as $$ begin return a::text; end $$;
alter function corpus_routines.plain(integer, text, integer[]) set search_path to corpus_routines, "$user", "Odd ""schema""";
alter function corpus_routines.plain(integer, text, integer[]) set datestyle to 'ISO, DMY';
create function corpus_routines.plain(a text) returns text language sql immutable return a || 'x';
create function corpus_routines.atomic(n integer) returns setof integer language sql rows 7
  begin atomic select g from generate_series(1, n) g; select g + 1 from generate_series(1, n) g; end;
create function corpus_routines.table_function(out x integer, inout y text) returns setof record language sql as $$ select 1, y $$;
create function corpus_routines.returns_table(n integer) returns table (a integer, "B b" text) language sql as 'select 1, ''q''::text';
create function corpus_routines."quoted NAME"(integer) returns integer language sql as $body$ select $1 -- $function$
$body$;
create procedure corpus_routines.procedure(inout n integer, m integer default 3) language plpgsql as $$ begin n := n + m; end $$;
create function corpus_routines.private() returns integer language sql security definer set search_path = '' as 'select 1';
revoke execute on function corpus_routines.private() from public;
create function corpus_routines.add(integer, integer) returns integer language sql immutable strict parallel safe as 'select $1 + $2';
create aggregate corpus_routines.total(integer) (sfunc = corpus_routines.add, stype = integer, initcond = '0', combinefunc = corpus_routines.add,
  parallel = safe, msfunc = corpus_routines.add, minvfunc = int4mi, mstype = integer, minitcond = '0');
create aggregate corpus_routines.count_all(*) (sfunc = int8inc, stype = bigint, initcond = '0');
comment on aggregate corpus_routines.count_all(*) is 'counts';
comment on function corpus_routines.plain(text) is E'two\nlines and a \\ backslash';
comment on procedure corpus_routines.procedure(integer, integer) is 'a procedure';

create table corpus_routines.watched (id integer primary key, a text, b text);
create function corpus_routines.on_change() returns trigger language plpgsql as $$ begin return coalesce(new, old); end $$;
create trigger of_columns after update of b, a on corpus_routines.watched for each row execute function corpus_routines.on_change();
create trigger after_update after update on corpus_routines.watched referencing old table as old_rows new table as new_rows
  for each statement execute function corpus_routines.on_change();
create trigger when_changed before update on corpus_routines.watched for each row
  when (old.a is distinct from new.a and pg_trigger_depth() < 3) execute function corpus_routines.on_change('arg''1', '2');
create constraint trigger deferred after insert on corpus_routines.watched deferrable initially deferred
  for each row execute function corpus_routines.on_change();
create trigger disabled before delete on corpus_routines.watched for each row execute function corpus_routines.on_change();
create trigger always before delete on corpus_routines.watched for each row execute function corpus_routines.on_change();
create trigger "Replica only" before truncate on corpus_routines.watched for each statement execute function corpus_routines.on_change();
alter table corpus_routines.watched disable trigger disabled;
alter table corpus_routines.watched enable always trigger always;
alter table corpus_routines.watched enable replica trigger "Replica only";
comment on trigger "Replica only" on corpus_routines.watched is 'for replicas';
insert into corpus_routines.watched values (1, 'a', 'b');

create table corpus_routines.secured (id integer primary key, owner_name text default current_user, body text);
alter table corpus_routines.secured enable row level security;
alter table corpus_routines.secured force row level security;
create policy own on corpus_routines.secured using (owner_name = current_user);
create policy "read all" on corpus_routines.secured for select to corpus_reader, corpus_writer using (true);
create policy narrow on corpus_routines.secured as restrictive for insert to public with check (id > 0);
create policy change on corpus_routines.secured for update using (id > 1) with check (exists (select from corpus_routines.watched w where w.id = secured.id));
create policy remove on corpus_routines.secured for delete using (false);
comment on policy own on corpus_routines.secured is 'own rows';
insert into corpus_routines.secured (id, body) values (1, 'hidden from others');
