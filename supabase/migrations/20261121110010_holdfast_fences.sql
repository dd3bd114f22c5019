-- Maintenance mode: the switch, and the fences that read it. What is fenced and what is not stands in
-- docs/runbooks/maintenance.md. Lock order, also of 110020: backup.maintenance first.

-- The switch ---------------------------------------------------------------------------------------------------------

-- One row: the switch that every fence reads, and what was changed elsewhere, written down before it is changed.
create table backup.maintenance (
  singleton boolean primary key default true,
  closed boolean not null default false,
  message text not null default '',
  until timestamptz,
  since timestamptz,
  closed_by text,
  -- a write was tried and refused since it was closed
  proven_at timestamptz,
  opened_at timestamptz,
  own_buckets text[] not null default '{}',
  announcement bigint references backup.announcements (id),
  -- the setting pgrst.db_pre_request of role authenticator as it was where it was changed; null: there was none
  pre_request_before text,
  -- it was changed in the settings of the role for this database, not in those for all databases
  pre_request_in_database boolean not null default false,
  constraint there_is_one_switch check (singleton),
  constraint closed_says_since_when_by_whom_and_why check (
    not closed or (since is not null and closed_by is not null and message <> '' and announcement is not null)
  )
);
comment on table backup.maintenance is 'The switch of maintenance mode and what has to be put back.';
create index maintenance_by_announcement on backup.maintenance (announcement);
alter table backup.maintenance enable row level security;
revoke all on table backup.maintenance from public;
insert into backup.maintenance default values;

create table backup.maintenance_jobs (
  job_id bigint primary key,
  label text not null,
  paused_at timestamptz not null default backup.clock_now()
);
comment on table backup.maintenance_jobs is 'Cron jobs of the user that maintenance mode paused and puts back.';
alter table backup.maintenance_jobs enable row level security;
revoke all on table backup.maintenance_jobs from public;

create table backup.maintenance_probe (
  singleton boolean primary key default true,
  written_at timestamptz not null,
  constraint there_is_one_probe check (singleton)
);
comment on table backup.maintenance_probe is 'What a probe writes: when a write through the API last succeeded.';
alter table backup.maintenance_probe enable row level security;
revoke all on table backup.maintenance_probe from public;
insert into backup.maintenance_probe (written_at) values (backup.clock_now());

-- The fence of the API -----------------------------------------------------------------------------------------------

-- PostgREST calls public.backup_before_request() in each request's transaction, under the caller's role, while role
-- authenticator's setting names it. The functions behind it are bound when it is made: nobody needs a right on schema backup.

-- What those are told who are refused: the message, and whom to ask where somebody is named.
create function backup.refusal(message text, announcement bigint) returns text
language sql
stable
set search_path = ''
as $$
  select refusal.message || coalesce(
    (select ' (contact: ' || a.contact || ')' from backup.announcements as a where a.id = refusal.announcement and a.contact <> ''), ''
  )
$$;
revoke all on function backup.refusal(text, bigint) from public;

create function backup.gate(out closed boolean, out message text, out chained text)
language sql
stable
-- definer because every role of the API has to learn whether it is closed, and none may read the table
security definer
set search_path = ''
as $$
  select m.closed, case when m.closed then backup.refusal(m.message, m.announcement) else m.message end,
    -- PostgREST goes on calling this for the moment that it needs to read its settings again
    case when m.closed or m.opened_at > backup.clock_now() - interval '2 minutes' then m.pre_request_before end
  from backup.maintenance as m
$$;
revoke all on function backup.gate() from public;
grant execute on function backup.gate() to public;

-- How the project's own pre-request function is called, by the name that the setting has for it. Null: there is none.
create function backup.call_of(chained text) returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when coalesce(chained, '') = '' then null
    when pg_catalog.strpos(chained, '.') > 0 then pg_catalog.format(
      'select %I.%I()', pg_catalog.split_part(chained, '.', 1),
      pg_catalog.substr(chained, pg_catalog.strpos(chained, '.') + 1)
    )
    else pg_catalog.format('select %I()', chained)
  end
$$;
revoke all on function backup.call_of(text) from public;
grant execute on function backup.call_of(text) to public;

-- search_path is not pinned, because a function with a SET clause would undo what the project's own function sets of it. So
-- nothing in here may be looked up by it.
create function backup.call_chained(call text) returns void
language plpgsql
volatile
as $$
begin
  if call is not null then
    execute call;
  end if;
end
$$;
revoke all on function backup.call_chained(text) from public;
grant execute on function backup.call_chained(text) to public;

