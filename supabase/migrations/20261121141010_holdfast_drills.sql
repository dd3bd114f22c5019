-- Drills: ordered by the calendar or by a person, carried by a run of kind `drill`, judged by src/shared/drills. One at a time.
-- docs/decisions/0032-drills.md. Lock order: advisory holdfast:drill → backup.runs → backup.tasks → backup.drills →
-- backup.drill_calendar.

create unique index runs_one_active_drill on backup.runs (kind)
  where kind = 'drill' and status in ('queued', 'snapshotting', 'copying', 'finishing');

-- Asking -------------------------------------------------------------------------------------------------------------

-- A drill of the calendar, or the same one that is under way. HF008 for a name that the calendar does not have, HF415 while another
-- drill is under way.
create function backup.request_drill(name text, origin text, out run uuid, out drill uuid, out joined boolean)
language plpgsql
volatile
set search_path = ''
as $$
declare
  wanted backup.drill_calendar;
  active record;
begin
  select c.* into wanted from backup.drill_calendar as c where c.name = request_drill.name;
  if wanted.name is null then
    raise exception 'the calendar has no drill %', request_drill.name
      using errcode = 'HF008', hint = '`holdfast drills list` shows what there is.';
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:drill', 0));
  select r.id, d.id as drill_id, d.drill as drill_name into active
  from backup.runs as r join backup.drills as d on d.run_id = r.id
  where r.kind = 'drill' and r.status in ('queued', 'snapshotting', 'copying', 'finishing');
  joined := active.id is not null;
  if joined and active.drill_name <> wanted.name then
    raise exception 'drill % (%) is under way', active.drill_id, active.drill_name
      using errcode = 'HF415', hint = 'Wait for its end.';
  elsif joined then
    run := active.id;
    drill := active.drill_id;
    return;
  end if;
  insert into backup.runs as r (kind, origin, concurrency) values ('drill', request_drill.origin, 1) returning r.id into run;
  insert into backup.tasks (run_id, kind) values (run, 'drill');
  insert into backup.drills as d (drill, run_id, ordered_by, recovery_objective, loss_objective)
  values (
    wanted.name, run,
    coalesce(
      backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'),
      'role:' || session_user
    ),
    (select o.seconds from backup.objectives as o where o.kind = 'recovery' and o.scope = wanted.recovery_scope),
    (select o.seconds from backup.objectives as o where o.kind = 'loss' and o.scope = wanted.loss_scope)
  )
  returning d.id into drill;
  perform backup.audit(
    'drill.ordered', 'drill:' || drill, pg_catalog.jsonb_build_object('drill', wanted.name, 'origin', request_drill.origin, 'run', run)
  );
end
$$;
revoke all on function backup.request_drill(text, text) from public;

-- What people call in the SQL editor: begins a drill of the calendar by the functions, or joins it. HF008, HF415 as request_drill.
create function backup.start_drill(name text, out run uuid, out drill uuid, out status text, out message text)
language plpgsql
volatile
set search_path = ''
as $$
begin
  select r.run, r.drill into start_drill.run, start_drill.drill from backup.request_drill(start_drill.name, 'dashboard') as r;
  perform backup.launch_run(start_drill.run);
  select
    r.status,
    case
      when r.status = 'failed' then pg_catalog.concat_ws(' ', r.error_message || '.', r.hint)
      else 'started; look at public.backup_drills'
    end
  into start_drill.status, start_drill.message
  from backup.runs as r where r.id = start_drill.run;
end
$$;
comment on function backup.start_drill(text) is 'Begins a drill of the calendar now, or joins the one that is under way.';
revoke all on function backup.start_drill(text) from public;

-- Since when the next one is due, or when it will be. A good one that lies in the future tells nothing: the clock was set back.
create function backup.drill_waits_since(calendar backup.drill_calendar, moment timestamptz) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select case
    when calendar.last_good_at > moment + interval '1 day' then least(calendar.since, moment)
    else calendar.due_at
  end
$$;
revoke all on function backup.drill_waits_since(backup.drill_calendar, timestamptz) from public;

