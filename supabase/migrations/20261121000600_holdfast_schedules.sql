-- Policies, schedules, and the cron jobs derived from them. Lock order: backup.schedules first, then as in 0650.

-- Policies -----------------------------------------------------------------------------------------------------------

create table backup.policies (
  tier text primary key,
  keep interval not null,
  note text not null,
  changed_at timestamptz not null default backup.clock_now(),
  -- monthly and yearly: the first backup of each month, and of each year
  constraint tier_is_known check (tier in ('hourly', 'daily', 'weekly', 'manual', 'safety', 'monthly', 'yearly')),
  constraint keep_is_at_least_an_hour check (keep >= interval '1 hour')
);
comment on table backup.policies is 'How long a backup of each tier is kept; one of several tiers, by the longest.';
alter table backup.policies enable row level security;
revoke all on table backup.policies from public;

insert into backup.policies (tier, keep, note) values
  ('hourly', interval '24 hours', 'the change stream, in segments of an hour'),
  ('daily', interval '30 days', 'a full backup a day'),
  ('weekly', interval '90 days', 'a full backup a week'),
  ('manual', interval '90 days', 'asked for by a person'),
  ('safety', interval '30 days', 'taken before a restore in place');

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('pitr_window_seconds', 'integer', '604800', 3600, 31536000, 'how far back point-in-time recovery is to reach');

-- An incremental is of use as long as the moments of its hour are: the window is never shorter than their tier.
create function backup.check_window() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  kept interval;
  seconds bigint;
begin
  select p.keep into kept from backup.policies as p where p.tier = 'hourly';
  select s.value::bigint into seconds from backup.settings as s where s.name = 'pitr_window_seconds';
  if seconds * interval '1 second' < kept then
    raise exception 'the window of point-in-time recovery (% s) would be shorter than the hourly tier is kept (%)',
      seconds, kept
      using errcode = '23514', hint = 'Raise backup.settings.pitr_window_seconds, or lower the tier in backup.policies first.';
  end if;
  return null;
end
$$;
revoke all on function backup.check_window() from public;

create trigger window_holds_the_hourly_tier after insert or update on backup.policies
  for each row when (new.tier = 'hourly') execute function backup.check_window();
create trigger window_holds_the_hourly_tier after insert or update on backup.settings
  for each row when (new.name = 'pitr_window_seconds') execute function backup.check_window();

-- Schedules ----------------------------------------------------------------------------------------------------------

create table backup.schedules (
  name text primary key,
  kind text not null,
  tier text references backup.policies (tier),
  cron text not null,
  enabled boolean not null default true,
  -- the expression that was last given to pg_cron: what differs from it was changed by a person
  applied_cron text,
  -- what was due before is not missed
  enabled_since timestamptz not null default backup.clock_now(),
  -- it has no job until then; the watchdog takes the pause away (migration timetable)
  paused_until timestamptz,
  paused_by text,
  pause_reason text,
  constraint name_is_a_snake_case_word check (name ~ '^[a-z][a-z_]{0,40}$'),
  constraint kind_is_known check (kind in (
    'full', 'changes', 'watchdog', 'anchor', 'replicate', 'security', 'retention',
    'daily_checks', 'weekly_checks', 'drills', 'alerts', 'monitor'
  )),
  constraint watchdog_and_alerts_are_never_paused check (kind not in ('watchdog', 'alerts') or paused_until is null),
  constraint pause_says_by_whom_and_why check (
    (paused_until is null) = (paused_by is null) and (paused_until is null) = (pause_reason is null)
  ),
  constraint a_backup_has_a_tier check ((kind = 'full') = (tier is not null)),
  constraint cron_is_understood check (backup.last_due(cron, timestamptz '2001-01-01 00:00+00') is not null)
);
create index schedules_by_tier on backup.schedules (tier);
comment on table backup.schedules is 'What runs when, in GMT. backup.apply_schedules() derives the cron jobs from it.';
alter table backup.schedules enable row level security;
revoke all on table backup.schedules from public;

insert into backup.schedules (name, kind, tier, cron) values
  ('daily', 'full', 'daily', '0 0 * * *'),
  ('weekly', 'full', 'weekly', '0 0 * * 0'),
  ('changes', 'changes', null, '* * * * *'),
  ('watchdog', 'watchdog', null, '* * * * *'),
  ('anchor', 'anchor', null, '17 * * * *'),
  ('replicate', 'replicate', null, '*/15 * * * *'),
  ('security', 'security', null, '43 3 1 * *'),
  ('retention', 'retention', null, '37 * * * *'),
  ('daily_checks', 'daily_checks', null, '23 4 * * *'),
  ('weekly_checks', 'weekly_checks', null, '53 4 * * 1'),
  ('drills', 'drills', null, '47 * * * *'),
  ('alerts', 'alerts', null, '* * * * *'),
  ('monitor', 'monitor', null, '*/5 * * * *');

