-- The DDL log: event triggers write what a command did in its own transaction, and so into the stream. What an object is
-- after a command is said by the functions of 0950.

-- Notes under which settings a command's text was read, for the triggers that come after it in the order of their names: those
-- have settings of their own, and a function cannot see past them. So this one has none: it runs as the caller, and whatever is
-- named here is named in full, so that nothing in the caller's path takes its place.
create function backup.note_session() returns event_trigger
language plpgsql
volatile
as $$
begin
  perform pg_catalog.set_config('holdfast.session', pg_catalog.jsonb_build_object(
    'search_path', pg_catalog.current_setting('search_path'),
    'timezone', pg_catalog.current_setting('timezone'),
    'datestyle', pg_catalog.current_setting('datestyle'),
    'intervalstyle', pg_catalog.current_setting('intervalstyle'),
    'role', current_user
  )::pg_catalog.text, true);
exception when others then
  null;
end
$$;
revoke all on function backup.note_session() from public;

-- Who gave the command: `client`, in the string that it sent, or `code` that was running then (a function, a DO block, somebody's
-- event trigger), with its `statement` where the server says that. `context`: PG_CONTEXT of one of the triggers, whose own line
-- is the first of it; a frame of code that gave SQL to the server stands right below.
create function backup.caller_of(context text) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when f.frames = '' then pg_catalog.jsonb_build_object('caller', 'client')
    else pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'caller', 'code', 'statement', pg_catalog.left(pg_catalog.substring(f.frames, E'^SQL statement "(.*?)"(?:\n(?:PL/|SQL )[^\n]*(?:\n(?:PL/|SQL )|$)|$)'), 1000000)
    )) end
  from (select coalesce(pg_catalog.substring(context, E'^[^\n]*\n(.*)$'), '')) as f (frames)
$$;
revoke all on function backup.caller_of(text) from public;

-- Names of the session's temporary relations, quoted where needed: a bare name in a command may have been one of theirs.
create function backup.temporary_names() returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select pg_catalog.jsonb_build_object('temporary', pg_catalog.string_agg(pg_catalog.quote_ident(c.relname), ',' order by c.relname))
    from pg_catalog.pg_class as c
    where c.relnamespace = pg_catalog.pg_my_temp_schema() and c.relkind in ('r', 'v', 'S', 'i', 'c', 'f', 'p')
    having count(*) > 0
  ), '{}')
  where pg_catalog.pg_my_temp_schema() <> 0
$$;
revoke all on function backup.temporary_names() from public;

-- Writes one row of the log. Called by the triggers, which may run for any role that makes or drops something. `caller`: as
-- caller_of says it. The role is the one whose rights counted: inside a function with those of its owner, that one; not the
-- superuser that a platform lends for some commands.
create function backup.log_ddl(what text, tag text, objects jsonb, caller jsonb default '{}') returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.ddl_log (what, tag, objects, query, role_name, search_path, settings)
  select log_ddl.what, log_ddl.tag, log_ddl.objects, backup.logged_query(log_ddl.objects),
    coalesce(case
      when log_ddl.caller ->> 'caller' = 'code' and not (
        log_ddl.tag ~ '(EXTENSION|EVENT TRIGGER|FOREIGN DATA WRAPPER|PUBLICATION|SUBSCRIPTION|POLICY|DROP TRIGGER)$'
        and exists (select from pg_catalog.pg_roles as r where r.rolname = n.noted ->> 'role' and r.rolsuper)
      ) then n.noted ->> 'role'
    end, case pg_catalog.current_setting('role') when 'none' then session_user else pg_catalog.current_setting('role') end),
    -- asked only where nobody noted it: the view has a row for every setting
    coalesce(n.noted ->> 'search_path', (select s.reset_val from pg_catalog.pg_settings as s where s.name = 'search_path')),
    n.noted - 'role' || log_ddl.caller || coalesce(backup.temporary_names(), '{}')
  from backup.session_settings() as n (noted)
$$;
revoke all on function backup.log_ddl(text, text, jsonb, jsonb) from public;

