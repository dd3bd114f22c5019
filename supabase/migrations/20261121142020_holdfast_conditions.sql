-- What is not as it should be, now: one function a subject, each a list of (kind, subject, severity, message, is_alert). The status,
-- the dashboard's view, the metrics and the alerts of the monitor are made of this one list. `is_alert` false: `status` says it,
-- and nobody is called for it. docs/monitoring.md lists the kinds with what to do about them.

-- The moment that the newest backup shows. One of a moment that is still to come was made while the clock was wrong, and would hide
-- for as long that none is made.
create function backup.newest_backup_at() returns timestamptz
language sql
volatile
set search_path = ''
as $$
  select max(r.consistent_at) from backup.runs as r
  where r.kind = 'full' and r.status = 'succeeded' and r.consistent_at <= backup.clock_now() + interval '5 minutes'
$$;
revoke all on function backup.newest_backup_at() from public;

-- The newest backup. Where nothing is scheduled one a day is expected; while a person has paused the backups nobody is called.
create function backup.see_backups()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  newest constant timestamptz := backup.newest_backup_at();
  expected constant interval := backup.backup_every();
  grace constant interval := interval '2 hours';
  is_paused constant boolean := exists (select from backup.schedules as s where s.kind = 'full' and s.paused_until is not null);
  old constant interval := moment - newest;
begin
  if newest is null then
    return query select 'backup_old', 'kind:full', 'critical', case
        when exists (select from backup.runs as r where r.kind = 'full' and r.status = 'succeeded')
        then 'every backup is of a moment that is still to come: the clock was moved back'
        else 'there is no backup'
      end,
      not is_paused and (select i.installed_at from backup.identity as i) < moment - expected - grace;
  elsif old > 2 * expected + grace then
    return query select 'backup_old', 'kind:full', 'critical', 'the newest backup is older than two intervals', not is_paused;
  elsif old > expected + grace then
    return query select 'backup_old', 'kind:full', 'warning', 'the newest backup is older than it should be', not is_paused;
  end if;
end
$$;
revoke all on function backup.see_backups() from public;

-- The time between two scheduled backups; a day where nothing is scheduled.
create function backup.backup_every() returns interval
language sql
volatile
set search_path = ''
as $$
  select coalesce(min(due.at - backup.last_due(s.cron, due.at - interval '1 second')), interval '1 day')
  from backup.schedules as s,
    lateral (select backup.last_due(s.cron, backup.clock_now()) as at) as due
  where s.enabled and s.kind = 'full'
$$;
revoke all on function backup.backup_every() from public;

-- Was something written to a store (`store:first` or `store:second`) from that moment on? A probe of the function `monitor`, which writes
-- while an alert is open; a backup or a segment for the first store, a copy for the second. A backup of the CLI may lie elsewhere,
-- and counts only where no function tells of the store. A moment that is still to come was written down by another clock.
create function backup.has_written(store text, after timestamptz) returns boolean
language sql
volatile
set search_path = ''
as $$
  select exists (
      select from backup.told_facts as t
      where t.subject = has_written.store and t.facts ->> 'failure' is null and t.facts ->> 'wrote' = 'true' and t.told_at >= s.since
    )
    or has_written.store = 'store:first' and (
      exists (select from backup.segments as g where g.recorded_at >= s.since)
      or exists (
        select from backup.runs as r
        where r.kind = 'full' and r.status = 'succeeded' and r.finished_at >= s.since
          and (r.origin <> 'cli' or not exists (select from backup.told_facts as t where t.subject = 'store:first'))
      )
    )
    or has_written.store = 'store:second' and exists (
      select from backup.copies as c where c.status = 'stored' and c.copied_at >= s.since
    )
  from (
    select case when has_written.after > n.moment + interval '5 minutes' then n.moment - interval '10 minutes' else has_written.after end as since
    from (select backup.clock_now() as moment) as n
  ) as s
$$;
revoke all on function backup.has_written(text, timestamptz) from public;