-- What the cron job of a schedule does.
create function backup.job_command(kind text, name text) returns text
language sql
immutable
set search_path = ''
as $$
  select case kind
    when 'watchdog' then 'select backup.tick()'
    when 'changes' then 'select backup.call_drain()'
    when 'anchor' then 'select backup.call_anchor()'
    when 'replicate' then 'select backup.call_replication()'
    when 'security' then 'select backup.audit_security()'
    when 'retention' then 'select backup.call_retention()'
    when 'daily_checks' then 'select backup.call_checks(''daily'')'
    when 'weekly_checks' then 'select backup.call_checks(''weekly'')'
    when 'drills' then 'select backup.call_drills()'
    when 'alerts' then 'select backup.call_notify()'
    when 'monitor' then 'select backup.call_monitor()'
    else pg_catalog.format('select backup.run_schedule(%L)', name)
  end
$$;
revoke all on function backup.job_command(text, text) from public;

-- Makes pg_cron agree with the rows and says what it did, one line a schedule. A job that a person changed is taken as
-- it is, and its row follows it, but for an expression that backup.last_due() does not take; a job that is missing is added; one whose schedule is paused or not enabled is removed. What
-- was due before a job is there for the first time is not missed.
create function backup.apply_schedules() returns table (schedule text, outcome text)
language plpgsql
volatile
set search_path = ''
as $$
declare
  wanted record;
  job_cron text;
  job_command text;
begin
  if pg_catalog.to_regclass('cron.job') is null then
    raise notice 'pg_cron is not installed: nothing runs by itself here'
      using hint = 'Start backups with `holdfast create` from a scheduler of your own.';
    return;
  end if;
  for wanted in select s.* from backup.schedules as s order by s.name for update loop
    schedule := wanted.name;
    job_command := backup.job_command(wanted.kind, wanted.name);
    job_cron := (
      select j.schedule from cron.job as j
      where j.jobname = 'holdfast-' || wanted.name and j.username = current_user
    );
    if not wanted.enabled or wanted.paused_until is not null then
      outcome := case when wanted.enabled then 'paused' else 'not enabled' end;
      if job_cron is not null then
        perform cron.unschedule('holdfast-' || wanted.name);
        update backup.schedules as s set applied_cron = null where s.name = wanted.name;
        outcome := 'removed';
      end if;
    elsif job_cron is null then
      perform cron.schedule('holdfast-' || wanted.name, wanted.cron, job_command);
      update backup.schedules as s
      set applied_cron = wanted.cron, enabled_since = case when s.applied_cron is null then backup.clock_now() else s.enabled_since end
      where s.name = wanted.name;
      outcome := 'added';
    elsif job_cron = wanted.cron then
      update backup.schedules as s set applied_cron = wanted.cron
      where s.name = wanted.name and s.applied_cron is distinct from wanted.cron;
      outcome := 'kept';
    elsif job_cron = wanted.applied_cron then
      perform cron.schedule('holdfast-' || wanted.name, wanted.cron, job_command);
      update backup.schedules as s set applied_cron = wanted.cron where s.name = wanted.name;
      outcome := 'changed';
    else
      begin
        update backup.schedules as s set cron = job_cron, applied_cron = job_cron where s.name = wanted.name;
        outcome := 'adopted';
      exception
        -- pg_cron takes more than five fields of numbers; what is never due, or not understood, could not be watched
        when sqlstate 'HF003' or check_violation then
          perform cron.schedule('holdfast-' || wanted.name, wanted.cron, job_command);
          update backup.schedules as s set applied_cron = wanted.cron where s.name = wanted.name;
          outcome := 'refused';
      end;
    end if;
    if outcome in ('added', 'changed', 'adopted', 'removed', 'refused') then
      perform backup.audit(
        'schedule.' || outcome, 'schedule:' || wanted.name,
        pg_catalog.jsonb_build_object('row', wanted.cron, 'job', job_cron)
      );
    end if;
    return next;
  end loop;
end
$$;
revoke all on function backup.apply_schedules() from public;

-- What a cron job calls: requests the backup that is due and sends its first leg. One run serves every schedule that is
-- due in the same minute, whichever job comes first, also when that run has ended by then.
create function backup.run_schedule(name text) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  wanted_cron text := (select s.cron from backup.schedules as s where s.name = run_schedule.name and s.kind = 'full');
  due timestamptz := backup.last_due(wanted_cron, backup.clock_now());
  run_id uuid;
begin
  if due is null then
    raise exception 'there is no schedule % for backups', run_schedule.name using errcode = 'HF008';
  end if;
  select r.run into run_id
  from backup.request_run(
    'full',
    array(
      select s.tier from backup.schedules as s
      where s.kind = 'full' and (
          s.name = run_schedule.name or (s.enabled and s.paused_until is null and backup.last_due(s.cron, due) = due)
        )
      order by s.tier
    ),
    'schedule',
    backup.schedule_key(due)
  ) as r;
  perform backup.launch_run(run_id);
  return run_id;
end
$$;
revoke all on function backup.run_schedule(text) from public;

-- The request key of the backup that was due at a moment.
create function backup.schedule_key(due timestamptz) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select 'schedule:full:' || pg_catalog.to_char(due at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
$$;
revoke all on function backup.schedule_key(timestamptz) from public;
