-- Maintenance mode on and off: what is changed, recorded and put back, and what the watchdog says of it.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('maintenance_hours', 'integer', '12', 1, 720,
    'how long maintenance mode may be on without an announced end before an alert is raised');

-- The setting that PostgREST reads, at each level where it stands, the one that counts first: in the settings of the role for
-- this database, and in those for all databases. No row: there is none.
create function backup.pre_request_settings(out name text, out in_database boolean) returns setof record
language sql
stable
set search_path = ''
as $$
  select pg_catalog.substr(one.setting, pg_catalog.length('pgrst.db_pre_request=') + 1), s.setdatabase <> 0
  from pg_catalog.pg_db_role_setting as s
  left join pg_catalog.pg_database as d on d.oid = s.setdatabase
  cross join pg_catalog.unnest(s.setconfig) as one (setting)
  where s.setrole = pg_catalog.to_regrole('authenticator')::oid
    and one.setting ~ '^pgrst\.db_pre_request='
    and (s.setdatabase = 0 or d.datname = pg_catalog.current_database())
  order by s.setdatabase desc
$$;
revoke all on function backup.pre_request_settings() from public;

-- The one that counts.
create function backup.pre_request_setting(out name text, out in_database boolean) returns setof record
language sql
stable
set search_path = ''
as $$
  select p.name, p.in_database from backup.pre_request_settings() as p order by p.in_database desc limit 1
$$;
revoke all on function backup.pre_request_setting() from public;

-- Null resets it. HF402 where the role may not.
create function backup.set_pre_request(name text, in_database boolean) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  execute 'alter role authenticator'
    || case when in_database then pg_catalog.format(' in database %I', pg_catalog.current_database()) else '' end
    || case
      when name is null then ' reset pgrst.db_pre_request'
      else pg_catalog.format(' set pgrst.db_pre_request = %L', name)
    end;
  perform pg_catalog.pg_notify('pgrst', 'reload config');
exception when insufficient_privilege then
  raise exception 'role % may not set pgrst.db_pre_request for role authenticator', current_user
    using errcode = 'HF402', hint = 'Run it as postgres, which a hosted project lets do it.';
end
$$;
revoke all on function backup.set_pre_request(text, boolean) from public;

-- Takes ours away at each level where it stands, and puts back what it was set in place of. Returns whether there was one.
create function backup.put_back_pre_request(before text, before_in_database boolean) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  level record;
  found_ours boolean := false;
begin
  for level in
    select p.in_database from backup.pre_request_settings() as p where p.name = 'public.backup_before_request'
  loop
    found_ours := true;
    perform backup.set_pre_request(case when level.in_database = before_in_database then before end, level.in_database);
  end loop;
  return found_ours;
end
$$;
revoke all on function backup.put_back_pre_request(text, boolean) from public;

