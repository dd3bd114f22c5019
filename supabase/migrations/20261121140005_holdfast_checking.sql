-- A run of checks, leg by leg: its lease, what comes next, results with their alerts, the verdict, and who is late.
-- Lock order: as in 140000.

-- The lease of the one that makes the checks, renewed; `detail`: how far it is. HF413 for an old token, HF415 for a verification of one
-- backup, and in a copy.
create function backup.checking(task bigint, token bigint, detail jsonb default null) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
begin
  if not ours.detail ? 'cadences' then
    raise exception 'task % makes no checks', checking.task using errcode = 'HF415';
  end if;
  if not backup.is_original() then
    raise exception 'this database is a copy, or may be one: it verifies nothing of the original''s' using errcode = 'HF415';
  end if;
  -- somebody may have asked for another cadence meanwhile
  update backup.tasks as t
  set lease_until = moment + interval '180 seconds',
    detail = coalesce((checking.detail - 'cadences') || pg_catalog.jsonb_build_object('cadences', t.detail -> 'cadences'), t.detail)
  where t.id = ours.id;
  update backup.runs as r set heartbeat_at = moment, status = 'copying' where r.id = ours.run_id;
  return ours.run_id;
end
$$;
revoke all on function backup.checking(bigint, bigint, jsonb) from public;

-- The check that comes next in this run; no row: all are made.
create function backup.next_check(task bigint, token bigint) returns setof backup.checks
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.checking(task, token);
begin
  return query
    select c.* from backup.checks as c
    join backup.tasks as t on t.id = next_check.task and t.detail -> 'cadences' ? c.cadence
    where not exists (select from backup.check_results as o where o.run_id = run and o.check_name = c.name)
    order by c.place
    limit 1;
end
$$;
revoke all on function backup.next_check(bigint, bigint) from public;

-- What a check found. A failed one and a warning raise the check's alert; the next that passes ends it. What went wrong before was not
-- for good: the task's tries begin anew.
create function backup.record_check(task bigint, token bigint, name text, outcome text, message text, evidence jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.checking(task, token);
  registered backup.checks;
begin
  select c.* into registered from backup.checks as c where c.name = record_check.name;
  insert into backup.check_results (run_id, check_name, outcome, message, evidence)
  values (run, record_check.name, record_check.outcome, pg_catalog.left(record_check.message, 2000), record_check.evidence);
  update backup.checks as c
  set outcome = record_check.outcome, message = pg_catalog.left(record_check.message, 2000), evidence = record_check.evidence,
    checked_at = backup.clock_now(), run_id = run
  where c.name = record_check.name;
  update backup.tasks as t set tries = 1 where t.id = record_check.task;
  if record_check.outcome in ('failed', 'warning') then
    perform backup.raise_alert(
      registered.alert, 'check:' || record_check.name, pg_catalog.left(record_check.message, 1000),
      case record_check.outcome when 'failed' then 'critical' else 'warning' end
    );
  elsif record_check.outcome = 'passed' then
    perform backup.resolve_alert(registered.alert, 'check:' || record_check.name);
  end if;
end
$$;
revoke all on function backup.record_check(bigint, bigint, text, text, text, jsonb) from public;

-- Makes a check that is in SQL, or says that nobody can make it yet. One that breaks has failed, and leaves the others alone.
create function backup.make_check(task bigint, token bigint, name text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  function_name text := (select c.function_name from backup.checks as c where c.name = make_check.name and c.step is null);
  found_outcome text := 'not_yet_available';
  found_message text := 'this release cannot make it yet';
  found_evidence jsonb := '{}'::jsonb;
  told text;
  state text;
begin
  perform backup.checking(task, token);
  if function_name is not null then
    begin
      execute pg_catalog.format('select c.outcome, c.message, c.evidence from backup.%I() as c', function_name)
        into strict found_outcome, found_message, found_evidence;
    exception
      when others then
        get stacked diagnostics told = message_text, state = returned_sqlstate;
        found_outcome := 'failed';
        found_message := pg_catalog.format('the check itself broke: %s (SQLSTATE %s)', pg_catalog.left(told, 300), state);
        found_evidence := pg_catalog.jsonb_build_object('sqlstate', state);
    end;
  end if;
  perform backup.record_check(task, token, name, found_outcome, found_message, found_evidence);
  return found_outcome;
end
$$;
revoke all on function backup.make_check(bigint, bigint, text) from public;

-- How a run of checks went: failed where one has failed, else warning, else passed. What is not available yet, and what there was not
-- enough for, is named and changes nothing.
create function backup.checks_verdict(run uuid) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'verdict', case
      when pg_catalog.bool_or(o.outcome = 'failed') then 'failed'
      when pg_catalog.bool_or(o.outcome = 'warning') then 'warning'
      else 'passed'
    end,
    'passed', count(*) filter (where o.outcome = 'passed'),
    'failed', coalesce(pg_catalog.jsonb_agg(o.check_name order by o.id) filter (where o.outcome = 'failed'), '[]'),
    'warning', coalesce(pg_catalog.jsonb_agg(o.check_name order by o.id) filter (where o.outcome = 'warning'), '[]'),
    'noVerdict', coalesce(pg_catalog.jsonb_agg(o.check_name order by o.id) filter (where o.outcome = 'no_verdict'), '[]'),
    'notYetAvailable', coalesce(pg_catalog.jsonb_agg(o.check_name order by o.id) filter (where o.outcome = 'not_yet_available'), '[]')
  )
  from backup.check_results as o where o.run_id = checks_verdict.run
$$;
revoke all on function backup.checks_verdict(uuid) from public;

-- All are made: the run has succeeded, whatever they found. False where somebody has asked for more meanwhile.
create function backup.end_checks(task bigint, token bigint) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.checking(task, token);
  moment timestamptz := backup.clock_now();
  verdict jsonb;
begin
  if exists (select from backup.next_check(task, token)) then
    return false;
  end if;
  verdict := backup.checks_verdict(run);
  perform backup.complete_task(task, token, verdict);
  update backup.runs as r
  set status = 'succeeded', finished_at = greatest(moment, r.started_at), complete_at = moment,
    warnings = coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'code', 'check_' || o.outcome, 'message', o.check_name || ': ' || o.message
      ) order by o.id)
      from backup.check_results as o where o.run_id = run and o.outcome in ('failed', 'warning')
    ), '[]')
  where r.id = run;
  perform backup.resolve_alert('verification_overdue', 'checks:' || c.cadence)
  from backup.tasks as t, pg_catalog.jsonb_array_elements_text(t.detail -> 'cadences') as c (cadence) where t.id = end_checks.task;
  perform backup.resolve_alert('verification_failed', 'kind:verify');
  perform backup.audit('verification.ended', 'run:' || run, verdict);
  return true;
