-- The watchdog: what cannot report its own end is found here, each minute.
-- Every step is short, looks for itself, and leaves the others alone when it fails.

-- Answers of pg_net, and calls that never got one. A call that did not reach its function is `failed`, with an alert
-- for the function; one that was cut off by a crash, or whose function was ended by the platform, is `lost`.
-- Returns how many failed.
create function backup.reconcile_calls() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  longest_leg interval := backup.setting_integer('leg_wall_seconds') * interval '1 second';
  answered record;
  failures integer := 0;
begin
  if pg_catalog.to_regclass('net._http_response') is not null then
    for answered in
      select c.nonce, c.function_name, c.run_id, r.status_code, r.content,
        case
          when r.timed_out then 'no answer in time'
          when r.status_code is null then coalesce(r.error_msg, 'no answer')
          else 'HTTP ' || r.status_code
        end as reason
      from backup.calls as c
      join net._http_response as r on r.id = c.request_id and r.created >= c.made_at - interval '1 minute'
      where c.status = 'sent'
      order by c.made_at
      limit 500
      for update of c skip locked
    loop
      failures := failures + 1;
      update backup.calls as c
      set status = 'failed', ended_at = moment, answer = pg_catalog.left(answered.reason, 500)
      where c.nonce = answered.nonce;
      perform backup.raise_alert(
        'call_failed', 'function:' || answered.function_name,
        pg_catalog.format('calling the function did not work: %s', pg_catalog.left(answered.reason, 300))
          || case answered.status_code
            when 401 then '; is BACKUP_WORKER_SECRET the same as holdfast_worker_secret in Vault?'
            when 404 then '; is the function deployed?'
            else ''
          end
      );
      -- the function could not write it down itself, for want of the database's address
      if answered.run_id is not null and answered.content like '{"code":"setting_missing"%' then
        perform backup.fail_run(
          answered.run_id, 'setting_missing',
          coalesce(pg_catalog.substring(answered.content, '"message":"([^"]+)"'), 'a function lacks a setting')
        );
      end if;
    end loop;
  end if;
  update backup.calls as c
  set status = 'lost', ended_at = moment
  where c.nonce in (
    select gone.nonce
    from backup.calls as gone
    where (gone.status = 'sent' and gone.expires_at < moment)
      or (gone.status = 'begun' and gone.begun_at < moment - longest_leg)
    for update skip locked
  );
  -- nobody works under the leases of a call that is over; whoever does after all is stopped by the fencing token
  update backup.tasks as t
  set lease_until = moment - interval '1 millisecond'
  from backup.calls as c
  where t.status = 'leased' and t.lease_until > moment
    and t.worker like 'call:%' and c.nonce = pg_catalog.substr(t.worker, 6) and c.status in ('ended', 'failed', 'lost');
  -- a function that took a call since is well again
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a
  where a.kind = 'call_failed' and a.status <> 'resolved'
    and exists (
      select from backup.calls as c
      where 'function:' || c.function_name = a.subject and c.begun_at > a.last_seen_at
    );
  return failures;
end
$$;
revoke all on function backup.reconcile_calls() from public;

-- Fails runs that show no life any more, and sends new legs for the others whose legs were lost. Returns how many.
create function backup.revive_runs() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  dead_after interval := backup.setting_integer('run_dead_seconds') * interval '1 second';
  stalled record;
  touched integer := 0;