-- What happened could not be logged: a row without objects, at which every restore to a moment behind it is refused. The
-- user's command goes on, whatever becomes of this.
create function backup.log_unlogged(tag text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.log_ddl('uncovered', log_unlogged.tag, '[]');
exception when others then
  null;
end
$$;
revoke all on function backup.log_unlogged(text) from public;

-- Is the object one whose changes a restore to a moment brings back? Publications are the target's own, and what we put on the
-- platform's tables comes with the installation. What hangs on another object has no schema: on a temporary one it lasts no
-- longer.
create function backup.is_logged_object(type text, schema_name text, identity text) returns boolean
language sql
stable
set search_path = ''
as $$
  select backup.is_streamed_schema(is_logged_object.schema_name)
    and not (is_logged_object.type = 'schema' and not backup.is_streamed_schema(is_logged_object.identity))
    and is_logged_object.type not in ('publication', 'publication relation', 'publication namespace')
    and not (
      is_logged_object.schema_name is null
      and coalesce(is_logged_object.identity, '') ~ ' on pg_temp\.("([^"]|"")*"|[^". ]+)$'
    )
    and not (
      is_logged_object.type in ('policy', 'trigger')
      and is_logged_object.identity ~ '^holdfast_(buckets|maintenance) on (auth|storage)\.'
    )
$$;
revoke all on function backup.is_logged_object(text, text, text) from public;

-- Tables that are no partitions any more since this transaction, which can have done nothing else: DETACH … CONCURRENTLY leaves
-- them a check of their former bounds, and its row of the log is of the parent.
create function backup.detached_tables() returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'type', 'table', 'identity', c.oid::regclass::text, 'schema', n.nspname, 'oid', c.oid::bigint,
    'made', pg_catalog.jsonb_build_object('table', backup.describe_table(c.oid))
  )), '[]')
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't' and c.oid >= 16384
    and backup.is_of_this_transaction(c.xmin) and backup.is_streamed_schema(n.nspname)
$$;
revoke all on function backup.detached_tables() from public;

-- After every command. Never raises: what goes wrong here is found by the drain, which compares the catalog.
create function backup.after_ddl() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
-- constants in what is described are read again by a session of these settings
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set extra_float_digits = 3
set bytea_output = 'hex'
set lc_monetary = 'C'
set quote_all_identifiers = off
as $$
declare
  objects jsonb;
  context text;
  caller jsonb;
begin
  if not backup.logs_ddl() then
    return;
  end if;
  get diagnostics context = pg_context;
  caller := backup.caller_of(context);
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'extension', c.in_extension,
      'missing', case when tg_tag = 'ALTER TABLE' then backup.missing_values(c.objid) end
    )) || pg_catalog.jsonb_build_object(
      'type', c.object_type, 'identity', c.object_identity, 'schema', c.schema_name, 'oid', c.objid::bigint,
      'made', case when not c.in_extension then
        backup.describe_object(c.classid, c.objid, c.objsubid, c.object_type, c.object_identity, tg_tag, caller ->> 'caller')
      end
    ) order by c.ordinality)
  into objects
  from pg_catalog.pg_event_trigger_ddl_commands() with ordinality as c
  where backup.is_logged_object(c.object_type, c.schema_name, c.object_identity);
  -- never one of several statements
  if tg_tag = 'ALTER TABLE' and caller ->> 'caller' = 'client'
    and pg_catalog.left(pg_catalog.current_query(), 8000) ~* '\mdetach\M.*\m(concurrently|finalize)\M' then
    objects := objects || backup.detached_tables();
  end if;
  if objects is null then
    return;
  end if;
  perform backup.log_ddl('command', tg_tag, objects, caller);
  if tg_tag in ('CREATE TABLE AS', 'SELECT INTO') and not backup.publishes_everything() then
    -- its rows came before it could be listed
    perform backup.log_ddl('uncovered', tg_tag, objects);
  end if;
  perform backup.publish_touched(objects, tg_tag);
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_ddl() from public;

-- Takes tables that lost what their rows are known by out of the list of updates and deletes: while one stands there, its owner's
-- UPDATE fails. Whoever dropped an index holds the lock already that this needs.
create function backup.unpublish_keyless() returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  keyless record;
  old_timeout text := pg_catalog.current_setting('lock_timeout');
begin
  perform pg_catalog.set_config('lock_timeout', '500ms', true);
  for keyless in
    select l.prrelid, h.publications
    from backup.chains as h
    join pg_catalog.pg_publication as p on p.pubname = h.publications[2]
    join pg_catalog.pg_publication_rel as l on l.prpubid = p.oid
    join pg_catalog.pg_class as c on c.oid = l.prrelid
    where h.ended_at is null and c.relreplident <> 'f' and not exists (
      select from pg_catalog.pg_index as i
      where i.indrelid = c.oid and i.indisvalid and i.indimmediate
        and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
    )
  loop
    begin
      perform backup.publish_table(keyless.prrelid, keyless.publications);
    exception when others then
      -- another transaction changes the list: the drain takes it out
      null;
    end;
  end loop;
  perform pg_catalog.set_config('lock_timeout', old_timeout, true);
