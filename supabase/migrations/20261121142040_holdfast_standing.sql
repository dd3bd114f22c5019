-- How backups stand: one verdict from the list of conditions and from alerts, for `status`, the function, the dashboard and the
-- metrics; and the monitor's look each five minutes, which turns conditions into alerts and ends those whose cause is gone.

-- Functions that look, and the kinds that are theirs: an alert of such a kind ends once the function finds nothing any more.
create function backup.checks_of_conditions() returns table (check_name text, kinds text[])
language sql
immutable
set search_path = ''
as $$
  values
    ('see_backups', array['backup_old']),
    ('see_stores', array['store_filling', 'store_unreachable']),
    ('see_stream', array['stream_late']),
    ('see_jobs', array['watchdog_still', 'job_missed', 'job_failed']),
    ('see_calls', array['calls_lost']),
    ('see_keys', array['key_old']),
    ('see_clocks', array['clock_skewed']),
    ('see_sessions', array['session_stalled']),
    ('see_durations', array['run_slow'])
$$;
revoke all on function backup.checks_of_conditions() from public;

-- All that is not as it should be, now. A function that fails is a condition itself, and hides none of the others.
create function backup.conditions()
returns table (check_name text, kind text, subject text, severity text, message text, is_alert boolean)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  look text;
begin
  for look in select c.check_name from backup.checks_of_conditions() as c loop
    begin
      return query execute pg_catalog.format('select %L::text, c.* from backup.%I() as c', look, look);
    exception
      when others then
        return query select look, 'monitor_failed', 'check:' || look, 'critical',
          pg_catalog.format('the monitor could not look (%s): %s (SQLSTATE %s)', look, pg_catalog.left(sqlerrm, 300), sqlstate), true;
    end;
  end loop;
end
$$;
revoke all on function backup.conditions() from public;

-- The verdict and all that it stands on. `also`: what only the caller can see, such as how many stores are set where it runs:
-- [{severity, message}]. Nothing is changed.
create function backup.status(also jsonb default '[]') returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  newest constant timestamptz := backup.newest_backup_at();
  age constant double precision := pg_catalog.floor(extract(epoch from moment - newest));
  stream constant jsonb := backup.stream_facts();
  point double precision := age;
  verdict text;
  reasons text[];
  line text;
