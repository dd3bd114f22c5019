-- Stands in for supautils, a library that lets the hosted postgres role do a few things for which plain PostgreSQL asks
-- for a superuser or an owner: policies and DROP TRIGGER on the platform's tables, publications of any table or of all
-- tables, extensions, event triggers. Event triggers are the only hook there is without a library: they make postgres a
-- superuser for the one command, inside its transaction, so that no other session ever sees it.
--
-- As on the platform each of these policies and DROP TRIGGER locks the tables of auth, storage and realtime exclusively
-- until commit.
--
-- CREATE EVENT TRIGGER fires no event trigger. It works in a transaction that has made (or replaced) a function that
-- returns event_trigger, as a migration does: from there to commit postgres is a superuser between two DDL commands, not
-- inside one. By itself it is refused here, while a hosted project takes it.
-- An extension made so belongs to postgres; on a hosted project those that are not trusted belong to supabase_admin.
-- Not covered: foreign data wrappers, SUBSCRIPTION.

create unlogged table supabase_functions.event_trigger_window (
  transaction xid8 not null
);

create function extensions.caller_is_postgres() returns boolean
language sql stable set search_path = ''
as $$
  select 'postgres' = case pg_catalog.current_setting('role')
    when 'none' then session_user else pg_catalog.current_setting('role')::name
  end
$$;

-- definer because only a superuser may make one
create function extensions.set_postgres_superuser(wanted boolean) returns void
language plpgsql security definer set search_path = ''
as $$
begin
  if wanted is distinct from (select rolsuper from pg_catalog.pg_roles where rolname = 'postgres') then
    -- Two transactions at once would both change the role's row, and the later one would fail.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('set_postgres_superuser'));
    execute 'alter role postgres ' || case when wanted then 'superuser' else 'nosuperuser' end;
  end if;
end
$$;

-- definer because it locks the platform's tables and calls the function above
create function extensions.before_privileged_command() returns event_trigger
language plpgsql security definer set search_path = ''
as $$
declare
  target regclass;
begin
  if not extensions.caller_is_postgres() then
    return;
  end if;
  if pg_catalog.current_setting('extensions.in_command', true) = 'on' then
    return;
  end if;
  if tg_tag in ('CREATE EXTENSION', 'ALTER EXTENSION') then
    -- The commands of the extension's script fire these triggers too, and must find the attribute as it is.
    perform pg_catalog.set_config('extensions.in_command', 'on', true);
    perform extensions.set_postgres_superuser(true);
  elsif tg_tag in ('CREATE POLICY', 'ALTER POLICY', 'DROP POLICY', 'DROP TRIGGER') then
    for target in
      select c.oid from pg_catalog.pg_class c
      where c.relnamespace in ('auth'::regnamespace, 'storage'::regnamespace, 'realtime'::regnamespace)
        and c.relkind in ('r', 'p')
      order by c.oid
    loop
      execute pg_catalog.format('lock table %s in access exclusive mode', target);
    end loop;
    perform extensions.set_postgres_superuser(true);
  else
    perform extensions.set_postgres_superuser(tg_tag in ('CREATE PUBLICATION', 'ALTER PUBLICATION'));
  end if;
end
$$;

-- definer because it takes the superuser's attribute away again
create function extensions.after_privileged_command() returns event_trigger
language plpgsql security definer set search_path = ''
as $$
declare
  command record;
begin
  if not extensions.caller_is_postgres() then
    return;
  end if;
  if tg_tag in ('CREATE EXTENSION', 'ALTER EXTENSION') then
    perform pg_catalog.set_config('extensions.in_command', 'off', true);
  elsif pg_catalog.current_setting('extensions.in_command', true) = 'on' then
    return;
  end if;
  perform extensions.set_postgres_superuser(false);
  for command in select * from pg_catalog.pg_event_trigger_ddl_commands() loop
    if command.classid = 'pg_catalog.pg_policy'::regclass then
      perform extensions.refuse_foreign_table(
        (select p.polrelid from pg_catalog.pg_policy p where p.oid = command.objid)
      );
    elsif command.classid = 'pg_catalog.pg_extension'::regclass then
      perform extensions.refuse_extension((select e.extname from pg_catalog.pg_extension e where e.oid = command.objid));
    elsif command.classid = 'pg_catalog.pg_proc'::regclass and exists (
      select from pg_catalog.pg_proc f where f.oid = command.objid and f.prorettype = 'event_trigger'::regtype
    ) and not exists (
      select from supabase_functions.event_trigger_window w where w.transaction = pg_catalog.pg_current_xact_id()
    ) then
      insert into supabase_functions.event_trigger_window values (pg_catalog.pg_current_xact_id());
    end if;
  end loop;
  perform extensions.set_postgres_superuser(exists (
    select from supabase_functions.event_trigger_window w where w.transaction = pg_catalog.pg_current_xact_id()
  ));