-- Room in the stores, and whether they do what they should: as a function's probe says, and as work that failed has said
-- (note_store_failure) until something was written again.
create function backup.see_stores()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
begin
  return query
    select 'store_filling', 'store:' || u.place,
      case when u.bytes > 0.95 * q.quota then 'critical' else 'warning' end,
      pg_catalog.format(
        'the %s store holds %s of its %s (%s %%), %s objects', u.place, backup.bytes_words(u.bytes), backup.bytes_words(q.quota),
        pg_catalog.round(100.0 * u.bytes / q.quota), u.objects
      ), true
    from backup.store_usage as u
    join (values
      ('first', backup.setting_integer('primary_quota_bytes')), ('second', backup.setting_integer('secondary_quota_bytes'))
    ) as q (place, quota) on q.place = u.place
    where q.quota > 0 and u.bytes > 0.8 * q.quota;
  return query
    select 'store_unreachable', t.subject, 'critical',
      pg_catalog.format('the %s store (%s) does not answer as it should: %s', pg_catalog.substr(t.subject, 7), t.facts ->> 'label', t.facts ->> 'failure'),
      true
    from backup.told_facts as t
    where t.subject in ('store:first', 'store:second') and t.facts ->> 'failure' is not null and t.told_at > moment - interval '1 hour';
  return query
    select a.kind, a.subject, case when a.opened_at < moment - interval '5 minutes' then 'critical' else a.severity end, a.message, true
    from backup.alerts as a
    where a.kind = 'store_unreachable' and a.status <> 'resolved' and not backup.has_written(a.subject, a.last_seen_at)
      and not exists (
        select from backup.told_facts as t
        where t.subject = a.subject and t.facts ->> 'failure' is not null and t.told_at > moment - interval '1 hour'
      );
end
$$;
revoke all on function backup.see_stores() from public;

-- The open chain of the change stream, with its slot; null where there is none.
create function backup.stream_facts() returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  slot record;
begin
  select s.* into slot from backup.slot_state() as s;
  if slot.chain_id is null then
    return null;
  end if;
  return (
    select pg_catalog.jsonb_build_object(
      'chain', c.id,
      -- without one nothing of the chain can be restored
      'hasFull', exists (
        select from backup.runs as r where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = c.id
      ),
      -- since a drain came to the end of the stream last
      'lagSeconds', case when d.drained_at >= c.started_at then greatest(0, pg_catalog.floor(extract(epoch from moment - d.drained_at))) end,
      -- age of the first moment that no replay comes past
      'stuckSeconds', (
        select greatest(0, pg_catalog.floor(extract(epoch from moment - min(o.at)))) from backup.obstacles as o
        where o.chain_id = c.id and not exists (
          select from backup.runs as r
          where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = c.id and r.wal_lsn >= o.lsn
        )
      ),
      'startedAt', backup.moment_text(c.started_at),
      'restartLsn', slot.restart_lsn,
      'confirmedLsn', slot.confirmed_flush_lsn,
      'retainedBytes', case when slot.present then slot.retained_bytes end,
      -- of which the drain has taken all but these
      'undrainedBytes', case when slot.present then
        pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), slot.confirmed_flush_lsn)::bigint end,
      'limitBytes', slot.limit_bytes,
      'failure', case when d.failed_at >= c.started_at then d.failure end,
      'holder', (
        select pg_catalog.jsonb_build_object(
          'pid', h.pid, 'database', h.database, 'application', h.application, 'prepared', h.prepared,
          'seconds', greatest(0, pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp() - h.since)))
        ) from backup.slot_holder() as h
      )
    )
    from backup.chains as c, backup.drain as d where c.id = slot.chain_id
  );
end
$$;
revoke all on function backup.stream_facts() from public;

-- The change stream: drained in time, and its slot far from its limit. That the slot passed half of it, and a chain that ended, are
-- alerts of the guard and of the drain.
create function backup.see_stream()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language plpgsql
stable
set search_path = ''
as $$
declare
  stream constant jsonb := backup.stream_facts();
  lag constant bigint := (stream ->> 'lagSeconds')::bigint;
  drains_itself constant boolean := exists (
    select from backup.schedules as s
    where s.kind = 'changes' and s.enabled and s.paused_until is null and s.applied_cron is not null
  );
  -- five minutes is what status bears, a quarter of an hour what nobody is called for
  late constant bigint := 300;
  too_late constant bigint := 900;