begin
  for stalled in
    select r.id, r.heartbeat_at, r.heartbeat_at < moment - dead_after as dead
    from backup.runs as r
    where r.status in ('queued', 'snapshotting', 'copying', 'finishing')
      -- an incremental lives as long as its hour, and no leg belongs to it
      and r.kind <> 'incremental'
    order by r.created_at
    limit 100
  loop
    if stalled.dead then
      perform backup.fail_run(
        stalled.id, 'run_stalled',
        pg_catalog.format(
          'nothing has worked on the run since %s',
          pg_catalog.to_char(stalled.heartbeat_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
        ),
        'Look at the functions'' logs and at the alerts, then start it again.'
      );
      touched := touched + 1;
    else
      touched := touched + backup.launch_run(stalled.id);
    end if;
  end loop;
  return touched;
end
$$;
revoke all on function backup.revive_runs() from public;

-- Ends keepers that no active run has: a keeper holds back vacuum and makes DDL wait. One that has not been recorded
-- yet is given five minutes; one that is past its time is ended whatever its run says. Returns how many were told.
create function backup.end_orphaned_keepers() returns integer
language sql
volatile
set search_path = ''
as $$
  select count(*) filter (where pg_catalog.pg_terminate_backend(orphan.pid))::integer
  from (
    select a.pid
    from pg_catalog.pg_stat_activity as a
    left join backup.runs as r on r.keeper_pid = a.pid and r.keeper_started_at = a.backend_start
    where a.datname = pg_catalog.current_database()
      and a.application_name = 'holdfast:keeper'
      and a.pid <> pg_catalog.pg_backend_pid()
      and case
        when r.id is null then a.backend_start < pg_catalog.clock_timestamp() - interval '5 minutes'
        when r.status not in ('queued', 'snapshotting', 'copying', 'finishing') then true
        else r.keeper_until < pg_catalog.clock_timestamp() - interval '1 minute'
      end
  ) as orphan
$$;
revoke all on function backup.end_orphaned_keepers() from public;

-- An alert for each schedule of backups whose last due run was never requested; it ends once a later one was, or the schedule is
-- paused or off. Other schedules are looked at by the monitor. Returns how many are missing.
create function backup.watch_schedules() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  watched record;
  missing integer := 0;
begin
  for watched in
    select due.name, due.due_at, exists (
        select from backup.run_requests as q where q.request_key = backup.schedule_key(due.due_at)
      ) as requested
    from (
      select s.name, s.enabled_since, backup.last_due(
          s.cron, moment - backup.setting_integer('missed_run_grace_seconds') * interval '1 second'
        ) as due_at
      from backup.schedules as s
      where s.kind = 'full' and s.enabled and s.paused_until is null
    ) as due
    where due.due_at >= due.enabled_since
  loop
    if watched.requested then
      perform backup.resolve_alert('run_missed', 'schedule:' || watched.name);
    else
      missing := missing + 1;
      perform backup.raise_alert(
        'run_missed', 'schedule:' || watched.name,
        pg_catalog.format(
          'the %s backup of %s did not start', watched.name,
          pg_catalog.to_char(watched.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
        )
      );
    end if;
  end loop;
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a join backup.schedules as s on a.subject = 'schedule:' || s.name
  where a.kind = 'run_missed' and a.status <> 'resolved' and (not s.enabled or s.paused_until is not null);
  return missing;
end
$$;
revoke all on function backup.watch_schedules() from public;

-- Removes what is only of use for looking back a week: calls, runs that copied, the log of definitions, which replays read in the
-- stream, pg_cron's details of our own jobs, pg_net's answers; and after two years what is known of runs that left nothing behind.
-- The audit keeps all of them.
create function backup.purge_traces() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  oldest timestamptz := backup.clock_now() - interval '7 days';
  purged integer;
begin
  delete from backup.calls as c
  where c.nonce in (
    select old.nonce from backup.calls as old
    where old.expires_at < oldest and old.status in ('ended', 'failed', 'lost')
    limit 5000
  );
  get diagnostics purged = row_count;
  delete from backup.runs as r where r.kind = 'replicate' and r.finished_at < oldest;
  if pg_catalog.to_regclass('backup.ddl_log') is not null then
    delete from backup.ddl_log as d
    where d.id in (select old.id from backup.ddl_log as old where old.logged_at < oldest limit 5000);
  end if;
  -- a removed backup of a chain that still has segments tells which transactions were over in its snapshot
  delete from backup.runs as r
  where r.id in (
    select old.id from backup.runs as old
    where old.finished_at < backup.clock_now() - interval '2 years'
      and (old.status in ('failed', 'cancelled', 'pruned') or old.kind not in ('full', 'incremental'))
      and not exists (select from backup.runs as other where other.subject_run = old.id)
      and not exists (select from backup.segments as s where s.chain_id = old.chain_id or s.run_id = old.id)
    order by old.finished_at
    limit 1000
  );
  if pg_catalog.to_regclass('net._http_response') is not null
    and pg_catalog.has_table_privilege('net._http_response', 'delete')
  then
    delete from net._http_response as h where h.created < oldest;
  end if;
  if pg_catalog.to_regclass('cron.job_run_details') is not null
    and pg_catalog.has_table_privilege('cron.job_run_details', 'delete')
  then
    delete from cron.job_run_details as d
    where d.runid in (
      select old.runid
      from cron.job_run_details as old
      where old.end_time < oldest
        and (
          old.command in ('select backup.tick()', 'select backup.call_drain()', 'select backup.call_anchor()', 'select backup.call_replication()',
            'select backup.audit_security()', 'select backup.call_retention()', 'select backup.call_checks(''daily'')',
            'select backup.call_checks(''weekly'')', 'select backup.call_drills()', 'select backup.call_notify()', 'select backup.call_monitor()') or old.command like 'select backup.run_schedule(%'
          or old.command like 'set statement_timeout = %; select backup.try_smoke(%'
        )
      order by old.runid
      limit 5000
    );
  end if;
  return purged;
end
$$;
revoke all on function backup.purge_traces() from public;

-- Called each minute. A second one at the same time does nothing. Returns what was done, for people.
create function backup.tick() returns jsonb
language plpgsql
volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
  steps constant text[] := array[
    'reconcile_calls', 'revive_runs', 'end_orphaned_keepers', 'end_stalled_sessions', 'resume_schedules', 'watch_schedules', 'watch_maintenance',
    'revive_restores', 'watch_restores', 'watch_recoveries', 'watch_copies', 'watch_retention', 'watch_checks', 'watch_downloads', 'watch_exports', 'watch_drills', 'watch_erasures', 'watch_rewriting', 'watch_guardians', 'watch_page', 'audit_refusals', 'watch_findings', 'chain_audit',
    'purge_traces', 'watch_stores', 'note_tick'
  ];
  step text;
  outcome integer;
  told text;
  state text;
  outcomes jsonb := '{}'::jsonb;
begin
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:tick', 0)) then
    return pg_catalog.jsonb_build_object('skipped', true);
  end if;
  foreach step in array steps loop
    -- a tick in the middle of an installation: a later migration brings the step
    continue when pg_catalog.to_regprocedure('backup.' || step || '()') is null;
    begin
      execute pg_catalog.format('select backup.%I()', step) into outcome;
      outcomes := outcomes || pg_catalog.jsonb_build_object(step, outcome);
      perform backup.resolve_alert('watchdog_failed', 'step:' || step);
    exception
      when others then
        get stacked diagnostics told = message_text, state = returned_sqlstate;
        outcomes := outcomes || pg_catalog.jsonb_build_object(step, 'failed: ' || state);
        perform backup.raise_alert(
          'watchdog_failed', 'step:' || step, pg_catalog.format('%s (SQLSTATE %s)', pg_catalog.left(told, 300), state)
        );
    end;
  end loop;
  return outcomes;
end
$$;
comment on function backup.tick() is 'The watchdog; called by pg_cron each minute, harmless by hand.';
revoke all on function backup.tick() from public;