end
$$;

-- Tables of the platform and one's own, nobody else's. To be asked without the superuser's attribute.
create function extensions.refuse_foreign_table(target regclass) returns void
language plpgsql stable set search_path = ''
as $$
begin
  if exists (
    select from pg_catalog.pg_class c
    where c.oid = target
      and c.relnamespace not in ('auth'::regnamespace, 'storage'::regnamespace, 'realtime'::regnamespace)
      and not pg_catalog.pg_has_role('postgres', c.relowner, 'usage')
  ) then
    raise exception 'must be owner of table %', target using errcode = '42501';
  end if;
end
$$;

-- Those that a hosted project offers, as far as Debian has them, and the trusted ones.
create function extensions.refuse_extension(name name) returns void
language plpgsql stable set search_path = ''
as $$
begin
  if name not in (
    'amcheck', 'autoinc', 'bloom', 'dblink', 'dict_xsyn', 'earthdistance', 'hypopg', 'insert_username', 'lo', 'moddatetime',
    'pg_cron', 'pg_prewarm', 'pg_stat_statements', 'pg_walinspect', 'pgrowlocks', 'pgstattuple', 'plpgsql_check',
    'postgres_fdw', 'refint', 'sslinfo', 'tsm_system_rows', 'tsm_system_time', 'xml2'
  ) and not exists (
    select from pg_catalog.pg_available_extension_versions v where v.name = refuse_extension.name and v.trusted
  ) then
    raise exception 'permission denied to create extension "%"', name using errcode = '42501';
  end if;
end
$$;

-- definer because it calls a function that nobody else may call
create function extensions.after_drop() returns event_trigger
language plpgsql security definer set search_path = ''
as $$
declare
  dropped record;
begin
  if tg_tag not in ('DROP POLICY', 'DROP TRIGGER')
    or pg_catalog.current_setting('extensions.in_command', true) = 'on'
    or not extensions.caller_is_postgres()
  then
    return;
  end if;
  perform extensions.set_postgres_superuser(false);
  for dropped in
    select * from pg_catalog.pg_event_trigger_dropped_objects() d where d.original and d.object_type in ('policy', 'trigger')
  loop
    perform extensions.refuse_foreign_table(
      pg_catalog.to_regclass(pg_catalog.format('%I.%I', dropped.address_names[1], dropped.address_names[2]))
    );
  end loop;
end
$$;

-- definer because it takes the superuser's attribute away at commit
create function extensions.close_event_trigger_window() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  delete from supabase_functions.event_trigger_window w where w.transaction = new.transaction;
  perform extensions.set_postgres_superuser(false);
  return null;
end
$$;
create constraint trigger close_at_commit after insert on supabase_functions.event_trigger_window
  deferrable initially deferred for each row execute function extensions.close_event_trigger_window();
alter table supabase_functions.event_trigger_window enable always trigger close_at_commit;

revoke execute on function
  extensions.set_postgres_superuser(boolean), extensions.before_privileged_command(), extensions.after_privileged_command(),
  extensions.after_drop(), extensions.close_event_trigger_window(), extensions.refuse_foreign_table(regclass),
  extensions.refuse_extension(name)
from public;

-- Triggers of one event fire by name: the user's own must not run while the attribute is there.
create event trigger zz_privileged_start on ddl_command_start execute function extensions.before_privileged_command();
create event trigger "0_privileged_end" on ddl_command_end execute function extensions.after_privileged_command();
create event trigger "0_privileged_drop" on sql_drop execute function extensions.after_drop();
alter event trigger zz_privileged_start enable always;
alter event trigger "0_privileged_end" enable always;
alter event trigger "0_privileged_drop" enable always;