begin
  if stream is null then
    return query
      select 'stream_ended', 'stream', 'warning', pg_catalog.format(
        'the change stream ended at %s (%s): drain again, then take a full backup', backup.moment_text(g.from_at), g.reason
      ), false
      from backup.gaps as g where g.to_at is null order by g.from_at desc limit 1;
    return;
  end if;
  if not (stream ->> 'hasFull')::boolean then
    return query select 'stream_without_full', 'stream', 'warning', pg_catalog.format(
      'nothing of the change stream can be restored: no full backup is on chain %s yet', stream ->> 'chain'
    ), false;
  end if;
  if stream ->> 'failure' is not null then
    return query select 'drain_failing', 'stream', 'warning',
      pg_catalog.format('the last drain of the change stream failed: %s', stream ->> 'failure'), false;
  end if;
  if lag is null then
    return query select 'stream_late', 'stream', 'warning', 'the change stream was never drained to its end',
      drains_itself and (stream ->> 'startedAt')::timestamptz < backup.clock_now() - too_late * interval '1 second';
  elsif lag > late then
    return query select 'stream_late', 'stream', case when lag > 3600 and drains_itself then 'critical' else 'warning' end,
      pg_catalog.format('the change stream was last drained to its end %s ago', backup.duration_words(lag)), drains_itself and lag > too_late;
  end if;
  if stream ->> 'retainedBytes' is null then
    return query select 'slot_gone', 'stream', 'warning', 'the slot of the change stream is gone', false;
  elsif (stream ->> 'retainedBytes')::bigint > (stream ->> 'limitBytes')::bigint / 2 then
    return query select 'slot_near_limit', 'stream', 'warning', pg_catalog.format(
      'the slot holds back %s of WAL; at %s it is given up%s',
      backup.bytes_words((stream ->> 'retainedBytes')::bigint), backup.bytes_words((stream ->> 'limitBytes')::bigint),
      coalesce('; ' || backup.oldest_transaction(), '')
    ), false;
  end if;
end
$$;
revoke all on function backup.see_stream() from public;

-- Jobs: each there, begun when it was due, ended well; and the watchdog, which says itself when it came to its end. Backups that did
-- not start are the watchdog's to tell. Where there is no pg_cron nothing is expected.
create function backup.see_jobs()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language plpgsql
stable
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  grace constant interval := backup.setting_integer('missed_run_grace_seconds') * interval '1 second';
  ticked constant timestamptz := (select p.ticked_at from backup.pulse as p);
  counted constant boolean := (select m.counted_run > 0 from backup.monitor as m);
begin
  return query
    select 'schedule_paused', 'schedule:' || s.name, 'warning', pg_catalog.format(
      'the schedule %s is paused until %s (%s)', s.name, backup.moment_words(s.paused_until), s.pause_reason
    ), false
    from backup.schedules as s where s.paused_until is not null order by s.name;
  if not backup.may_read('cron', 'job') then
    return;
  end if;
  return query
    select 'watchdog_still', 'schedule:' || s.name, 'critical', pg_catalog.format(
      'the watchdog came to its end last %s: does pg_cron run, and what does cron.job_run_details say of holdfast-%s?',
      coalesce(backup.duration_words(extract(epoch from moment - ticked)) || ' ago', 'never'), s.name
    ), true
    from backup.schedules as s
    where s.kind = 'watchdog' and s.enabled and greatest(ticked, s.enabled_since) < moment - interval '10 minutes';
  return query
    with expected as (
      select s.name, s.enabled_since, j.active, backup.last_due(s.cron, moment - grace) as due_at
      from backup.schedules as s left join cron.job as j on j.jobname = 'holdfast-' || s.name
      where s.enabled and s.paused_until is null and s.applied_cron is not null
    )
    select 'job_missed', 'schedule:' || e.name, 'critical', case
        when e.active is null then pg_catalog.format('the job holdfast-%s is gone: select * from backup.apply_schedules();', e.name)
        when not e.active then pg_catalog.format('the job holdfast-%s is switched off in cron.job', e.name)
        else pg_catalog.format('the job holdfast-%s was due at %s and did not begin', e.name, backup.moment_words(e.due_at))
      end, true
    from expected as e
    left join backup.job_runs as r on r.schedule = e.name
    where e.active is distinct from true
      or (
        counted and e.due_at >= e.enabled_since and e.due_at > moment - interval '6 days'
        -- backups that did not start are the watchdog's to tell
        and e.name not in (select f.name from backup.schedules as f where f.kind = 'full')
        and coalesce(r.started_at, '-infinity') < e.due_at
      );
  return query
    select 'job_failed', 'schedule:' || r.schedule, 'warning', pg_catalog.format(
      'the job holdfast-%s failed at %s: %s', r.schedule, backup.moment_words(r.failed_at), coalesce(r.failure, 'it says nothing')
    ), true
    from backup.job_runs as r
    join backup.schedules as s on s.name = r.schedule and s.enabled and s.paused_until is null
    where r.failed_at > coalesce(r.succeeded_at, '-infinity');
