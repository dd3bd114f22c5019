-- Daily and weekly verification: checks that register themselves, who asks for them, their results with evidence. The runs that make
-- them are in 140005, what the stores hold and when it was opened in 140010, the checks in SQL in 140020 and 140030.
-- docs/decisions/0031-verification.md says why it is so.
-- Lock order: advisory lock of the checks → backup.runs → backup.tasks → backup.inventory → backup.check_results.
--   select * from public.backup_checks;              each check with its newest result
--   select * from backup.start_checks('daily');      make the daily ones now

create unique index runs_one_active_checks on backup.runs (kind)
  where kind = 'verify' and subject_run is null and status in ('queued', 'snapshotting', 'copying', 'finishing');

-- One row a check. A SQL function makes it, or a step of src/shared/checks; with neither it is not available yet.
create table backup.checks (
  name text primary key,
  cadence text not null,
  -- what it proves, for people
  proves text not null,
  -- of schema backup, without arguments, returns (outcome text, message text, evidence jsonb)
  function_name text,
  step text,
  -- kind of the alert that it raises
  alert text not null default 'verification_failed',
  -- in this order within a run
  place integer not null unique,
  -- of its newest result; null: it was never made
  outcome text,
  message text,
  evidence jsonb,
  checked_at timestamptz,
  run_id uuid references backup.runs (id) on delete set null,
  constraint name_is_a_snake_case_word check (name ~ '^[a-z][a-z_]{0,40}$'),
  constraint cadence_is_known check (cadence in ('daily', 'weekly')),
  constraint alert_is_known check (alert in ('verification_failed', 'anomaly')),
  constraint one_way_to_make_it check (function_name is null or step is null),
  constraint result_says_when check ((outcome is null) = (checked_at is null))
);
comment on table backup.checks is 'What verification checks, how often, who does it, and what it found last.';
create index checks_by_run on backup.checks (run_id);

-- Outcome: passed | warning | failed | no_verdict (there is not enough to judge by) | not_yet_available (nobody can make it yet).
create table backup.check_results (
  id bigint generated always as identity primary key,
  run_id uuid not null references backup.runs (id) on delete cascade,
  check_name text not null references backup.checks (name),
  outcome text not null,
  message text not null,
  -- what was measured; names and numbers, no contents
  evidence jsonb not null default '{}',
  checked_at timestamptz not null default backup.clock_now(),
  unique (run_id, check_name),
  constraint outcome_is_known check (outcome in ('passed', 'warning', 'failed', 'no_verdict', 'not_yet_available')),
  constraint evidence_is_an_object check (jsonb_typeof(evidence) = 'object')
);
comment on table backup.check_results is 'What each check of each run found, with evidence.';
create index check_results_by_check on backup.check_results (check_name, id);

alter table backup.checks enable row level security;
alter table backup.check_results enable row level security;
revoke all on table backup.checks, backup.check_results from public;

-- Registers a check, or changes who makes it: a later migration makes available what was not. HF003 for what does not fit; HF008
-- for a function that is not there.
create function backup.add_check(
  name text, cadence text, proves text, function_name text default null, step text default null,
  alert text default 'verification_failed'
) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if add_check.function_name is not null and pg_catalog.to_regprocedure('backup.' || add_check.function_name || '()') is null then
    raise exception 'there is no function backup.%()', add_check.function_name using errcode = 'HF008';
  end if;
  insert into backup.checks as c (name, cadence, proves, function_name, step, alert, place)
  values (
    add_check.name, add_check.cadence, add_check.proves, add_check.function_name, add_check.step, add_check.alert,
    (select coalesce(max(o.place), 0) + 10 from backup.checks as o)
  )
  on conflict on constraint checks_pkey do update
  set cadence = excluded.cadence, proves = excluded.proves, function_name = excluded.function_name, step = excluded.step,
    alert = excluded.alert;
  perform backup.audit('check.registered', 'check:' || add_check.name, pg_catalog.jsonb_build_object(
    'cadence', add_check.cadence, 'function', add_check.function_name, 'step', add_check.step
  ));
exception
  when check_violation or not_null_violation then
    raise exception 'the check does not fit the registry: %', sqlerrm using errcode = 'HF003';
