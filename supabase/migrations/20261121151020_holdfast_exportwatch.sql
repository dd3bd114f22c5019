-- Legs of exports, the watchdog's step for them, and what is seen of them through the API: all by administrators, their own by
-- everybody who is signed in. That is the one view of ours without a second factor: what it tells is about oneself.

-- Sends a leg; what keeps it from being sent fails the export instead of the caller.
create function backup.launch_export(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports;
  told text;
  way_out text;
begin
  update backup.exports as e
  set next_leg_at = backup.clock_now() + interval '1 minute'
  where e.id = launch_export.id and e.status in ('queued', 'making') and e.by_function
  returning e.* into ours;
  if ours.id is null then
    return;
  end if;
  begin
    perform backup.invoke('export', pg_catalog.jsonb_build_object('action', 'leg', 'export', ours.id));
  exception
    when sqlstate 'HF002' then
      get stacked diagnostics told = message_text, way_out = pg_exception_hint;
      update backup.exports as e set status = 'making' where e.id = ours.id;
      perform backup.fail_export(ours.id, ours.token, 'setting_missing', told, nullif(way_out, ''));
  end;
end
$$;
revoke all on function backup.launch_export(uuid) from public;

-- Legs for as many that wait as may be made now, the oldest first. Returns how many.
create function backup.launch_exports() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  waiting record;
  sent integer := 0;
begin
  for waiting in
    select e.id from backup.exports as e
    where e.status = 'queued' and e.by_function and (e.next_leg_at is null or e.next_leg_at <= backup.clock_now())
    order by e.created_at
    limit greatest(0, backup.setting_integer('exports_at_once') - (
      select count(*) from backup.exports as o where o.status = 'making' and o.by_function
    ))
    for no key update skip locked
  loop
    perform backup.launch_export(waiting.id);
    sent := sent + 1;
  end loop;
  return sent;
end
$$;
revoke all on function backup.launch_exports() from public;

-- A leg is over and its export is not: the next one is sent. HF413.
create function backup.rest_export(id uuid, token bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  update backup.exports as e
  set worker = null, lease_until = backup.clock_now() - interval '1 millisecond', legs_begun = 0
  where e.id = ours.id;
  perform backup.launch_export(ours.id);
end
$$;
revoke all on function backup.rest_export(uuid, bigint) from public;

-- Each minute: legs for exports that wait or whose last leg was lost, an end for those of a CLI that went away, a sweep where
-- objects have to go, an alert where they should have gone an hour ago. Returns how many objects have to go.
create function backup.watch_exports() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  found_one record;
  due integer := 0;
begin
  for found_one in
    select e.id, e.token, e.by_function
    from backup.exports as e
    where e.status = 'making' and e.lease_until < backup.clock_now()
      and (not e.by_function or e.next_leg_at <= backup.clock_now())
      and pg_catalog.pg_try_advisory_xact_lock(backup.export_lock(e.id))
    order by e.created_at
    limit 100
    for no key update skip locked
  loop
    if found_one.by_function then
      perform backup.launch_export(found_one.id);
    else
      perform backup.fail_export(
        found_one.id, found_one.token, 'run_stalled', 'the command that made it has gone away', 'Run it again.'
      );
    end if;
  end loop;
  -- whoever reads rows gives way by itself, unless its process has ended meanwhile
  perform pg_catalog.pg_cancel_backend(a.pid)
  from pg_catalog.pg_stat_activity as a
  where a.application_name = 'holdfast:export' and a.usename = current_user and a.datname = pg_catalog.current_database()
    and a.pid <> pg_catalog.pg_backend_pid() and backup.longest_wait(a.pid) >= 4;
  perform backup.launch_exports();
  perform backup.call_mailer();
  for found_one in
    select o.export, o.due_since, e.by_function, e.removal_error
    from backup.due_exports() as o join backup.exports as e on e.id = o.export
  loop
    -- the CLI writes into a folder of its own
    if not found_one.by_function then
      perform backup.export_removed(found_one.export);
      continue;
    end if;
    due := due + 1;
    if found_one.due_since < backup.clock_now() - interval '1 hour' then
      perform backup.raise_alert(
        'export_not_removed', 'export:' || found_one.export,
        'an export whose time is over is still in its bucket: ' || coalesce(found_one.removal_error, 'nothing has removed it')
      );
    end if;
  end loop;
  if due > 0 then
    begin
      perform backup.invoke('export', '{"action": "sweep"}');
    exception
      -- without functions the CLI sweeps
      when sqlstate 'HF002' then
        null;
    end;
  end if;
  return due;
end
$$;
revoke all on function backup.watch_exports() from public;

-- The person of this API request, while their session lasts; else null.
create function backup.own_person() returns text
language sql
stable
-- definer because the policy that asks is evaluated for callers who may not read the sessions of Auth
security definer
set search_path = ''
as $$
  select request.claims ->> 'sub'
  from (select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb as claims) as request
  where backup.session_level(request.claims) is not null
$$;
comment on function backup.own_person() is 'The person of this request, while their session lasts.';
revoke all on function backup.own_person() from public;

create view public.my_exports with (security_invoker = true) as
select
  e.id, e.status, e.stage, e.origin, e.created_at, e.started_at, e.consistent_at, e.ready_at, e.expires_at, e.removed_at,
  e.tables, e.rows, e.files, e.files_done, e.file_bytes, e.document_bytes, e.links, e.mail, e.error_code, e.error_message, e.error_hint
from backup.exports as e
where e.user_id::text = (select backup.own_person()) and e.origin <> 'check';
comment on view public.my_exports is 'Holdfast: exports of one''s own data. For whoever is signed in, their own only.';

create view public.backup_exports with (security_invoker = true) as
select
  e.id, e.user_id, e.status, e.stage, e.origin, e.actor, e.by_function, e.created_at, e.started_at, e.consistent_at, e.ready_at,
  e.expires_at, e.ended_at, e.removed_at, e.removal_error, e.tables, e.rows, e.files, e.files_done, e.file_bytes, e.document_bytes,
  e.again, e.links, e.mail, e.error_code, e.error_message, e.error_hint
from backup.exports as e
where (select backup.is_admin());
comment on view public.backup_exports is 'Holdfast: exports. Administrators with a second factor only.';
revoke all on table public.my_exports, public.backup_exports from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.my_exports, public.backup_exports from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  -- one policy: two that permit would both be asked of each row
  create policy administrators_and_the_person_read_exports on backup.exports
    for select to authenticated using ((select backup.is_admin()) or user_id::text = (select backup.own_person()));
  grant execute on function backup.own_person() to authenticated;
  grant select (
    id, user_id, status, stage, origin, actor, by_function, created_at, started_at, consistent_at, ready_at, expires_at, ended_at,
    removed_at, removal_error, tables, rows, files, files_done, file_bytes, document_bytes, again, links, mail, error_code,
    error_message, error_hint
  ) on backup.exports to authenticated;
  grant select on table public.my_exports, public.backup_exports to authenticated;
end
$$;

do $$
begin
  perform backup.add_check('sample_export', 'weekly', 'a sample user''s data can be exported', step => 'export');
end
$$;