begin
  if (stream ->> 'hasFull')::boolean and stream ->> 'lagSeconds' is not null then
    point := least(age, greatest((stream ->> 'lagSeconds')::double precision, (stream ->> 'stuckSeconds')::double precision));
  end if;
  with conditions as (
    select pg_catalog.row_number() over () as place, c.* from backup.conditions() as c
  ), told as (
    -- an incident before all else: whoever looks has to know of it
    select 0 as part, 1::bigint as place, 'critical' as severity,
      pg_catalog.format('incident %s is open since %s: %s', i.id, backup.moment_words(i.opened_at), i.reason) as reason
    from backup.incidents as i where i.status = 'open'
    union all
    -- alerts of others before conditions, which are newer: what the monitor makes alerts of is told once
    select 1, pg_catalog.row_number() over (order by a.opened_at desc), a.severity, a.kind || ': ' || a.message
    from backup.alerts as a
    where a.status <> 'resolved' and a.severity <> 'information'
      and not exists (
        select from backup.checks_of_conditions() as o where a.kind = any (o.kinds) or a.kind = 'monitor_failed'
      )
    union all
    select 2, c.place, c.severity, c.message from conditions as c
    union all
    select 3, o.place, o.told ->> 'severity', o.told ->> 'message'
    from pg_catalog.jsonb_array_elements(also) with ordinality as o (told, place)
  )
  select coalesce(min(f.severity), 'ok'),
    coalesce(pg_catalog.array_agg(f.reason order by f.severity, f.part, f.place), '{}')
  into verdict, reasons
  from told as f;
  line := verdict || ': ' || case
    when reasons = '{}' then pg_catalog.format('the newest backup shows %s, %s ago', backup.moment_words(newest), backup.duration_words(age))
    else pg_catalog.regexp_replace(reasons[1], '\s+', ' ', 'g')
      || case when pg_catalog.cardinality(reasons) > 1 then pg_catalog.format(' (and %s more)', pg_catalog.cardinality(reasons) - 1) else '' end
  end;
  return pg_catalog.jsonb_build_object(
    'verdict', verdict,
    'line', line,
    'reasons', pg_catalog.to_jsonb(reasons),
    'checkedAt', backup.moment_text(moment),
    'lastBackupAt', backup.moment_text(newest),
    'recoveryPointSeconds', point,
    'lastRun', (
      select pg_catalog.jsonb_build_object(
        'id', r.id, 'tiers', r.tiers, 'status', r.status, 'finishedAt', backup.moment_text(r.finished_at),
        'seconds', pg_catalog.round(extract(epoch from r.finished_at - r.started_at)), 'error', r.error_code
      )
      from backup.runs as r
      where r.kind = 'full' and r.finished_at is not null and r.status <> 'pruned' order by r.created_at desc limit 1
    ),
    'alerts', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'kind', a.kind, 'subject', a.subject, 'severity', a.severity, 'message', a.message, 'openedAt', backup.moment_text(a.opened_at)
      ) order by a.severity, a.opened_at desc)
      from backup.alerts as a where a.status <> 'resolved' and a.severity <> 'information'
    ), '[]'),
    'incident', (
      select pg_catalog.jsonb_build_object('id', i.id, 'openedAt', backup.moment_text(i.opened_at), 'reason', i.reason)
      from backup.incidents as i where i.status = 'open'
    ),
    'stream', stream,
    'stores', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'place', u.place, 'bytes', u.bytes, 'objects', u.objects, 'quotaBytes', nullif(q.quota, 0),
        'measuredAt', backup.moment_text(u.measured_at)
      ) order by u.place)
      from backup.store_usage as u
      join (values
        ('first', backup.setting_integer('primary_quota_bytes')), ('second', backup.setting_integer('secondary_quota_bytes'))
      ) as q (place, quota) on q.place = u.place
    ), '[]'),
    'durations', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'tier', d.tier, 'seconds', pg_catalog.round(d.seconds), 'compared', d.compared,
        'medianSeconds', pg_catalog.round(d.median_seconds), 'limitSeconds', pg_catalog.round(d.limit_seconds)
      ) order by d.tier)
      from backup.run_durations() as d
    ), '[]'),
    'retention', pg_catalog.jsonb_build_object(
      'prunedAt', (
        select backup.moment_text(max(r.finished_at)) from backup.runs as r where r.kind = 'prune' and r.status = 'succeeded'
      ),
      'followed', not exists (select from backup.alerts as a where a.kind = 'retention_not_followed' and a.status <> 'resolved'),
      'waiting', (select count(*) from backup.removals as m where m.removed_at is null),
      'tiers', (
        select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'tier', t.tier, 'backups', t.backups, 'expected', t.expected, 'missing', pg_catalog.cardinality(t.missing), 'overdue', t.overdue
        ) order by t.keep, t.tier), '[]')
        from backup.retention_standing() as t
      )
    ),
    'paused', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'schedule', s.name, 'until', backup.moment_text(s.paused_until), 'reason', s.pause_reason
      ) order by s.name)
      from backup.schedules as s where s.paused_until is not null
    ), '[]'),
    -- null where nothing runs by itself
    'watchdogAt', (select backup.moment_text(p.ticked_at) from backup.pulse as p),
    'monitorAt', (select backup.moment_text(m.looked_at) from backup.monitor as m)
  );
end
$$;
comment on function backup.status(jsonb) is 'How backups stand: verdict, reasons, and what they stand on.';
revoke all on function backup.status(jsonb) from public;

-- What the dashboard shows: the status as the monitor found it last.
create table backup.standing (
  singleton boolean primary key default true,
  verdict text not null,
  line text not null,
  document jsonb not null,
  -- null: nobody has looked yet
  checked_at timestamptz,
  constraint there_is_one_standing check (singleton),
  constraint verdict_is_known check (verdict in ('ok', 'warning', 'critical'))
);
comment on table backup.standing is 'The status as the monitor found it last.';
alter table backup.standing enable row level security;
revoke all on table backup.standing from public;
insert into backup.standing (verdict, line, document)
values ('warning', 'warning: nobody has looked yet', '{"reasons": ["nobody has looked yet"]}');

-- Writes down how things stand now; the status that it wrote. Beside the monitor's look, whoever opens or closes an incident.
create function backup.stand() returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  now_standing constant jsonb := backup.status(coalesce(
    (select m.told from backup.monitor as m where m.told_at > moment - interval '1 hour'), '[]'
  ));
