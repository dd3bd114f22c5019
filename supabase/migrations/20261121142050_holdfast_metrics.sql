-- Figures for those who scrape, in the text format of Prometheus (version 0.0.4). Labels hold names of ours alone: kinds, tiers,
-- schedules, functions; no address, no person, no id.

-- All samples; those of one name stand together. A figure that is not known is left out.
create function backup.metric_samples()
returns table (name text, type text, help text, labels jsonb, value double precision)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  standing constant jsonb := backup.status((
    select case when m.told_at > moment - interval '1 hour' then m.told else '[]' end from backup.monitor as m
  ));
  stream constant jsonb := nullif(standing -> 'stream', 'null');
  newest backup.runs;
begin
  select r.* into newest from backup.runs as r
  where r.kind = 'full' and r.status = 'succeeded' order by r.consistent_at desc limit 1;
  return query
    select m.name, 'gauge', m.help, coalesce(m.labels, '{}'), m.value::double precision
    from (
      select 1 as place, 'holdfast_verdict' as name, 'How backups stand: 0 ok, 1 warning, 2 critical.' as help, '{}'::jsonb as labels,
        case standing ->> 'verdict' when 'ok' then 0 when 'warning' then 1 else 2 end::numeric as value
      union all
      select 2, 'holdfast_last_backup_timestamp_seconds', 'The moment that the newest backup shows.', '{}',
        extract(epoch from newest.consistent_at)
      union all
      select 3, 'holdfast_recovery_point_age_seconds', 'Age of the newest state that can be restored.', '{}',
        (standing ->> 'recoveryPointSeconds')::numeric
      union all
      select 4, 'holdfast_last_backup_duration_seconds', 'How long the newest backup took.', '{}',
        extract(epoch from newest.finished_at - newest.started_at)
      union all
      select 5, 'holdfast_last_backup_rows', 'Rows in the newest backup.', '{}', newest.rows
      union all
      select 6, 'holdfast_last_backup_raw_bytes', 'Bytes of rows in the newest backup, before compression.', '{}', newest.raw_bytes
      union all
      select 7, 'holdfast_last_backup_stored_bytes', 'Bytes that the newest backup needs in a store.', '{}', newest.stored_bytes
      union all
      select 8, 'holdfast_last_backup_verified', 'Whether every object of the newest backup was read again and found sound.', '{}',
        case when newest.id is null then null when newest.verified_at is null then 0 else 1 end
      union all
      select 10, 'holdfast_runs', 'Runs on record.', pg_catalog.jsonb_build_object('kind', r.kind, 'status', r.status), count(*)
      from backup.runs as r group by r.kind, r.status
      union all
      select 20, 'holdfast_alerts', 'Alerts that are not resolved.', pg_catalog.jsonb_build_object('severity', s.severity),
        (select count(*) from backup.alerts as a where a.status <> 'resolved' and a.severity = s.severity)
      from pg_catalog.unnest(array['warning', 'critical']) as s (severity)
      union all
      select 21, 'holdfast_alerts_by_kind', 'Subjects of each kind of alert that is not resolved.',
        pg_catalog.jsonb_build_object('kind', a.kind, 'severity', a.severity), count(*)
      from backup.alerts as a where a.status <> 'resolved' group by a.kind, a.severity
      union all
      select 30, 'holdfast_store_bytes', 'Bytes in a store, as far as they are recorded.',
        pg_catalog.jsonb_build_object('store', u.place), u.bytes
      from backup.store_usage as u
      union all
      select 31, 'holdfast_store_objects', 'Objects in a store, as far as they are recorded.',
        pg_catalog.jsonb_build_object('store', u.place), u.objects
      from backup.store_usage as u
      union all
      select 32, 'holdfast_store_quota_bytes', 'Bytes that a store may hold, where that is set.',
        pg_catalog.jsonb_build_object('store', q.place), nullif(q.quota, 0)
      from (values
        ('first', backup.setting_integer('primary_quota_bytes')), ('second', backup.setting_integer('secondary_quota_bytes'))
      ) as q (place, quota)
      union all
      select 40, 'holdfast_second_store_missing_objects', 'Objects that the second store lacks.', '{}', l.objects from backup.copy_lag() as l
      union all
      select 41, 'holdfast_second_store_missing_bytes', 'Bytes that the second store lacks, as far as they are known.', '{}', l.bytes
      from backup.copy_lag() as l
      union all
      select 42, 'holdfast_second_store_lag_seconds', 'Age of the oldest object that the second store lacks.', '{}',
        coalesce(extract(epoch from moment - l.oldest_at), 0)
      from backup.copy_lag() as l
      union all
      select 50, 'holdfast_stream_lag_seconds', 'Seconds since the change stream was drained to its end.', '{}', (stream ->> 'lagSeconds')::numeric
      union all
      select 51, 'holdfast_slot_retained_bytes', 'WAL that the replication slot holds back.', '{}', (stream ->> 'retainedBytes')::numeric
      union all
      select 52, 'holdfast_slot_undrained_bytes', 'WAL that the drain has not taken yet.', '{}', (stream ->> 'undrainedBytes')::numeric
      union all
      select 53, 'holdfast_slot_limit_bytes', 'WAL at which the slot is given up.', '{}', (stream ->> 'limitBytes')::numeric
      union all
      select 54, 'holdfast_slot_holder_seconds', 'Age of the oldest transaction of the server, which holds the slot back.', '{}',
        (stream #>> '{holder,seconds}')::numeric
      union all
      select 60, 'holdfast_watchdog_timestamp_seconds', 'When the watchdog came to its end last.', '{}', extract(epoch from p.ticked_at)
      from backup.pulse as p
      union all
      select 61, 'holdfast_monitor_timestamp_seconds', 'When the monitor looked last.', '{}', extract(epoch from x.looked_at)
      from backup.monitor as x
      union all
      select 62, 'holdfast_schedule_last_start_timestamp_seconds', 'When the job of a schedule began last.',
        pg_catalog.jsonb_build_object('schedule', j.schedule), extract(epoch from j.started_at)
      from backup.job_runs as j
      union all
      select 63, 'holdfast_schedule_next_timestamp_seconds', 'When a schedule that is neither off nor paused is due next.',
        pg_catalog.jsonb_build_object('schedule', s.name), extract(epoch from backup.next_due(s.cron, moment))
      from backup.schedules as s where s.enabled and s.paused_until is null
      union all
      select 64, 'holdfast_schedule_paused', 'Whether a schedule is paused.', pg_catalog.jsonb_build_object('schedule', s.name),
        (s.paused_until is not null)::integer
      from backup.schedules as s
      union all
      select 70, 'holdfast_calls', 'Calls of a function in the last hour.',
        pg_catalog.jsonb_build_object('function', c.function_name, 'status', c.status), count(*)
      from backup.calls as c
      where c.expires_at > moment - interval '55 minutes' and c.made_at > moment - interval '1 hour'
      group by c.function_name, c.status
      union all
      select 80, 'holdfast_key_age_seconds', 'Age of the oldest key of BACKUP_KEYS that is in use.', '{}',
        extract(epoch from moment - min(t.first_told_at))
      from backup.told_facts as t
      where t.subject ~ '^key:' and t.subject !~ '^key:r-'
        and t.told_at >= (select max(l.told_at) from backup.told_facts as l where l.subject ~ '^key:') - interval '1 day'
      union all
      select 81, 'holdfast_clock_ahead_seconds', 'By how much a clock is ahead of the database''s.',
        pg_catalog.jsonb_build_object('clock', pg_catalog.substr(t.subject, 7)), (t.facts ->> 'aheadSeconds')::numeric
      from backup.told_facts as t where t.subject ~ '^clock:' and t.told_at > moment - interval '1 hour'
    ) as m
    where m.value is not null
    order by m.place, m.labels::text;
end
$$;
revoke all on function backup.metric_samples() from public;

-- The samples as text: HELP and TYPE before the first of each name, a line feed at the end.
create function backup.metrics() returns text
language sql
volatile
set search_path = ''
as $$
  with samples as (
    select s.*, s.place = min(s.place) over (partition by s.name) as is_first
    from backup.metric_samples() with ordinality as s (name, type, help, labels, value, place)
  )
  select pg_catalog.string_agg(
    case when s.is_first then pg_catalog.format(e'# HELP %s %s\n# TYPE %s %s\n', s.name, s.help, s.name, s.type) else '' end
      || s.name || coalesce((
        select '{' || pg_catalog.string_agg(
          pg_catalog.format('%s="%s"', l.key, pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(l.value, '\', '\\'), '"', '\"'), e'\n', '\n')),
          ',' order by l.key
        ) || '}'
        from pg_catalog.jsonb_each_text(s.labels) as l
      ), '') || ' ' || s.value::text || e'\n',
    '' order by s.place
  )
  from samples as s
$$;
comment on function backup.metrics() is 'Figures in the text format of Prometheus.';
revoke all on function backup.metrics() from public;