end
$$;
revoke all on function backup.unpublish_keyless() from public;

create function backup.after_drop() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
-- constants in what is described are read again by a session of these settings
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set extra_float_digits = 3
set bytea_output = 'hex'
set lc_monetary = 'C'
set quote_all_identifiers = off
as $$
declare
  objects jsonb;
  context text;
begin
  if not backup.logs_ddl() then
    return;
  end if;
  get diagnostics context = pg_context;
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'type', d.object_type, 'schema', d.schema_name, 'oid', d.objid::bigint,
      -- the server wrote it under the caller's quote_all_identifiers
      'identity', case
        when d.object_type in ('table', 'view', 'materialized view', 'foreign table', 'sequence', 'index', 'table column') then (
          select pg_catalog.string_agg(pg_catalog.quote_ident(a.name), '.' order by a.ordinality)
          from pg_catalog.unnest(d.address_names) with ordinality as a (name, ordinality)
        )
        else d.object_identity
      end,
      'original', d.original
    ) order by d.ordinality)
  into objects
  from pg_catalog.pg_event_trigger_dropped_objects() with ordinality as d
  where not d.is_temporary and backup.is_logged_object(d.object_type, d.schema_name, d.object_identity);
  if objects is null then
    return;
  end if;
  perform backup.log_ddl('drop', tg_tag, objects, backup.caller_of(context));
  if objects @> any (array['[{"type": "index"}]', '[{"type": "table column"}]', '[{"type": "table constraint"}]']::jsonb[]) then
    perform backup.unpublish_keyless();
  end if;
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_drop() from public;

create function backup.after_rewrite() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
-- constants in what is described are read again by a session of these settings
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set extra_float_digits = 3
set bytea_output = 'hex'
set lc_monetary = 'C'
set quote_all_identifiers = off
as $$
declare
  rewritten oid := pg_catalog.pg_event_trigger_table_rewrite_oid();
  schema_name name;
  context text;
begin
  if not backup.logs_ddl() then
    return;
  end if;
  get diagnostics context = pg_context;
  select n.nspname into schema_name
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where c.oid = rewritten and c.relpersistence <> 't';
  if schema_name is null or not backup.is_streamed_schema(schema_name) then
    return;
  end if;
  perform backup.log_ddl('rewrite', tg_tag, pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
    'type', 'table', 'identity', rewritten::regclass::text, 'oid', rewritten::bigint,
    'reason', pg_catalog.pg_event_trigger_table_rewrite_reason(),
    -- what a command names that rewrites it
    'ancestors', (
      with recursive above (oid) as (
        select h.inhparent from pg_catalog.pg_inherits as h where h.inhrelid = rewritten
        union
        select h.inhparent from above as a join pg_catalog.pg_inherits as h on h.inhrelid = a.oid
      )
      select coalesce(pg_catalog.jsonb_agg(a.oid::regclass::text), '[]') from above as a
    )
  )), backup.caller_of(context));
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_rewrite() from public;

-- Where only a superuser may make event triggers and we are none, DDL is not logged; the drain says so.
do $$
begin
  -- in the order of their names, before those of anybody else: what a user's own event trigger does comes behind the command
  -- that it answers
  create event trigger "!holdfast_after_a_command" on ddl_command_end execute function backup.note_session();
  create event trigger "!holdfast_after_a_drop" on sql_drop execute function backup.note_session();
  create event trigger "!holdfast_after_ddl" on ddl_command_end execute function backup.after_ddl();
  create event trigger "!holdfast_after_drop" on sql_drop execute function backup.after_drop();
  create event trigger "!holdfast_after_rewrite" on table_rewrite execute function backup.after_rewrite();
  alter event trigger "!holdfast_after_a_command" enable always;
  alter event trigger "!holdfast_after_a_drop" enable always;
  alter event trigger "!holdfast_after_ddl" enable always;
  alter event trigger "!holdfast_after_drop" enable always;
  alter event trigger "!holdfast_after_rewrite" enable always;
exception when insufficient_privilege then
  raise notice 'event triggers cannot be made by %: point-in-time recovery will not cross changes of definitions', current_user;
end
$$;