end
$$;
revoke all on function backup.see_jobs() from public;

-- Calls of functions that never ended, or never began, in the last hour: more than a tenth of a function's, and at least three. A
-- single one costs a minute and is sent again.
create function backup.see_calls()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language sql
volatile
set search_path = ''
as $$
  select 'calls_lost', 'function:' || c.function_name, 'warning', pg_catalog.format(
    '%s of %s calls of the function %s in the last hour did not come to their end (%s lost, %s not taken): look at its logs',
    count(*) filter (where c.status in ('lost', 'failed')), count(*), c.function_name,
    count(*) filter (where c.status = 'lost'), count(*) filter (where c.status = 'failed')
  ), true
  from backup.calls as c
  -- a call is valid for five minutes
  where c.expires_at > backup.clock_now() - interval '55 minutes' and c.made_at > backup.clock_now() - interval '1 hour'
  group by c.function_name
  having count(*) filter (where c.status in ('lost', 'failed')) >= 3
    and 10 * count(*) filter (where c.status in ('lost', 'failed')) > count(*)
$$;
revoke all on function backup.see_calls() from public;

-- Keys that are in use for too long. Where the security audit has told it already, that alert is enough.
create function backup.see_keys()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language sql
stable
set search_path = ''
as $$
  select c.kind, c.subject, c.severity, c.message, true
  from backup.check_keys() as c
  where not exists (
    select from backup.alerts as a
    where a.kind = 'security_finding' and a.subject = c.kind || ':' || c.subject and a.status <> 'resolved'
  )
$$;
revoke all on function backup.see_keys() from public;

-- Clocks of the functions and of the stores beside the database's. A signed call is refused from five minutes on, a signed request
-- by S3 from fifteen.
create function backup.see_clocks()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language sql
volatile
set search_path = ''
as $$
  select 'clock_skewed', t.subject, case when pg_catalog.abs(x.ahead) > 240 then 'critical' else 'warning' end, pg_catalog.format(
    'the clock of %s is %s %s the database''s: signed calls are refused from five minutes on',
    case when t.subject = 'clock:function' then 'the functions' else pg_catalog.format('the %s store', pg_catalog.substr(t.subject, 7)) end,
    backup.duration_words(pg_catalog.abs(x.ahead)), case when x.ahead > 0 then 'ahead of' else 'behind' end
  ), true
  from backup.told_facts as t, lateral (select (t.facts ->> 'aheadSeconds')::double precision as ahead) as x
  where t.subject ~ '^clock:' and t.told_at > backup.clock_now() - interval '1 hour' and pg_catalog.abs(x.ahead) > 60
  order by t.subject
$$;
revoke all on function backup.see_clocks() from public;

-- Sessions of ours that the watchdog has ended in the last hour.
create function backup.see_sessions()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language sql
stable
set search_path = ''
as $$
  select 'session_stalled', 'application:' || s.application, 'warning', pg_catalog.format(
    '%s sessions of ours (%s) had sent nothing for over a minute and were ended, the last at %s: is whoever reads them, or the network, slow?',
    count(*), s.application, backup.moment_words(max(s.ended_at))
  ), true
  from backup.stalled_sessions as s
  where s.ended_at > pg_catalog.clock_timestamp() - interval '1 hour'
  group by s.application
$$;
revoke all on function backup.see_sessions() from public;
