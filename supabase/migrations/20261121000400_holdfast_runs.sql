-- Runs: how one is asked for, and the ends that are not the manifest's. What legs do is in the next two files (tasks,
-- attempts), what a run leaves behind in the one after (backups). Every change of a state is one of the functions there.
-- Lock order: backup.schedules → backup.runs → backup.tasks → backup.run_tables → backup.chunks → backup.objects.
-- src/shared/jobs/states.ts says for each state who sets it, whether it is durable, and what a crash does in it.

create table backup.runs (
  id uuid primary key default gen_random_uuid(),
  kind text not null,
  tiers text[] not null default '{}',
  status text not null default 'queued',
  origin text not null,
  request_key text unique,
  -- the backup that a run of another kind is about
  subject_run uuid references backup.runs (id),
  attempt integer not null default 0,
  concurrency integer not null default 2,
  created_at timestamptz not null default backup.clock_now(),
  started_at timestamptz,
  finished_at timestamptz,
  heartbeat_at timestamptz not null default backup.clock_now(),
  -- of the present attempt
  consistent_at timestamptz,
  snapshot text,
  snapshot_name text,
  wal_lsn pg_lsn,
  keeper_pid integer,
  keeper_started_at timestamptz,
  keeper_until timestamptz,
  fingerprint text,
  -- all that is read in the snapshot was read, and the definitions were the same at its end
  settled_at timestamptz,
  base_run uuid references backup.runs (id) on delete set null,
  -- the chain of the change stream that was open when the snapshot was taken, or that an incremental is part of
  chain_id text,
  -- progress, and at the end the totals
  tables integer,
  rows bigint not null default 0,
  raw_bytes bigint not null default 0,
  stored_bytes bigint not null default 0,
  new_stored_bytes bigint not null default 0,
  tasks_total integer not null default 0,
  tasks_done integer not null default 0,
  bytes_total bigint,
  bytes_done bigint not null default 0,
  manifest_name text,
  manifest_hash text,
  generation bigint,
  epoch text,
  -- below which its objects are in the stores; '' is their top
  store_prefix text not null default '',
  error_code text,
  error_message text,
  hint text,
  warnings jsonb not null default '[]',
  quarantine_reason text,
  accepted_at timestamptz,
  accepted_by text,
  accepted_reason text,
  hold_until timestamptz,
  hold_reason text,
  verified_at timestamptz,
  complete_at timestamptz,
  constraint kind_is_known check (kind in (
    'full', 'incremental', 'restore', 'verify', 'drill', 'export', 'prune', 'replicate', 'erase'
  )),
  constraint tiers_are_known check (tiers <@ array['hourly', 'daily', 'weekly', 'manual', 'safety']),
  constraint full_run_has_a_tier check (kind <> 'full' or cardinality(tiers) > 0),
  constraint status_is_known check (status in (
    'queued', 'snapshotting', 'copying', 'finishing', 'succeeded', 'quarantined', 'failed', 'cancelled', 'pruned'
  )),
  constraint origin_is_known check (origin in ('schedule', 'cli', 'dashboard', 'http')),
  constraint attempts_are_at_most_five check (attempt between 0 and 5),
  constraint concurrency_is_sensible check (concurrency between 1 and 64),
  constraint ended_run_says_when check (
    (status in ('succeeded', 'quarantined', 'failed', 'cancelled', 'pruned')) = (finished_at is not null)
  ),
  constraint finished_at_is_after_started_at check (finished_at >= started_at),
  constraint failed_run_says_why check (status <> 'failed' or (error_code is not null and error_message is not null)),
  constraint backup_has_a_manifest check (
    kind <> 'full' or status not in ('succeeded', 'quarantined') or (manifest_name is not null and manifest_hash is not null)
  ),
  constraint quarantined_run_says_why check (status <> 'quarantined' or quarantine_reason is not null),
  constraint accepted_run_says_why check ((accepted_at is null) = (accepted_reason is null)),
  constraint hold_has_a_reason check ((hold_until is null) = (hold_reason is null))
);
comment on table backup.runs is 'One row an execution; a succeeded run of kind full is a backup.';
create unique index runs_one_active_full on backup.runs (kind)
  where kind = 'full' and status in ('queued', 'snapshotting', 'copying', 'finishing');
create index runs_by_kind_and_age on backup.runs (kind, created_at);
create index runs_active on backup.runs (heartbeat_at)
  where status in ('queued', 'snapshotting', 'copying', 'finishing');
create index runs_by_base on backup.runs (base_run);
create index runs_by_subject on backup.runs (subject_run);

-- Every request that a run serves, so that a repeated request finds its run even when it joined another's.
create table backup.run_requests (
  request_key text primary key,
  run_id uuid not null references backup.runs (id) on delete cascade,
  tiers text[] not null,
  origin text not null,
  requested_at timestamptz not null default backup.clock_now()
);
comment on table backup.run_requests is 'Which run serves which request.';
create index run_requests_by_run on backup.run_requests (run_id);

alter table backup.runs enable row level security;
alter table backup.run_requests enable row level security;
revoke all on table backup.runs, backup.run_requests from public;

