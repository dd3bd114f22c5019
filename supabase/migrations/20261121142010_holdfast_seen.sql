-- What the monitor notes for itself: when the watchdog and it looked last, how its jobs went, what the stores hold, sessions that
-- stand still. What it makes of them stands in the migrations `conditions` and `standing`.
-- Lock order: backup.schedules → backup.monitor → backup.job_runs → backup.store_usage → backup.alerts.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('primary_quota_bytes', 'integer', '0', 0, 999999999999999, 'bytes that the first store may hold; 0: not known, and no alert'),
  ('secondary_quota_bytes', 'integer', '0', 0, 999999999999999, 'bytes that the second store may hold; 0: not known, and no alert');

-- One row, of the watchdog alone: it holds its alerts until its end, and must not wait for the monitor then.
create table backup.pulse (
  singleton boolean primary key default true,
  -- when the watchdog came to its end last
  ticked_at timestamptz,
  -- when the outside watcher was told so last, and the function that tells it was asked last what is set up (migration heartbeats)
  beaten_at timestamptz,
  called_at timestamptz,
  constraint there_is_one_pulse check (singleton)
);
comment on table backup.pulse is 'When the watchdog came to its end last, and when the outside watcher was told so.';
insert into backup.pulse default values;

-- One row.
create table backup.monitor (
  singleton boolean primary key default true,
  -- when it came to its end last
  looked_at timestamptz,
  -- pg_cron's runs up to here are in job_runs
  counted_run bigint not null default 0,
  -- what only a function can see, as it told it last: [{severity, message}]
  told jsonb not null default '[]',
  told_at timestamptz,
  constraint there_is_one_monitor check (singleton),
  constraint told_is_a_list check (jsonb_typeof(told) = 'array')
);
comment on table backup.monitor is 'When the monitor looked last, and what a function told.';
insert into backup.monitor default values;

-- How the jobs of our schedules went last, as pg_cron has recorded it: its own table is the user's too, and may be long.
create table backup.job_runs (
  schedule text primary key references backup.schedules (name) on delete cascade on update cascade,
  started_at timestamptz,
  succeeded_at timestamptz,
  failed_at timestamptz,
  -- of the last failure, without values of rows
  failure text
);
comment on table backup.job_runs is 'How the cron jobs of the schedules went last.';

-- What lies in each store as far as the catalogue has recorded it, measured each hour.
create table backup.store_usage (
  place text primary key,
  bytes bigint not null,
  objects bigint not null,
  measured_at timestamptz not null,
  constraint place_is_known check (place in ('first', 'second'))
);
comment on table backup.store_usage is 'Bytes and objects in each store, as far as they are recorded.';

-- Sessions of ours whose client takes nothing any more.
create table backup.stalled_sessions (
  pid integer not null,
  backend_start timestamptz not null,
  query_start timestamptz,
  application text not null,
  -- bytes and rows that its COPY has sent; -1: it is no COPY
  progress bigint not null,
  seen_from timestamptz not null,
  ended_at timestamptz,
  primary key (pid, backend_start)
);
comment on table backup.stalled_sessions is 'Sessions of ours whose client takes nothing any more, until an hour after they were ended.';

alter table backup.pulse enable row level security;
alter table backup.monitor enable row level security;
alter table backup.job_runs enable row level security;
alter table backup.store_usage enable row level security;
alter table backup.stalled_sessions enable row level security;
revoke all on table backup.pulse, backup.monitor, backup.job_runs, backup.store_usage, backup.stalled_sessions from public;

-- The watchdog's last step: it came to its end.
create function backup.note_tick() returns integer
language sql
volatile
set search_path = ''
as $$
  update backup.pulse as p set ticked_at = backup.clock_now() returning 0
$$;
revoke all on function backup.note_tick() from public;

-- The watchdog's step: a session of ours that has waited for its client for over a minute, and sent nothing meanwhile, is ended:
-- it holds its snapshot and its locks, and DROP DATABASE waits for it. By the server's own clock, as pg_stat_activity counts.
-- Returns how many were ended.
create function backup.end_stalled_sessions() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := pg_catalog.clock_timestamp();
  ended integer;
