-- What people do with schedules: another time, a pause with an end, a run now. The rows and the jobs that follow from them are in
-- the migration `schedules`; docs/decisions/0033-monitoring.md says why it is so. Lock order: backup.schedules, then as of runs.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('pause_at_most_hours', 'integer', '168', 1, 720, 'the longest pause of a schedule');

-- The schedule of that name, locked. HF008 (not_found) with the names that there are.
create function backup.schedule_named(name text) returns backup.schedules
language plpgsql
volatile
set search_path = ''
as $$
declare
  found_schedule backup.schedules;
begin
  select s.* into found_schedule from backup.schedules as s where s.name = schedule_named.name for no key update;
  if found_schedule.name is null then
    raise exception 'there is no schedule %', schedule_named.name using errcode = 'HF008', hint = pg_catalog.format(
      'The schedules are: %s.', (select pg_catalog.string_agg(s.name, ', ' order by s.name) from backup.schedules as s)
    );
  end if;
  return found_schedule;
end
$$;
revoke all on function backup.schedule_named(text) from public;

-- Another time for a schedule; its job follows. Returns when it is due next. HF008; HF440 (cron_refused) for an expression that is
-- not understood, or never due.
create function backup.set_schedule(name text, cron text) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.schedules := backup.schedule_named(set_schedule.name);
  wanted constant text := pg_catalog.regexp_replace(pg_catalog.btrim(coalesce(set_schedule.cron, '')), '\s+', ' ', 'g');
  next_at timestamptz;
begin
  begin
    next_at := backup.next_due(wanted, backup.clock_now());
  exception
    when sqlstate 'HF003' then
      raise exception '%', sqlerrm using errcode = 'HF440';
  end;
  if next_at is null or backup.last_due(wanted, timestamptz '2001-01-01 00:00+00') is null then
    raise exception 'cron expression "%" is never due, or less than once a year', wanted using errcode = 'HF440';
  end if;
  -- what a person changed in cron.job is adopted first: else it would count more than what is set here
  perform backup.apply_schedules();
  update backup.schedules as s
  set cron = wanted, enabled_since = backup.clock_now()
  where s.name = ours.name and s.cron <> wanted;
  if found then
    perform backup.apply_schedules();
  end if;
  return next_at;
end
$$;
comment on function backup.set_schedule(text, text) is 'Another time for a schedule: set_schedule(''daily'', ''30 2 * * *''), in GMT.';
revoke all on function backup.set_schedule(text, text) from public;

-- A schedule rests until a moment; whoever wants it for good takes it away (`enabled`). A pause of one that is paused takes the
-- place of the other. HF008; HF441 (pause_refused) for the watchdog, which ends pauses, for an end that has been or is further away
-- than pause_at_most_hours, without a reason, and for one that is not enabled.
create function backup.pause_schedule(name text, until timestamptz, reason text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.schedules := backup.schedule_named(pause_schedule.name);
  moment constant timestamptz := backup.clock_now();
  at_most constant interval := backup.setting_integer('pause_at_most_hours') * interval '1 hour';
  refusal constant text := case
    when ours.kind = 'watchdog' then 'the watchdog is never paused: it is what ends a pause'
    when ours.kind = 'alerts' then 'alerts are never paused: nobody would hear of anything'
    when not ours.enabled then pg_catalog.format('the schedule %s is not enabled', ours.name)
    when pause_schedule.until is null then 'a pause has an end'
    when pause_schedule.until <= moment then pg_catalog.format(
      'the end of the pause, %s UTC, has been already', pg_catalog.to_char(pause_schedule.until at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
    )
    when pause_schedule.until > moment + at_most then pg_catalog.format(
      'a pause lasts %s hours at most (the setting pause_at_most_hours)', backup.setting_integer('pause_at_most_hours')
    )
    when coalesce(pg_catalog.btrim(pause_schedule.reason), '') = '' then 'a pause needs a reason'
  end;
begin
  if refusal is not null then
    raise exception '%', refusal using errcode = 'HF441';
  end if;
  update backup.schedules as s
  set paused_until = pause_schedule.until, paused_by = session_user, pause_reason = pg_catalog.left(pg_catalog.btrim(pause_schedule.reason), 300)
  where s.name = ours.name;
  perform backup.apply_schedules();
  perform backup.audit('schedule.paused', 'schedule:' || ours.name, pg_catalog.jsonb_build_object(
    'until', pause_schedule.until, 'reason', pg_catalog.left(pg_catalog.btrim(pause_schedule.reason), 300)
  ));
end
$$;
comment on function backup.pause_schedule(text, timestamptz, text) is 'A schedule rests until a moment: pause_schedule(''daily'', now() + interval ''3 hours'', ''why'').';
revoke all on function backup.pause_schedule(text, timestamptz, text) from public;

-- The end of a pause; what was due in it is not missed. False where there was none. HF008.
create function backup.resume_schedule(name text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.schedules := backup.schedule_named(resume_schedule.name);
begin
  if ours.paused_until is null then
    return false;
  end if;
  update backup.schedules as s
  set paused_until = null, paused_by = null, pause_reason = null, enabled_since = backup.clock_now()
  where s.name = ours.name;
  perform backup.apply_schedules();
  perform backup.audit('schedule.resumed', 'schedule:' || ours.name, pg_catalog.jsonb_build_object('was_until', ours.paused_until));
  return true;
end
$$;
comment on function backup.resume_schedule(text) is 'Ends the pause of a schedule.';
revoke all on function backup.resume_schedule(text) from public;

-- The watchdog's step: pauses whose time is over. While the drain of the change stream is paused its slot is guarded here, since
-- a pause may not fill the disk. Returns how many were ended.
create function backup.resume_schedules() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  over text;
  resumed integer := 0;
begin
  for over in
    select s.name from backup.schedules as s where s.paused_until <= backup.clock_now() order by s.name
  loop
    perform backup.resume_schedule(over);
    resumed := resumed + 1;
  end loop;
  if exists (select from backup.schedules as s where s.kind = 'changes' and s.paused_until is not null) then
    perform backup.guard_slot();
  end if;
  return resumed;
end
$$;
revoke all on function backup.resume_schedules() from public;

-- Does now what the schedule's job does when it is due; for a backup, a run of its tier that is asked for by itself. Says what came
-- of it. HF008.
create function backup.run_now(name text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.schedules := backup.schedule_named(run_now.name);
  outcome text;
  asked record;
begin
  perform backup.audit('schedule.run', 'schedule:' || ours.name, '{}');
  if ours.kind = 'full' then
    select b.* into asked from backup.start_backup(ours.tier) as b;
    return pg_catalog.format('run %s: %s', asked.run, asked.message);
  end if;
  execute backup.job_command(ours.kind, ours.name) into outcome;
  return case
    when outcome is null then 'nothing was begun: there is nothing to do now, or Vault holds no address and secret of the functions'
    else 'done: ' || outcome
  end;
end
$$;
comment on function backup.run_now(text) is 'Does now what a schedule does when it is due.';
revoke all on function backup.run_now(text) from public;