-- Functions of the project's, with their text; of one whose body was bound when it was made, that is what is bound.
create function backup.user_functions(out name text, out body text) returns setof record
language sql
stable
set search_path = ''
as $$
  select p.oid::regprocedure::text, pg_catalog.concat_ws(E'\n', p.prosrc, pg_catalog.pg_get_function_sqlbody(p.oid))
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
  where n.nspname not in ('pg_catalog', 'information_schema', 'backup')
    and not exists (
      select from pg_catalog.pg_depend as d
      where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
$$;
revoke all on function backup.user_functions() from public;

-- Functions that may leave a read-only transaction, which PostgreSQL 15 lets a RESET do, and 16 does not: those whose text
-- names the setting. SQL that a function is handed cannot be seen here.
create function backup.resetting_functions() returns setof text
language sql
stable
set search_path = ''
as $$
  select f.name
  from backup.user_functions() as f
  where pg_catalog.current_setting('server_version_num')::integer < 160000 and f.body ~* 'transaction_read_only'
  order by 1
$$;
revoke all on function backup.resetting_functions() from public;

-- Functions whose text changes jobs of pg_cron, which writes to its table where a read-only transaction is not asked.
create function backup.scheduling_functions() returns setof text
language sql
stable
set search_path = ''
as $$
  select f.name
  from backup.user_functions() as f
  where pg_catalog.to_regclass('cron.job') is not null
    and f.body ~* '\mcron\s*\.\s*"?(unschedule|schedule|schedule_in_database|alter_job)\M'
  order by 1
$$;
revoke all on function backup.scheduling_functions() from public;

-- Jobs of this database that are not ours. Without pg_cron: none.
create function backup.user_jobs(out job_id bigint, out label text, out active boolean, out running boolean)
returns setof record
language plpgsql
stable
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('cron.job') is null then
    return;
  end if;
  return query
  select j.jobid, coalesce(j.jobname::text, 'job ' || j.jobid), j.active, exists (
      select from cron.job_run_details as d
      join pg_catalog.pg_stat_activity as a on a.pid = d.job_pid
      where d.jobid = j.jobid and d.status = 'running' and a.backend_start <= d.start_time
    )
  from cron.job as j
  where j.database = pg_catalog.current_database()
    and not exists (select from backup.schedules as s where j.jobname = 'holdfast-' || s.name)
    -- the day after a restore: they only read
    and coalesce(j.jobname::text, '') !~ '^holdfast-smoke-[0-9a-f]{8}$'
  order by j.jobid;
end
$$;
revoke all on function backup.user_jobs() from public;

-- All that is known, for people and programs: {closed, message, contact, until, since, by, provenAt, preRequest: {present, ours,
-- chained}, resetting, scheduling, files, accounts, cron, jobs: {paused, active, running}, sessions: [{role, sessions}],
-- ownBuckets}. Times are UTC, ISO 8601. `files` and `accounts` as fence_of() says; `sessions` are those of logins that no fence meets.
create function backup.maintenance_state() returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'closed', m.closed,
    'message', case when m.closed then m.message end,
    'contact', (select a.contact from backup.announcements as a where a.id = m.announcement and m.closed and a.contact <> ''),
    'until', case when m.closed then pg_catalog.to_char(m.until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') end,
    'since', case when m.closed then pg_catalog.to_char(m.since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') end,
    'by', case when m.closed then m.closed_by end,
    'provenAt',
      case when m.closed then pg_catalog.to_char(m.proven_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') end,
    'preRequest', pg_catalog.jsonb_build_object(
      'present', p.name,
      'ours', p.name is not distinct from 'public.backup_before_request',
      'chained', case when p.name = 'public.backup_before_request' then m.pre_request_before end
    ),
    'resetting', coalesce((select pg_catalog.jsonb_agg(r.name) from backup.resetting_functions() as r (name)), '[]'),
    'scheduling', coalesce((select pg_catalog.jsonb_agg(r.name) from backup.scheduling_functions() as r (name)), '[]'),
    'files', backup.fence_of('storage.objects'),
    'accounts', backup.fence_of('auth.users'),
    'cron', pg_catalog.to_regclass('cron.job') is not null,
    'jobs', (
      select pg_catalog.jsonb_build_object(
        'paused', coalesce(pg_catalog.jsonb_agg(j.label) filter (where k.job_id is not null and not j.active), '[]'),
        'active', coalesce(pg_catalog.jsonb_agg(j.label) filter (where j.active), '[]'),
        'running', coalesce(pg_catalog.jsonb_agg(j.label) filter (where j.running), '[]')
      )
      from backup.user_jobs() as j left join backup.maintenance_jobs as k using (job_id)
    ),
    'sessions', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('role', o.usename, 'sessions', o.sessions) order by o.usename)
      from (
        select a.usename, count(*) as sessions
        from pg_catalog.pg_stat_activity as a
        where a.datname = pg_catalog.current_database() and a.backend_type = 'client backend'
          and a.application_name !~ '^(holdfast|pg_cron)'
          and a.usename not in (
            'authenticator', 'supabase_auth_admin', 'supabase_storage_admin', 'supabase_admin', 'supabase_read_only_user',
            'supabase_replication_admin'
          )
        group by a.usename
      ) as o
    ), '[]'),
    'ownBuckets', pg_catalog.to_jsonb(m.own_buckets)
  )
  from backup.maintenance as m left join backup.pre_request_setting() as p on true