-- What the cron job calls each hour: the system's drill that has been due for longest, not beside a backup, a restore, an
-- open incident or another drill; one that went wrong is tried again the next day. Without address and secret in Vault nothing is called; `holdfast drills
-- run` does it then. Returns the run.
create function backup.call_drills() returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  wanted text;
  run_id uuid;
begin
  if not backup.is_original()
    or exists (
      select from backup.runs as r
      where r.kind in ('full', 'prune', 'drill') and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
    )
    or exists (select from backup.restores as r where r.finished_at is null)
    or exists (select from backup.incidents as i where i.status = 'open')
    or not exists (select from backup.runs as r where r.kind = 'full' and r.status = 'succeeded')
  then
    return null;
  end if;
  select c.name into wanted
  from backup.drill_calendar as c
  where c.done_by = 'system' and c.enabled and backup.drill_waits_since(c, moment) <= moment
    and not exists (select from backup.drills as d where d.drill = c.name and d.started_at between moment - interval '20 hours' and moment)
  order by c.due_at, c.name
  limit 1;
  if wanted is null then
    return null;
  end if;
  perform backup.vault_secret('holdfast_project_url'), backup.vault_secret('holdfast_worker_secret');
  select r.run into run_id from backup.request_drill(wanted, 'schedule') as r;
  perform backup.launch_run(run_id);
  return run_id;
exception
  when sqlstate 'HF002' then
    return null;
end
$$;
revoke all on function backup.call_drills() from public;

-- What its worker calls under its lease ------------------------------------------------------------------------------

-- Renews the lease and keeps how far the work is; `facts`: {backup, subject, database, dropped}, those that are known by now.
-- HF413 when the lease is lost.
create function backup.drilling(task bigint, token bigint, detail jsonb default null, facts jsonb default '{}') returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
begin
  if ours.kind <> 'drill' then
    raise exception 'task % drills nothing', drilling.task using errcode = 'HF415';
  end if;
  update backup.tasks as t
  set lease_until = moment + interval '180 seconds', detail = coalesce(drilling.detail, t.detail)
  where t.id = ours.id;
  update backup.runs as r set heartbeat_at = moment, status = 'copying' where r.id = ours.run_id;
  update backup.drills as d
  set backup_id = coalesce((drilling.facts ->> 'backup')::uuid, d.backup_id),
    subject = coalesce(drilling.facts ->> 'subject', d.subject),
    database_name = coalesce(drilling.facts ->> 'database', d.database_name),
    database_dropped_at = case when (drilling.facts ->> 'dropped')::boolean then moment else d.database_dropped_at end
  where d.run_id = ours.run_id and drilling.facts <> '{}';
end
$$;
revoke all on function backup.drilling(bigint, bigint, jsonb, jsonb) from public;