end
$$;
revoke all on function backup.end_checks(bigint, bigint) from public;

-- The watchdog's step: an alert for each cadence whose checks were due six hours ago and have not been made since; nobody is called
-- while their schedule is paused or off. Returns how many.
create function backup.watch_checks() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  watched record;
  overdue integer := 0;
begin
  for watched in
    select due.name, due.cadence, due.due_at, backup.is_original() and not exists (
        select from backup.runs as r join backup.tasks as t on t.run_id = r.id
        where r.kind = 'verify' and r.subject_run is null and r.status = 'succeeded' and r.finished_at >= due.due_at
          and t.detail -> 'cadences' ? due.cadence
      ) as missing
    from (
      select s.name, s.enabled_since, case s.kind when 'daily_checks' then 'daily' else 'weekly' end as cadence,
        backup.last_due(s.cron, moment - interval '6 hours') as due_at
      from backup.schedules as s
      where s.kind in ('daily_checks', 'weekly_checks') and s.enabled and s.paused_until is null
    ) as due
    where due.due_at >= due.enabled_since
  loop
    if watched.missing then
      overdue := overdue + 1;
      perform backup.raise_alert(
        'verification_overdue', 'checks:' || watched.cadence,
        pg_catalog.format(
          'the %s verification of %s was not made', watched.cadence,
          pg_catalog.to_char(watched.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
        )
      );
    else
      perform backup.resolve_alert('verification_overdue', 'checks:' || watched.cadence);
    end if;
  end loop;
  perform backup.resolve_alert('verification_overdue', 'checks:' || case s.kind when 'daily_checks' then 'daily' else 'weekly' end)
  from backup.schedules as s
  where s.kind in ('daily_checks', 'weekly_checks') and (not s.enabled or s.paused_until is not null);
  return overdue;
end
$$;
revoke all on function backup.watch_checks() from public;
