-- run as: superuser
create schema corpus_superuser;
create function corpus_superuser.compare(text, text) returns integer language sql immutable strict return case when $1 < $2 then -1 when $1 > $2 then 1 else 0 end;
create function corpus_superuser.less(text, text) returns boolean language sql immutable strict return length($1) < length($2);
create function corpus_superuser.more(text, text) returns boolean language sql immutable strict return length($1) > length($2);
create function corpus_superuser.equal(text, text) returns boolean language sql immutable strict return length($1) = length($2);
create function corpus_superuser.negate(text) returns text language sql immutable strict return reverse($1);
create operator corpus_superuser.<# (function = corpus_superuser.less, leftarg = text, rightarg = text, commutator = operator(corpus_superuser.>#), restrict = scalarltsel, join = scalarltjoinsel);
create operator corpus_superuser.># (function = corpus_superuser.more, leftarg = text, rightarg = text, commutator = operator(corpus_superuser.<#));
create operator corpus_superuser.=# (function = corpus_superuser.equal, leftarg = text, rightarg = text, commutator = operator(corpus_superuser.=#), hashes, merges);
create operator corpus_superuser.!# (function = corpus_superuser.negate, rightarg = text);
comment on operator corpus_superuser.!# (none, text) is 'prefix';
create operator family corpus_superuser.lengths using btree;
create operator class corpus_superuser.length_ops for type text using btree family corpus_superuser.lengths as
  operator 1 corpus_superuser.<#, operator 3 corpus_superuser.=#, operator 5 corpus_superuser.>#, function 1 corpus_superuser.compare(text, text);
alter operator family corpus_superuser.lengths using btree add function 1 (varchar, varchar) corpus_superuser.compare(text, text);
create operator class corpus_superuser.alone_ops for type text using hash as operator 1 corpus_superuser.=#, function 1 hashtext(text);
create table corpus_superuser.ordered (t text);
create index ordered_by_length on corpus_superuser.ordered (t corpus_superuser.length_ops);
create type corpus_superuser.box_text as (t text);
create function corpus_superuser.to_box(text) returns corpus_superuser.box_text language sql immutable return row($1)::corpus_superuser.box_text;
create cast (text as corpus_superuser.box_text) with function corpus_superuser.to_box(text) as assignment;
create cast (corpus_superuser.box_text as json) with inout;
create function corpus_superuser.windowed() returns bigint language internal window immutable as 'window_row_number';
create aggregate corpus_superuser.middle(float8 order by anyelement) (sfunc = ordered_set_transition, stype = internal,
  finalfunc = percentile_disc_final, finalfunc_extra);
create type corpus_superuser.shell;
create type corpus_superuser.colour as enum ('red');
create cast (corpus_superuser.colour as text) with inout as implicit;
comment on cast (text as corpus_superuser.box_text) is 'a cast';

create foreign data wrapper corpus_wrapper options (debug 'true');
create extension postgres_fdw with schema corpus_superuser;
create server corpus_server type 'postgres' version '15' foreign data wrapper postgres_fdw options (host 'localhost', dbname 'it''s', port '5432');
create user mapping for public server corpus_server options (user 'reader', password 'top secret');
create user mapping for corpus_reader server corpus_server options (user 'r2');
create foreign table corpus_superuser.far (id integer options (column_name 'ID') not null, t text collate "C" default 'x', check (id > 0))
  server corpus_server options (schema_name 'public', table_name 'near');
comment on foreign table corpus_superuser.far is 'far away';
grant usage on foreign server corpus_server to corpus_reader;
grant usage on foreign data wrapper corpus_wrapper to corpus_reader;
comment on server corpus_server is 'a server';

create function corpus_superuser.on_ddl() returns event_trigger language plpgsql as $$ begin null; end $$;
create event trigger corpus_on_ddl on ddl_command_end when tag in ('CREATE TABLE', 'ALTER TABLE') execute function corpus_superuser.on_ddl();
create event trigger corpus_on_drop on sql_drop execute function corpus_superuser.on_ddl();
alter event trigger corpus_on_drop disable;
create event trigger corpus_always on table_rewrite execute function corpus_superuser.on_ddl();
alter event trigger corpus_always enable always;
comment on event trigger corpus_on_drop is 'off';

create access method corpus_heap type table handler heap_tableam_handler;
create table corpus_superuser.other_method (id integer, t text) using corpus_heap;
insert into corpus_superuser.other_method values (1, 'one');

create publication corpus_all for all tables with (publish = 'insert, truncate');
create publication corpus_schema for tables in schema corpus_tables with (publish_via_partition_root = true);
create publication corpus_list for table corpus_constraints.parent (id, c) where (id > 5 and c <> 'it''s'), only corpus_views.people;
create publication corpus_nothing;
comment on publication corpus_list is 'lists';
create subscription corpus_subscription connection 'dbname=nowhere password=secret' publication a, "B b"
  with (connect = false, slot_name = 'other_slot', streaming = on, binary = true, disable_on_error = true);
grant set on parameter "corpus.setting" to corpus_reader;
grant alter system on parameter work_mem to corpus_reader with grant option;
revoke execute on function pg_catalog.pg_sleep(double precision) from public;
grant execute on function pg_catalog.pg_sleep(double precision) to corpus_reader;
revoke execute on function extensions.hstore(text, text) from public;
grant execute on function extensions.hstore(text, text) to corpus_reader;