$$;
revoke all on function backup.maintenance_state() from public;

-- Pauses the user's jobs that are active, each written down before. While it is closed it may be called again, for jobs that
-- were made meanwhile; one that was made again takes the place of the one that was paused. Returns how many were paused.
create function backup.pause_jobs() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  job record;
  paused integer := 0;
begin
  if not exists (select from backup.user_jobs() as j where j.active)
    or not (select m.closed from backup.maintenance as m for update) then
    return 0;
  end if;
  for job in select j.* from backup.user_jobs() as j where j.active loop
    begin
      insert into backup.maintenance_jobs (job_id, label) values (job.job_id, job.label) on conflict (job_id) do nothing;
      delete from backup.maintenance_jobs as k
      where k.label = job.label and not exists (select from backup.user_jobs() as j where j.job_id = k.job_id);
      perform cron.alter_job(job_id => job.job_id, active => false);
      paused := paused + 1;
    exception when others then
      -- somebody else's job: it stays in the list of those that are active
      raise notice 'job % could not be paused: %', job.label, sqlerrm;
    end;
  end loop;
  return paused;
end
$$;
revoke all on function backup.pause_jobs() from public;

-- Closes the project to writes, or changes message and end of a window that is closed already. All of it in one
-- transaction, each thing written down before it is changed. Nothing is proven yet. Returns maintenance_state().
-- `by`: a restore says `restore:<id>`. What a person closed stays theirs; what a restore closed goes to who asks next.
-- HF003: message or end do not fit; HF402: the setting may not be changed, or a role of the API could not read any more;
-- HF404: there is no API to close.
create function backup.maintenance_on(
  message text, until timestamptz default null, by text default null, own_buckets text[] default '{holdfast-backups,holdfast-downloads}'
) returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.maintenance;
  present record;
  moment timestamptz := backup.clock_now();
  announcement_id bigint;
  shut_out text;
  paused integer;
begin
  if not backup.is_short_line(maintenance_on.message) then
    raise exception 'maintenance mode needs a message of 1 to 300 letters in one line'
      using errcode = 'HF003', hint = 'It is what users are told.';
  elsif pg_catalog.to_regrole('authenticator') is null then
    raise exception 'there is no role authenticator: this server has no API that could be closed'
      using errcode = 'HF404', hint = 'Stop what writes to the database by its own means.';
  end if;
  select m.* into known from backup.maintenance as m for update;
  -- an end that has passed may stay, as the watchdog tells of it; it cannot be set
  if maintenance_on.until <= moment and not (
    known.closed and pg_catalog.date_trunc('second', maintenance_on.until)
      is not distinct from pg_catalog.date_trunc('second', known.until)
  ) then
    raise exception 'the end of the maintenance window has passed'
      using errcode = 'HF003', hint = 'Name an end that is still to come, or none.';
  end if;
  if exists (select from backup.shut_out_roles()) then
    grant execute on function public.backup_before_request(), backup.gate(), backup.call_of(text),
      backup.call_chained(text), backup.before_request(boolean, text) to public;
  end if;
  select pg_catalog.string_agg(r.name, ', ') into shut_out from backup.shut_out_roles() as r (name);
  if shut_out is not null then
    raise exception 'schema public may not be used by %: all of their requests would be refused, reads too', shut_out
      using errcode = 'HF402', hint = pg_catalog.format('grant usage on schema public to %s;', shut_out);
  end if;
  select p.name, p.in_database into present from backup.pre_request_setting() as p;

  announcement_id := known.announcement;
  if known.closed then
    update backup.announcements as a
    set message = maintenance_on.message, until = maintenance_on.until, contact = backup.emergency_contact()
    where a.id = announcement_id;
  else
    update backup.announcements as a set status = 'ended', ended_at = moment
    where a.status = 'planned' and a.starts_at <= moment;
    insert into backup.announcements (message, starts_at, until, status)
    values (maintenance_on.message, moment, maintenance_on.until, 'in_force')
    returning id into announcement_id;
  end if;
  update backup.maintenance as m
  set closed = true,
    message = maintenance_on.message,
    until = maintenance_on.until,
    since = case when known.closed then known.since else moment end,
    closed_by = case
      when known.closed and known.closed_by !~ '^restore:' then known.closed_by
      else coalesce(maintenance_on.by, session_user)
    end,
    proven_at = case when known.closed then known.proven_at end,
    -- the status page has to say that the project is closed
    own_buckets = maintenance_on.own_buckets || backup.page_bucket(maintenance_on.own_buckets),
    announcement = announcement_id;
  if present.name is distinct from 'public.backup_before_request' then
    -- ours may stand at the other level still, where nobody would look for it later
    perform backup.put_back_pre_request(known.pre_request_before, known.pre_request_in_database);
    update backup.maintenance as m
    set pre_request_before = present.name, pre_request_in_database = coalesce(present.in_database, false);
    perform backup.set_pre_request('public.backup_before_request', coalesce(present.in_database, false));
  else
    perform pg_catalog.pg_notify('pgrst', 'reload config');
  end if;
  perform backup.place_fences();
  paused := backup.pause_jobs();
  perform backup.audit(
    'maintenance.closed', 'project',
    pg_catalog.jsonb_build_object(
      'message', maintenance_on.message, 'until', maintenance_on.until, 'by', maintenance_on.by, 'again', known.closed,
      'chained', (select m.pre_request_before from backup.maintenance as m), 'jobs_paused', paused
    )
  );
  return backup.maintenance_state();