begin
  update backup.standing as s
  set verdict = now_standing ->> 'verdict', line = now_standing ->> 'line', document = now_standing, checked_at = moment;
  return now_standing;
end
$$;
revoke all on function backup.stand() from public;

-- The look: conditions become alerts, alerts whose cause is gone end, and what was found stands in backup.standing. `told`: what a
-- function sees, which is kept for an hour; null: nobody told anything this time. Returns the status.
create function backup.look(told jsonb default null) returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  seen jsonb;
  one record;
begin
  perform from backup.monitor as m for update;
  if look.told is not null then
    update backup.monitor as m set told = look.told, told_at = moment;
  end if;
  perform backup.count_job_runs();
  perform backup.measure_usage();
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c)), '[]') into seen from backup.conditions() as c;
  for one in
    select c.* from pg_catalog.jsonb_to_recordset(seen) as c (kind text, subject text, severity text, message text, is_alert boolean)
    where c.is_alert
  loop
    perform backup.raise_alert(one.kind, pg_catalog.left(one.subject, 300), one.message, one.severity);
  end loop;
  -- of a function that could not look nothing is known: its alerts stay
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a
  where a.status <> 'resolved'
    and (
      a.kind = 'monitor_failed' or exists (
        select from backup.checks_of_conditions() as o
        where a.kind = any (o.kinds) and not exists (
          select from pg_catalog.jsonb_to_recordset(seen) as c (check_name text, kind text)
          where c.check_name = o.check_name and c.kind = 'monitor_failed'
        )
      )
    )
    and not exists (
      select from pg_catalog.jsonb_to_recordset(seen) as c (kind text, subject text, is_alert boolean)
      where c.is_alert and c.kind = a.kind and pg_catalog.left(c.subject, 300) = a.subject
    );
  update backup.monitor as m set looked_at = moment;
  return backup.stand();
end
$$;
comment on function backup.look(jsonb) is 'The monitor''s look; harmless by hand.';
revoke all on function backup.look(jsonb) from public;

-- What the cron job `holdfast-monitor` calls: the look, then the function for what SQL cannot see. What keeps the call from being
-- made takes back nothing of the look. A second one at the same time does nothing.
create function backup.call_monitor() returns bigint
language plpgsql
volatile
set search_path = ''
set lock_timeout = '5s'
as $$
begin
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:monitor', 0)) then
    return null;
  end if;
  perform backup.look();
  begin
    return backup.invoke('monitor', '{"action": "look"}');
  exception
    when sqlstate 'HF002' then
      return null;
  end;
end
$$;
revoke all on function backup.call_monitor() from public;

-- A function's part of the look is over; `failure`: {code, message} of what kept it from it.
create function backup.end_look(nonce text, failure jsonb default null) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.end_call(end_look.nonce, coalesce(failure ->> 'code', 'done'));
  if failure is null then
    perform backup.resolve_alert('look_failed', 'function:monitor');
  else
    perform backup.raise_alert(
      'look_failed', 'function:monitor',
      pg_catalog.format('the function monitor could not look: %s (%s)', failure ->> 'message', failure ->> 'code'), 'warning'
    );
  end if;
end
$$;
revoke all on function backup.end_look(text, jsonb) from public;

-- What administrators see through the API ----------------------------------------------------------------------------

-- A look that is older than a quarter of an hour says nothing of now, and that is critical.
create view public.backup_status with (security_invoker = true) as
select
  case when s.checked_at < pg_catalog.statement_timestamp() - interval '15 minutes' then 'critical' else s.verdict end as verdict,
  case
    when s.checked_at < pg_catalog.statement_timestamp() - interval '15 minutes'
    then 'critical: nobody has looked for a quarter of an hour; the last time: ' || s.line
    else s.line
  end as line,
  s.document -> 'reasons' as reasons, s.document ->> 'lastBackupAt' as last_backup_at,
  (s.document ->> 'recoveryPointSeconds')::numeric as recovery_point_seconds, s.document, s.checked_at
from backup.standing as s;
comment on view public.backup_status is 'Holdfast: how backups stand, as the monitor found it. Administrators with a second factor only.';
revoke all on table public.backup_status from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_status from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_standing on backup.standing
    for select to authenticated using ((select backup.is_admin()));
  grant select (verdict, line, document, checked_at) on backup.standing to authenticated;
  grant select on table public.backup_status to authenticated;
end
$$;