begin
  with waiting as (
    select a.pid, a.backend_start, a.query_start, a.application_name as application, coalesce((
      select c.bytes_processed + c.tuples_processed from pg_catalog.pg_stat_progress_copy as c where c.pid = a.pid
    ), -1) as progress
    from pg_catalog.pg_stat_activity as a
    where a.application_name ~ '^holdfast:' and a.wait_event = 'ClientWrite' and a.state = 'active'
      and a.pid <> pg_catalog.pg_backend_pid() and pg_catalog.pg_has_role(current_user, a.usesysid, 'member')
  ), gone as (
    delete from backup.stalled_sessions as s
    where coalesce(s.ended_at, '-infinity') < moment - interval '1 hour'
      and not exists (select from waiting as w where w.pid = s.pid and w.backend_start = s.backend_start)
  )
  insert into backup.stalled_sessions as s (pid, backend_start, query_start, application, progress, seen_from)
  select w.pid, w.backend_start, w.query_start, w.application, w.progress, moment from waiting as w
  on conflict (pid, backend_start) do update
    set query_start = excluded.query_start, progress = excluded.progress,
      seen_from = case
        when s.query_start is not distinct from excluded.query_start and s.progress = excluded.progress then s.seen_from
        else excluded.seen_from
      end;
  -- in two steps: in one condition the ending may come before what it depends on
  with due as materialized (
    select s.pid, s.backend_start from backup.stalled_sessions as s
    where s.ended_at is null and s.seen_from <= moment - interval '1 minute'
  ), told as materialized (
    select d.pid, d.backend_start, pg_catalog.pg_terminate_backend(d.pid) as is_told from due as d
  )
  update backup.stalled_sessions as s set ended_at = moment
  from told as t where t.pid = s.pid and t.backend_start = s.backend_start and t.is_told;
  get diagnostics ended = row_count;
  return ended;
end
$$;
revoke all on function backup.end_stalled_sessions() from public;

-- Brings what pg_cron has recorded since the last look into job_runs. A run that goes on is looked at again the next time, for a
-- day at most. Returns how many rows it has read; null where pg_cron records nothing, or may not be read.
create function backup.count_job_runs() returns bigint
-- not sql: its body would be read where there is no pg_cron
language plpgsql
volatile
set search_path = ''
as $$
declare
  from_run bigint;
  to_run bigint;
  seen bigint;
begin
  if not backup.may_read('cron', 'job_run_details') or not backup.may_read('cron', 'job')
    or pg_catalog.current_setting('cron.log_run', true) = 'off'
  then
    return null;
  end if;
  select m.counted_run into from_run from backup.monitor as m for update;
  select coalesce(max(d.runid), 0) into to_run from cron.job_run_details as d;
  -- the numbers began anew: pg_cron was installed again
  if to_run < from_run then
    from_run := 0;
  end if;
  -- the first time: what is older says nothing
  from_run := greatest(from_run, to_run - 100000);
  insert into backup.job_runs as j (schedule, started_at, succeeded_at, failed_at, failure)
  select r.schedule, max(r.begun), max(r.ended) filter (where r.status = 'succeeded'),
    max(r.ended) filter (where r.status = 'failed'),
    (pg_catalog.array_agg(r.told order by r.runid desc) filter (where r.status = 'failed'))[1]
  from (
    select s.name as schedule, d.runid, d.status, coalesce(d.start_time, d.end_time) as begun,
      coalesce(d.end_time, d.start_time, backup.clock_now()) as ended,
      -- the first line alone: a later one may quote a row
      pg_catalog.left(pg_catalog.split_part(d.return_message, e'\n', 1), 200) as told
    from cron.job_run_details as d
    join cron.job as c on c.jobid = d.jobid
    join backup.schedules as s on c.jobname = 'holdfast-' || s.name
    where d.runid > from_run and d.runid <= to_run
  ) as r
  group by r.schedule
  on conflict (schedule) do update
    set started_at = greatest(j.started_at, excluded.started_at),
      succeeded_at = greatest(j.succeeded_at, excluded.succeeded_at),
      failed_at = greatest(j.failed_at, excluded.failed_at),
      failure = coalesce(excluded.failure, j.failure);
  -- by a clock that was moved back since: it would hide for as long that a job is missing
  update backup.job_runs as j
  set started_at = case when j.started_at > backup.clock_now() then backup.clock_now() else j.started_at end,
    succeeded_at = case when j.succeeded_at > backup.clock_now() then backup.clock_now() else j.succeeded_at end,
    failed_at = case when j.failed_at > backup.clock_now() then backup.clock_now() else j.failed_at end
  where greatest(j.started_at, j.succeeded_at, j.failed_at) > backup.clock_now() + interval '5 minutes';
  update backup.monitor as m set counted_run = coalesce(
    (
      select min(d.runid) - 1 from cron.job_run_details as d
      where d.runid > from_run and d.runid <= to_run and d.status not in ('succeeded', 'failed')
        and coalesce(d.start_time, pg_catalog.clock_timestamp()) > pg_catalog.clock_timestamp() - interval '1 day'
    ), to_run
  );
  seen := to_run - from_run;
  return seen;