end
$$;
revoke all on function backup.maintenance_on(text, timestamptz, text, text[]) from public;

-- Opens the project again and puts back what was changed, in one transaction. A setting that someone else has changed
-- meanwhile stays as it is, and so does a job that was dropped. Harmless while it is open. Returns maintenance_state() with
-- `opened`: it was closed; `left`: what was not put back, and why; `restored`: jobs that run again.
create function backup.maintenance_off() returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.maintenance;
  present record;
  job record;
  restored jsonb := '[]'::jsonb;
  left_alone jsonb := '[]'::jsonb;
begin
  select m.* into known from backup.maintenance as m for update;
  select p.name, p.in_database into present from backup.pre_request_setting() as p;
  perform backup.put_back_pre_request(known.pre_request_before, known.pre_request_in_database);
  if known.closed and present.name is distinct from 'public.backup_before_request' then
    left_alone := left_alone || pg_catalog.to_jsonb(
      pg_catalog.format('setting pgrst.db_pre_request: somebody else has set it to %s meanwhile', coalesce(present.name, 'nothing'))
    );
  end if;
  for job in
    select k.job_id, k.label, j.active, j.job_id is null as gone
    from backup.maintenance_jobs as k left join backup.user_jobs() as j using (job_id)
    order by k.job_id
  loop
    begin
      if job.gone then
        left_alone := left_alone || pg_catalog.to_jsonb(pg_catalog.format('job %s: it was dropped meanwhile', job.label));
      elsif not job.active then
        perform cron.alter_job(job_id => job.job_id, active => true);
        restored := restored || pg_catalog.to_jsonb(job.label);
      end if;
      delete from backup.maintenance_jobs as k where k.job_id = job.job_id;
    exception when others then
      left_alone := left_alone || pg_catalog.to_jsonb(pg_catalog.format('job %s: %s', job.label, sqlerrm));
    end;
  end loop;
  if known.closed then
    update backup.announcements as a set status = 'ended', ended_at = backup.clock_now() where a.id = known.announcement;
    update backup.maintenance as m set closed = false, opened_at = backup.clock_now();
    perform backup.audit(
      'maintenance.opened', 'project',
      pg_catalog.jsonb_build_object(
        'since', known.since, 'proven', known.proven_at is not null, 'jobs_restored', pg_catalog.jsonb_array_length(restored),
        'left', left_alone
      )
    );
  end if;
  perform backup.resolve_alert('maintenance_overdue', 'project');
  perform backup.resolve_alert('maintenance_leaks', 'project');
  return backup.maintenance_state()
    || pg_catalog.jsonb_build_object('opened', known.closed, 'restored', restored, 'left', left_alone);