-- Writing methods are refused with PT503 (HTTP 503), and whatever else may write, such as a function under /rpc, finds a
-- transaction that is read-only and that nothing inside can turn back.
create function backup.before_request(closed boolean, message text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  method text := coalesce(pg_catalog.current_setting('request.method', true), '');
  path text := coalesce(pg_catalog.current_setting('request.path', true), '');
begin
  if not closed then
    return;
  end if;
  if method in ('POST', 'PUT', 'PATCH', 'DELETE') and path !~ '^(/rest/v1)?/rpc/' then
    raise exception using errcode = 'PT503', message = before_request.message, hint = 'Reading goes on. Try again later.';
  end if;
  perform pg_catalog.set_config('transaction_read_only', 'on', true);
end
$$;
revoke all on function backup.before_request(boolean, text) from public;
grant execute on function backup.before_request(boolean, text) to public;

-- The project's own function first, as it would be called without us; then the fence. Bound when it is made, so it needs no
-- search_path, and has none pinned for the reason that stands at call_chained().
create function public.backup_before_request() returns void
language sql
volatile
begin atomic
  select backup.call_chained(backup.call_of(g.chained)), backup.before_request(g.closed, g.message)
  from backup.gate() as g;
end;
comment on function public.backup_before_request() is 'Holdfast: what PostgREST calls before each request while maintenance mode is on.';
-- a project may take this from public by its default privileges
grant execute on function public.backup_before_request() to public;

-- Roles of the API that could not call it: every request of theirs would be refused, reads too.
create function backup.shut_out_roles() returns setof text
language sql
stable
set search_path = ''
as $$
  select r.rolname::text
  from pg_catalog.pg_roles as r
  where r.rolname in ('anon', 'authenticated', 'service_role')
    and not (
      pg_catalog.has_schema_privilege(r.oid, 'public', 'usage')
      and pg_catalog.has_function_privilege(r.oid, 'public.backup_before_request()', 'execute')
      and pg_catalog.has_function_privilege(r.oid, 'backup.gate()', 'execute')
      and pg_catalog.has_function_privilege(r.oid, 'backup.call_of(text)', 'execute')
      and pg_catalog.has_function_privilege(r.oid, 'backup.call_chained(text)', 'execute')
      and pg_catalog.has_function_privilege(r.oid, 'backup.before_request(boolean, text)', 'execute')
    )
  order by 1
$$;
revoke all on function backup.shut_out_roles() from public;

-- The real write of a probe, by the hardest kind of function there is to fence.
create function backup.write_probe() returns void
language sql
volatile
-- definer because service_role, as which the probe comes, may write nothing here
security definer
set search_path = ''
as $$
  update backup.maintenance_probe as p set written_at = backup.clock_now()
$$;
revoke all on function backup.write_probe() from public;

create function public.backup_probe() returns void
language sql
volatile
set search_path = ''
return backup.write_probe();
comment on function public.backup_probe() is 'Holdfast: a write that proves whether the API is closed. service_role only.';
revoke all on function public.backup_probe() from public;

-- The probe comes as service_role, and nobody else may write by it.
do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on function public.backup_probe() from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('service_role') is not null then
    grant execute on function public.backup_probe(), backup.write_probe() to service_role;
  end if;
end
$$;

-- The fences of Storage and of accounts ------------------------------------------------------------------------------

-- Made once: DROP TRIGGER on a table of the platform locks two dozen of them. While the switch is off a trigger reads one
-- row. Sessions of the installer and of superusers pass: operators, and our own work. So do our buckets.
create function backup.fence_files() returns trigger
language plpgsql
-- definer because Storage writes under the caller's role, which may not read the switch
security definer
set search_path = ''
as $$
declare
  switch record;
begin
  select backup.refusal(m.message, m.announcement) as message, m.own_buckets into switch from backup.maintenance as m where m.closed;
  if found and not pg_catalog.pg_has_role(session_user, current_user, 'usage') and not (
    (tg_op = 'INSERT' or old.bucket_id = any (switch.own_buckets))
    and (tg_op = 'DELETE' or new.bucket_id = any (switch.own_buckets))
  ) then
    -- Storage answers 503 to a transaction that is read-only
    raise exception using errcode = '25006', message = switch.message;
  end if;
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;
revoke all on function backup.fence_files() from public;

-- Sign-up, and the end of an account, which takes rows of the app with it by its foreign keys. Sign-in only updates.
create function backup.fence_accounts() returns trigger
language plpgsql
-- definer because Auth's role may not read the switch
security definer
set search_path = ''
as $$
declare
  switch record;
begin
  select backup.refusal(m.message, m.announcement) as message into switch from backup.maintenance as m where m.closed;
  if found and not pg_catalog.pg_has_role(session_user, current_user, 'usage') then
    raise exception using errcode = '25006', message = switch.message;
  end if;
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end
$$;
revoke all on function backup.fence_accounts() from public;

-- 'fenced', 'missing' (the table is there, the trigger is not, or it is switched off), 'absent' (no such table).
create function backup.fence_of(table_name text) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when pg_catalog.to_regclass(table_name) is null then 'absent'
    when exists (
      select from pg_catalog.pg_trigger as t
      where t.tgrelid = pg_catalog.to_regclass(table_name) and t.tgname = 'holdfast_maintenance' and t.tgenabled in ('O', 'A')
    ) then 'fenced'
    else 'missing'
  end
$$;
revoke all on function backup.fence_of(text) from public;

-- Makes the triggers that are missing. One that may not be made, or whose table is in use for too long, is left to the
-- next call; maintenance_state() tells.
create function backup.place_fences() returns void
language plpgsql
volatile
set search_path = ''
set lock_timeout = '3s'
as $$
declare
  fence record;
begin
  for fence in
    select f.* from (values
      ('storage.objects', 'insert or update or delete', 'fence_files'),
      ('auth.users', 'insert or delete', 'fence_accounts')
    ) as f (table_name, events, function_name)
    where backup.fence_of(f.table_name) = 'missing'
  loop
    begin
      execute pg_catalog.format(
        'create trigger holdfast_maintenance before %s on %s for each row execute function backup.%I()',
        fence.events, fence.table_name, fence.function_name
      );
    exception when insufficient_privilege or lock_not_available or duplicate_object then
      raise notice 'no fence on %: %', fence.table_name, sqlerrm;
    end;
  end loop;
end
$$;
revoke all on function backup.place_fences() from public;

do $$
begin
  perform backup.place_fences();
end
$$;