-- Gives the task back for a while, without counting a try: something else has to come to its end first.
create function backup.rest_drill(task bigint, token bigint, wait interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
begin
  update backup.tasks as t
  set status = 'open', worker = null, lease_until = null, error = null, tries = greatest(t.tries - 1, 0),
    not_before = backup.clock_now() + rest_drill.wait
  where t.id = ours.id;
  update backup.runs as r set heartbeat_at = backup.clock_now() where r.id = ours.run_id;
end
$$;
revoke all on function backup.rest_drill(bigint, bigint, interval) from public;

-- Its end: `result`: {ok, rtoSeconds, rpoSeconds, evidence, error: {code, message, hint} | null, notes}. One that was proven wrong has
-- done its work; one that could not be brought to its end has failed. HF413 when the lease is lost.
create function backup.end_drill(task bigint, token bigint, result jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
  failure jsonb := nullif(result -> 'error', 'null');
begin
  perform backup.complete_task(task, token, pg_catalog.jsonb_build_object('ok', result -> 'ok'));
  update backup.runs as r
  set status = case when failure is null then 'succeeded' else 'failed' end, error_code = failure ->> 'code',
    error_message = failure ->> 'message', hint = failure ->> 'hint', finished_at = greatest(moment, r.started_at),
    complete_at = case when failure is null then moment end
  where r.id = ours.run_id;
  perform backup.judge_drill(ours.run_id, result);
end
$$;
revoke all on function backup.end_drill(bigint, bigint, jsonb) from public;

-- The drill of a run that has ended: what came out stands in its row, the calendar, the maintenance log and the audit, and goes out
-- as a report by the channels; alerts say what has to be looked at, and go with the next good one. Nothing where it has ended already.
create function backup.judge_drill(run uuid, result jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  wanted backup.drill_calendar;
  ended backup.drills;
  good boolean := (result ->> 'ok')::boolean;
  why text := result #>> '{error,message}';
  slow text;
  said text;
begin
  update backup.drills as d
  set finished_at = greatest(moment, d.started_at), ok = good, rto_seconds = (result ->> 'rtoSeconds')::numeric,
    rpo_seconds = (result ->> 'rpoSeconds')::numeric, evidence = coalesce(nullif(result -> 'evidence', 'null'), '{}')
  where d.run_id = judge_drill.run and d.finished_at is null
  returning d.* into ended;
  if ended.id is null then
    return;
  end if;
  update backup.drill_calendar as c
  set last_drill = ended.id, last_at = ended.started_at, last_ok = good,
    last_good_at = case when good then ended.started_at else c.last_good_at end
  where c.name = ended.drill
  returning c.* into wanted;
  if good then
    slow := nullif(pg_catalog.concat_ws(
      '; ',
      case when ended.rto_seconds > ended.recovery_objective
        then pg_catalog.format('%s s to recover, %s are promised', pg_catalog.round(ended.rto_seconds), ended.recovery_objective) end,
      case when ended.rpo_seconds > ended.loss_objective
        then pg_catalog.format('%s s would be lost, %s are promised', pg_catalog.round(ended.rpo_seconds), ended.loss_objective) end
    ), '');
    perform backup.resolve_alert('drill_failed', 'drill:' || ended.drill), backup.resolve_alert('drill_overdue', 'drill:' || ended.drill);
    if slow is null then
      perform backup.resolve_alert('objective_missed', 'drill:' || ended.drill);
    else
      perform backup.raise_alert('objective_missed', 'drill:' || ended.drill, pg_catalog.format('%s: %s', wanted.title, slow), 'warning');
    end if;
  elsif result #>> '{error,code}' is distinct from 'cancelled' then
    perform backup.raise_alert(
      'drill_failed', 'drill:' || ended.drill,
      pg_catalog.format(
        '%s: %s; `holdfast drills report %s` says more', wanted.title, coalesce(why, 'what was restored is not what the backup says'), ended.id
      )
    );
  end if;
  said := pg_catalog.concat_ws(
    '; ', nullif(result ->> 'notes', ''), why, slow,
    case when ended.rto_seconds is not null then pg_catalog.format('recovered in %s s', pg_catalog.round(ended.rto_seconds)) end
  );
  perform backup.log_maintenance(
    'test', wanted.title, case when good then 'Success' else 'Failure' end,
    pg_catalog.concat_ws('; ', nullif(pg_catalog.left(said, 3900), ''), 'drill ' || ended.id)
  );
  -- whoever cancelled it knows
  if result #>> '{error,code}' is distinct from 'cancelled' then
    perform backup.send_notice(
      'drill_report', 'drill:' || ended.drill,
      pg_catalog.format(
        '%s: %s; `holdfast drills report %s` has the evidence', wanted.title,
        pg_catalog.concat_ws('; ', case when good then 'Success' else 'Failure' end, nullif(pg_catalog.left(said, 3900), '')), ended.id
      ),
      'information',
      pg_catalog.jsonb_build_object(
        'drill', ended.id, 'name', ended.drill, 'ok', good, 'rtoSeconds', ended.rto_seconds, 'rpoSeconds', ended.rpo_seconds
      )
    );
  end if;
  perform backup.audit(
    'drill.ended', 'drill:' || ended.id,
    pg_catalog.jsonb_build_object(
      'drill', ended.drill, 'ok', good, 'evidence', pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(ended.evidence::text, 'UTF8')), 'hex')
    )
  );
end
$$;
revoke all on function backup.judge_drill(uuid, jsonb) from public;

-- For runs that ended without their worker: five legs were killed, nothing worked on it any more, or somebody cancelled it. There is
-- nobody to sign the evidence.
create function backup.break_drill(run uuid, code text, message text, hint text) returns void
language sql
volatile
set search_path = ''
as $$
  select backup.judge_drill(
    break_drill.run,
    pg_catalog.jsonb_build_object(
      'ok', false,
      'error', pg_catalog.jsonb_build_object('code', break_drill.code, 'message', break_drill.message, 'hint', break_drill.hint),
      'evidence', pg_catalog.jsonb_build_object(
        'version', 1, 'signature', null,
        'failure', pg_catalog.jsonb_build_object('code', break_drill.code, 'message', break_drill.message)
      )
    )
  )
$$;
revoke all on function backup.break_drill(uuid, text, text, text) from public;

-- Databases of drills that have ended, to be dropped by whoever can: a DROP DATABASE stands in no transaction.
create function backup.left_drill_databases() returns table (drill uuid, database_name text)
language sql
stable
set search_path = ''
as $$
  select d.id, d.database_name from backup.drills as d
  where d.finished_at is not null and d.database_name is not null and d.database_dropped_at is null
  order by d.started_at
$$;
revoke all on function backup.left_drill_databases() from public;

create function backup.drill_database_dropped(drill uuid) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.drills as d set database_dropped_at = backup.clock_now()
  where d.id = drill_database_dropped.drill and d.database_dropped_at is null
$$;
revoke all on function backup.drill_database_dropped(uuid) from public;

-- The watchdog's step: an alert for each drill that has been due for too long; databases that a killed one left are dropped by the
-- function, once an hour. Returns how many are overdue.
create function backup.watch_drills() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  watched record;
  overdue integer := 0;
begin
  if not backup.is_original() then
    return 0;
  end if;
  for watched in
    select c.*, backup.drill_waits_since(c, moment) as waits_since from backup.drill_calendar as c order by c.name
  loop
    if watched.enabled and watched.waits_since + backup.drill_grace(watched.cadence) <= moment then
      overdue := overdue + 1;
      perform backup.raise_alert(
        'drill_overdue', 'drill:' || watched.name,
        pg_catalog.format(
          '%s was due on %s%s', watched.title, pg_catalog.to_char(watched.waits_since at time zone 'UTC', 'YYYY-MM-DD'),
          case when watched.done_by = 'person' then pg_catalog.format('; it takes a person: holdfast drills run %s', watched.name) else '' end
        ),
        'warning'
      );
    else
      perform backup.resolve_alert('drill_overdue', 'drill:' || watched.name);
    end if;
  end loop;
  if exists (select from backup.left_drill_databases()) and not exists (
    select from backup.calls as c where c.function_name = 'drill' and c.made_at > moment - interval '1 hour'
  ) then
    begin
      perform backup.invoke('drill', '{"action": "sweep"}');
    exception
      -- without functions `holdfast drills run` drops them
      when sqlstate 'HF002' then null;
    end;
  end if;
  return overdue;
end
$$;
revoke all on function backup.watch_drills() from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_drills with (security_invoker = true) as
select
  d.id, d.drill, d.ordered_by, d.started_at, d.finished_at, d.backup_id, d.ok, d.rto_seconds, d.rpo_seconds, d.recovery_objective,
  d.loss_objective, d.evidence
from backup.drills as d;
comment on view public.backup_drills is 'Holdfast: drills and what they proved. Administrators with a second factor only.';

create view public.backup_drill_calendar with (security_invoker = true) as
select c.name, c.title, c.cadence, c.done_by, c.runbook, c.enabled, c.last_drill, c.due_at, c.last_at, c.last_ok, c.last_good_at
from backup.drill_calendar as c;
comment on view public.backup_drill_calendar is 'Holdfast: what is tried when. Administrators with a second factor only.';
revoke all on table public.backup_drills, public.backup_drill_calendar from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_drills, public.backup_drill_calendar from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_drills on backup.drills for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_the_calendar on backup.drill_calendar for select to authenticated using ((select backup.is_admin()));
  grant select (
    id, drill, ordered_by, started_at, finished_at, backup_id, ok, rto_seconds, rpo_seconds, recovery_objective, loss_objective, evidence
  ) on backup.drills to authenticated;
  grant select (name, title, cadence, done_by, runbook, enabled, last_drill, last_at, last_ok, last_good_at, due_at)
    on backup.drill_calendar to authenticated;
  grant select on table public.backup_drills, public.backup_drill_calendar to authenticated;
end
$$;