end
$$;
revoke all on function backup.maintenance_off() from public;

-- Writes were tried since it was closed, and refused. `probes` says which.
create function backup.record_maintenance_proof(probes text[]) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.maintenance as m set proven_at = backup.clock_now() where m.closed;
  select backup.audit('maintenance.proven', 'project', pg_catalog.jsonb_build_object('probes', probes));
$$;
revoke all on function backup.record_maintenance_proof(text[]) from public;

-- Why a project that is closed may have been forgotten; null: there is no reason to think so.
create function backup.overdue_maintenance(switch backup.maintenance) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  hours bigint := backup.setting_integer('maintenance_hours');
  restore record;
begin
  if switch.until < moment then
    return pg_catalog.format(
      'maintenance mode was to end at %s and is still on',
      pg_catalog.to_char(switch.until at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
    );
  end if;
  if switch.closed_by ~ '^restore:' then
    select r.id, r.status, r.lease_until, r.finished_at into restore
    from backup.restores as r
    where 'restore:' || r.id = switch.closed_by;
    if restore.id is null or restore.status not in ('planned', 'loading', 'applying') then
      return pg_catalog.format(
        'maintenance mode is still on, and the restore that turned it on is at work no more (%s)',
        coalesce(restore.status, 'unknown')
      );
    elsif restore.lease_until < moment - interval '5 minutes' then
      return 'maintenance mode is still on, and the restore that turned it on gives no sign of life';
    end if;
  end if;
  if switch.until is null and switch.since < moment - hours * interval '1 hour' then
    return pg_catalog.format('maintenance mode is on for more than %s hours, and no end was announced', hours);
  end if;
  return null;
end
$$;
revoke all on function backup.overdue_maintenance(backup.maintenance) from public;

-- A step of the watchdog. A project that seems to be forgotten is told and stays closed: a restore may be in the middle of its
-- work, and only a person knows. So is a fence that somebody took away. Planned windows that passed are ended.
-- Returns how many alerts there are.
create function backup.watch_maintenance() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  switch backup.maintenance;
  overdue text;
  missing text;
  alerts integer := 0;
begin
  update backup.announcements as a set status = 'ended', ended_at = moment
  where a.status = 'planned' and coalesce(a.until, a.starts_at + interval '1 day') < moment;
  select m.* into switch from backup.maintenance as m;
  if not switch.closed then
    return 0;
  end if;
  overdue := backup.overdue_maintenance(switch);
  if overdue is not null then
    alerts := alerts + 1;
    perform backup.raise_alert(
      'maintenance_overdue', 'project',
      overdue || ': writes are refused until `maintenance off`, or until the same restore is run again to its end'
    );
  else
    perform backup.resolve_alert('maintenance_overdue', 'project');
  end if;
  missing := pg_catalog.concat_ws(
    ', ',
    case
      when (select p.name from backup.pre_request_setting() as p) is distinct from 'public.backup_before_request'
        then 'the setting pgrst.db_pre_request'
    end,
    case when backup.fence_of('storage.objects') = 'missing' then 'the trigger on storage.objects' end,
    case when backup.fence_of('auth.users') = 'missing' then 'the trigger on auth.users' end
  );
  if missing <> '' then
    alerts := alerts + 1;
    perform backup.raise_alert(
      'maintenance_leaks', 'project',
      pg_catalog.format('maintenance mode is on, but writes go through: %s is not there; `maintenance on` puts it back', missing)
    );
  else
    perform backup.resolve_alert('maintenance_leaks', 'project');
  end if;
  return alerts;
end
$$;
revoke all on function backup.watch_maintenance() from public;