-- Asking -------------------------------------------------------------------------------------------------------------

-- Inserts a run, or joins the active one of that kind (tiers merged), or finds the run of the same key.
create function backup.request_run(
  kind text, tiers text[], origin text, request_key text, subject_run uuid default null, out run uuid, out joined boolean
)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  for try in 1..10 loop
    select q.run_id into run from backup.run_requests as q where q.request_key = request_run.request_key;
    if run is not null then
      joined := true;
      return;
    end if;
    if request_run.kind = 'full' then
      select r.id into run
      from backup.runs as r
      where r.kind = 'full' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
      for no key update;
    end if;
    joined := run is not null;
    begin
      if joined then
        update backup.runs as r
        set tiers = array(select distinct t.tier from pg_catalog.unnest(r.tiers || request_run.tiers) as t (tier) order by 1)
        where r.id = run;
      else
        insert into backup.runs as r (kind, tiers, origin, request_key, subject_run, concurrency)
        values (
          request_run.kind,
          array(select distinct t.tier from pg_catalog.unnest(request_run.tiers) as t (tier) order by 1),
          request_run.origin, request_run.request_key, request_run.subject_run,
          backup.setting_integer('concurrency')
        )
        returning r.id into run;
        if request_run.kind in ('full', 'verify') then
          insert into backup.tasks (run_id, kind)
          values (run, case request_run.kind when 'full' then 'plan' else 'verify' end);
        end if;
      end if;
      if request_run.request_key is not null then
        insert into backup.run_requests (request_key, run_id, tiers, origin)
        values (request_run.request_key, run, request_run.tiers, request_run.origin);
      end if;
      perform backup.audit(
        case when joined then 'run.joined' else 'run.requested' end, 'run:' || run,
        pg_catalog.jsonb_build_object(
          'kind', request_run.kind, 'tiers', request_run.tiers, 'origin', request_run.origin,
          'key', request_run.request_key
        )
      );
      return;
    exception
      -- somebody else asked at the same moment: look again
      when unique_violation then run := null;
    end;
  end loop;
  raise exception 'the request could not be recorded' using errcode = 'HF999';
end
$$;
revoke all on function backup.request_run(text, text[], text, text, uuid) from public;

-- Ends ---------------------------------------------------------------------------------------------------------------

-- Ends an active run with an error. False when it had ended already.
create function backup.fail_run(run uuid, code text, message text, hint text default null) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  run_kind text;
begin
  update backup.runs as r
  set status = 'failed', error_code = fail_run.code, error_message = fail_run.message, hint = fail_run.hint,
    finished_at = greatest(backup.clock_now(), r.started_at), complete_at = null
  where r.id = fail_run.run and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
  returning r.kind into run_kind;
  if run_kind is null then
    return false;
  end if;
  perform backup.void_tasks(fail_run.run);
  perform backup.end_keeper(fail_run.run);
  perform backup.forget_run_files(fail_run.run);
  perform backup.resolve_alert('leg_failed', 'run:' || fail_run.run);
  if run_kind = 'drill' then
    perform backup.break_drill(fail_run.run, fail_run.code, fail_run.message, fail_run.hint);
  else
    perform backup.raise_alert(
      case run_kind when 'replicate' then 'copies_failed' when 'prune' then 'prune_failed' when 'verify' then 'verification_failed' else 'backup_failed' end, 'kind:' || run_kind,
      pg_catalog.format('run %s failed: %s (%s)', fail_run.run, fail_run.message, fail_run.code)
    );
  end if;
  perform backup.audit('run.failed', 'run:' || fail_run.run, pg_catalog.jsonb_build_object('code', fail_run.code));
  return true;
end
$$;
revoke all on function backup.fail_run(uuid, text, text, text) from public;

-- A person ends an active run. HF414 when there is none of that id, HF415 when it has ended.
create function backup.cancel_run(run uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.runs as r
  set status = 'cancelled', finished_at = greatest(backup.clock_now(), r.started_at)
  where r.id = cancel_run.run and r.status in ('queued', 'snapshotting', 'copying', 'finishing');
  if not found then
    perform backup.raise_no_such_run(cancel_run.run, 'active');
  end if;
  perform backup.void_tasks(cancel_run.run);
  perform backup.end_keeper(cancel_run.run);
  perform backup.forget_run_files(cancel_run.run);
  if exists (select from backup.runs as r where r.id = cancel_run.run and r.kind = 'drill') then
    perform backup.break_drill(cancel_run.run, 'cancelled', 'it was cancelled', null);
  end if;
  perform backup.audit('run.cancelled', 'run:' || cancel_run.run, '{}');
end
$$;
revoke all on function backup.cancel_run(uuid) from public;

create function backup.raise_no_such_run(run uuid, wanted text) returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  found_status text := (select r.status from backup.runs as r where r.id = raise_no_such_run.run);
begin
  if found_status is null then
    raise exception 'there is no run %', raise_no_such_run.run using errcode = 'HF414';
  end if;
  raise exception 'run % is %, not %', raise_no_such_run.run, found_status, wanted using errcode = 'HF415';
end
$$;
revoke all on function backup.raise_no_such_run(uuid, text) from public;
