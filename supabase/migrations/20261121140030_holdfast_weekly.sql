-- The weekly checks: logs are reviewed, failures are documented. What comes with a later release is registered and not available yet.

-- What is unusual in the logs of the last seven days: [{what, count, lastAt}], no text of a log, which may hold values of rows. A log that
-- is not there, or may not be read, is in `unread`.
create function backup.prove_logs() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  since timestamptz := moment - interval '7 days';
  anomalies jsonb := '[]'::jsonb;
  unread text[] := '{}'::text[];
  reviewed jsonb;
  ticks_from timestamptz;
  ticks bigint;
begin
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('what', a.what, 'count', a.times, 'lastAt', backup.moment_text(a.last_at)) order by a.what), '[]')
  into anomalies
  from (
    select pg_catalog.format('runs of kind %s: %s', r.kind, coalesce(r.error_code, r.status)) as what, count(*) as times, max(r.finished_at) as last_at
    from backup.runs as r where r.status in ('failed', 'quarantined') and r.finished_at > since group by 1
    union all
    select pg_catalog.format('calls of %s: %s', c.function_name, c.status), count(*), max(c.ended_at)
    from backup.calls as c where c.status in ('failed', 'lost') and c.ended_at > since group by 1
    union all
    select 'runs that began anew', count(*), max(r.finished_at)
    from backup.runs as r where r.attempt > 1 and r.finished_at > since having count(*) > 0
    union all
    select 'gaps of the change stream', count(*), max(g.noticed_at) from backup.gaps as g where g.noticed_at > since having count(*) > 0
    union all
    select pg_catalog.format('alerts: %s', a.kind), sum(a.times), max(a.last_seen_at)
    from backup.alerts as a where a.last_seen_at > since and a.severity = 'critical' group by a.kind
  ) as a;
  reviewed := pg_catalog.jsonb_build_object(
    'runs', (select count(*) from backup.runs as r where r.created_at > since),
    'calls', (select count(*) from backup.calls as c where c.made_at > since)
  );
  if backup.may_read('cron', 'job_run_details') then
    anomalies := anomalies || coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('what', f.what, 'count', f.times, 'lastAt', backup.moment_text(f.last_at)) order by f.what)
      from (
        select 'cron: ' || d.command as what, count(*) as times, max(d.end_time) as last_at
        from cron.job_run_details as d
        where d.status = 'failed' and d.command ~ '^select backup\.[a-z_]+\([^;]*\)$' and coalesce(d.end_time, d.start_time, moment) > since
        group by d.command
      ) as f
    ), '[]');
    -- the watchdog is due each minute
    select greatest(since, s.enabled_since) into ticks_from from backup.schedules as s where s.kind = 'watchdog' and s.enabled and s.cron = '* * * * *';
    select count(*) into ticks from cron.job_run_details as d where d.command = 'select backup.tick()' and d.start_time > ticks_from;
    reviewed := reviewed || pg_catalog.jsonb_build_object('cronRuns', (
      select count(*) from cron.job_run_details as d where d.start_time > since and d.command ~ '^select backup\.'
    ), 'ticks', ticks);
    if moment - ticks_from > interval '2 hours' and ticks < 0.9 * extract(epoch from moment - ticks_from) / 60 then
      anomalies := anomalies || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
        'what', 'cron: minutes without the watchdog',
        'count', pg_catalog.floor(extract(epoch from moment - ticks_from) / 60) - ticks, 'lastAt', null
      ));
    end if;
  else
    unread := unread || 'cron.job_run_details'::text;
  end if;
  if backup.may_read('net', '_http_response') then
    anomalies := anomalies || coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('what', f.what, 'count', f.times, 'lastAt', backup.moment_text(f.last_at)) order by f.what)
      from (
        select 'answers to our calls: ' || case when h.timed_out then 'none in time' else coalesce('HTTP ' || h.status_code, 'none') end as what,
          count(*) as times, max(h.created) as last_at
        from net._http_response as h join backup.calls as c on c.request_id = h.id and h.created >= c.made_at - interval '1 minute'
        where h.created > since and (h.timed_out or h.status_code is null or h.status_code >= 400)
        group by 1
      ) as f
    ), '[]');
  else
    unread := unread || 'net._http_response'::text;
  end if;
  evidence := pg_catalog.jsonb_build_object(
    'since', backup.moment_text(since), 'reviewed', reviewed, 'anomalies', anomalies, 'unread', pg_catalog.to_jsonb(unread)
  );
  outcome := case when anomalies = '[]' then 'passed' else 'warning' end;
  message := case
    when anomalies = '[]' then 'nothing unusual in the logs of seven days'
    else pg_catalog.format('%s kinds of anomalies in the logs of seven days, among them: %s', pg_catalog.jsonb_array_length(anomalies), anomalies #>> '{0,what}')
  end;
  return next;
end
$$;
revoke all on function backup.prove_logs() from public;

-- Failures of the last seven days, each documented once: in the maintenance log where there is one, else in the evidence alone.
create function backup.prove_failures() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  since timestamptz := backup.clock_now() - interval '7 days';
  failed record;
  failures jsonb := '[]'::jsonb;
  log_id bigint;
  -- of a later part; null: there is no maintenance log
  writer regproc := pg_catalog.to_regproc('backup.log_maintenance');
begin
  for failed in
    select x.* from (
      select r.id, r.kind, r.status, coalesce(r.error_code, 'quarantined') as code,
        coalesce(r.error_message, r.quarantine_reason) as told, r.finished_at as ended_at
      from backup.runs as r where r.status in ('failed', 'quarantined') and r.finished_at > since
      union all
      select s.id, 'restore', s.status, s.error_code, s.error_message, s.finished_at
      from backup.restores as s where s.status = 'failed' and s.finished_at > since
    ) as x
    where not exists (
      select from backup.check_results as o
      where o.check_name = 'failures_documented' and o.evidence -> 'failures' @> pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('run', x.id))
    )
    order by x.ended_at
    limit 500
  loop
    log_id := null;
    if writer is not null then
      execute pg_catalog.format('select %s($1, $2, $3, $4)', writer) into log_id
      using 'failure', pg_catalog.format('%s of %s', failed.kind, backup.moment_text(failed.ended_at)),
        case failed.status when 'quarantined' then 'Quarantined' else 'Failure' end,
        pg_catalog.format('%s: %s (run %s)', failed.code, pg_catalog.left(failed.told, 500), failed.id);
    end if;
    failures := failures || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
      'run', failed.id, 'kind', failed.kind, 'status', failed.status, 'code', failed.code, 'endedAt', backup.moment_text(failed.ended_at), 'log', log_id
    ));
  end loop;
  evidence := pg_catalog.jsonb_build_object('since', backup.moment_text(since), 'failures', failures, 'inMaintenanceLog', writer is not null);
  outcome := 'passed';
  message := case when failures = '[]' then 'no failure that is not documented yet'
    else pg_catalog.format('%s failures were documented', pg_catalog.jsonb_array_length(failures)) end;
  return next;
end
$$;
revoke all on function backup.prove_failures() from public;

do $$
begin
  perform backup.add_check('sample_export', 'weekly', 'a sample user''s data can be exported');
  perform backup.add_check('voice_notes', 'weekly', 'voice notes can be opened from the backup');
  perform backup.add_check('logs_reviewed', 'weekly', 'the logs of the week show nothing unusual', 'prove_logs', alert => 'anomaly');
  perform backup.add_check('failures_documented', 'weekly', 'every failure of the week is documented', 'prove_failures');
end
$$;