end
$$;
revoke all on function backup.count_job_runs() from public;

-- What lies in the stores: of the first, objects, manifests and segments that were put and read back; of the second, its copies.
-- Read at most once an hour, since a million rows take a moment. True where it was read.
create function backup.measure_usage() returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
begin
  if exists (select from backup.store_usage as u where u.measured_at between moment - interval '1 hour' and moment) then
    return false;
  end if;
  delete from backup.store_usage;
  insert into backup.store_usage (place, bytes, objects, measured_at)
  select 'first', coalesce(pg_catalog.sum(x.bytes), 0)::bigint, coalesce(pg_catalog.sum(x.objects), 0)::bigint, moment
  from (
    select pg_catalog.sum(o.stored_bytes) as bytes, count(*) as objects from backup.objects as o
    union all
    select pg_catalog.sum(g.stored_bytes), count(*) from backup.segments as g
  ) as x
  union all
  select 'second', coalesce(pg_catalog.sum(c.second_bytes), 0)::bigint, count(c.name), moment
  from backup.second_store as s left join backup.copies as c on c.store = s.label and c.status = 'stored'
  where s.label is not null
  group by s.label;
  return true;
end
$$;
revoke all on function backup.measure_usage() from public;

-- Words for people -------------------------------------------------------------------------------------------------------

-- `8 s`, `3 min 20 s`, `2 h 5 min`, as the CLI says it.
create function backup.duration_words(seconds double precision) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select case
    when s.whole < 60 then s.whole || ' s'
    when s.whole < 3600 then s.whole / 60 || ' min ' || s.whole % 60 || ' s'
    else s.whole / 3600 || ' h ' || s.whole % 3600 / 60 || ' min'
  end
  from (select greatest(pg_catalog.round(seconds), 0)::bigint as whole) as s
$$;
revoke all on function backup.duration_words(double precision) from public;

-- `12.3 MiB`.
create function backup.bytes_words(bytes bigint) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select case
    when bytes < 1024 then bytes || ' B'
    when bytes < 1048576 then pg_catalog.round(bytes / 1024.0, 1) || ' KiB'
    when bytes < 1073741824 then pg_catalog.round(bytes / 1048576.0, 1) || ' MiB'
    when bytes < 1099511627776 then pg_catalog.round(bytes / 1073741824.0, 1) || ' GiB'
    else pg_catalog.round(bytes / 1099511627776.0, 1) || ' TiB'
  end
$$;
revoke all on function backup.bytes_words(bigint) from public;

-- `2026-11-22 10:00 UTC`.
create function backup.moment_words(moment timestamptz) returns text
language sql
stable
strict
set search_path = ''
as $$
  select pg_catalog.to_char(moment at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
$$;
revoke all on function backup.moment_words(timestamptz) from public;