end
$$;
comment on function backup.add_check(text, text, text, text, text, text) is 'Registers a check of the verification.';
revoke all on function backup.add_check(text, text, text, text, text, text) from public;

-- Asking -------------------------------------------------------------------------------------------------------------

-- A run that makes the checks of a cadence, or the one under way, which makes these too. No run in a copy. HF003.
create function backup.request_checks(cadence text, origin text, out run uuid, out joined boolean)
language plpgsql
volatile
set search_path = ''
as $$
begin
  joined := false;
  if request_checks.cadence is null or request_checks.cadence not in ('daily', 'weekly') then
    raise exception 'checks are made daily or weekly' using errcode = 'HF003';
  end if;
  if not backup.is_original() then
    return;
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:checks', 0));
  select r.id into run from backup.runs as r
  where r.kind = 'verify' and r.subject_run is null and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
  for no key update;
  joined := run is not null;
  if joined then
    update backup.tasks as t
    set detail = pg_catalog.jsonb_set(t.detail, '{cadences}', t.detail -> 'cadences' || pg_catalog.to_jsonb(request_checks.cadence))
    where t.run_id = run and not t.detail -> 'cadences' ? request_checks.cadence;
    return;
  end if;
  insert into backup.runs as r (kind, origin, concurrency) values ('verify', request_checks.origin, 1) returning r.id into run;
  insert into backup.tasks (run_id, kind, detail)
  values (run, 'verify', pg_catalog.jsonb_build_object('cadences', pg_catalog.jsonb_build_array(request_checks.cadence)));
  perform backup.audit('run.requested', 'run:' || run, pg_catalog.jsonb_build_object(
    'kind', 'verify', 'cadence', request_checks.cadence, 'origin', request_checks.origin
  ));
end
$$;
revoke all on function backup.request_checks(text, text) from public;

create function backup.start_checks(cadence text, out run uuid, out joined boolean, out status text, out message text)
language plpgsql
volatile
set search_path = ''
as $$
begin
  select c.run, c.joined into start_checks.run, start_checks.joined
  from backup.request_checks(start_checks.cadence, 'dashboard') as c;
  if run is null then
    message := 'this database is a copy, or may be one: the original is verified where it is';
    return;
  end if;
  perform backup.launch_run(run);
  select
    r.status,
    case
      when r.status = 'failed' then pg_catalog.concat_ws(' ', r.error_message || '.', r.hint)
      else 'started; look at public.backup_checks'
    end
  into start_checks.status, start_checks.message
  from backup.runs as r where r.id = run;
end
$$;
comment on function backup.start_checks(text) is 'Makes the daily or the weekly checks now.';
revoke all on function backup.start_checks(text) from public;

-- What the cron jobs call. The newest backup is verified whole besides, where nobody has. Without address and secret in Vault nothing
-- is called; `holdfast checks run` does it then.
create function backup.call_checks(cadence text) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not backup.is_original() then
    return null;
  end if;
  perform backup.verify_newest();
  return backup.invoke('verify', pg_catalog.jsonb_build_object('action', 'check', 'cadence', call_checks.cadence));
exception
  when sqlstate 'HF002' then
    return null;
end
$$;
revoke all on function backup.call_checks(text) from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_checks with (security_invoker = true) as
select c.name, c.cadence, c.proves, c.outcome, c.message, c.evidence, c.checked_at, c.run_id
from backup.checks as c
order by c.place;
comment on view public.backup_checks is
  'Holdfast: each check of the verification with its newest result. Administrators with a second factor only.';

create view public.backup_check_results with (security_invoker = true) as
select o.id, o.check_name, o.run_id, o.outcome, o.message, o.evidence, o.checked_at
from backup.check_results as o;
comment on view public.backup_check_results is
  'Holdfast: what each check has found, run by run. Administrators with a second factor only.';
revoke all on table public.backup_checks, public.backup_check_results from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_checks, public.backup_check_results from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_checks on backup.checks
    for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_check_results on backup.check_results
    for select to authenticated using ((select backup.is_admin()));
  grant select (name, cadence, proves, place, outcome, message, evidence, checked_at, run_id) on backup.checks to authenticated;
  grant select (id, run_id, check_name, outcome, message, evidence, checked_at) on backup.check_results to authenticated;
  grant select on table public.backup_checks, public.backup_check_results to authenticated;
end
$$;
