-- Runs, their tasks under leases, and what they leave behind. Every change of a state is one of the functions below.
-- A lease has a fencing token: whoever comes with an older one gets HF413 (lease_lost) and has changed nothing.
-- Lock order: backup.schedules → backup.runs → backup.tasks → backup.run_tables → backup.chunks → backup.objects.
-- src/shared/jobs/states.ts says for each state who sets it, whether it is durable, and what a crash does in it.

-- Runs ---------------------------------------------------------------------------------------------------------------

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
    'queued', 'snapshotting', 'copying', 'finishing', 'succeeded', 'quarantined', 'failed', 'cancelled'
  )),
  constraint origin_is_known check (origin in ('schedule', 'cli', 'dashboard', 'http')),
  constraint attempts_are_at_most_five check (attempt between 0 and 5),
  constraint concurrency_is_sensible check (concurrency between 1 and 64),
  constraint ended_run_says_when check (
    (status in ('succeeded', 'quarantined', 'failed', 'cancelled')) = (finished_at is not null)
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

-- The snapshots of a run. Take-over compares with them, so they stay as long as the run.
create table backup.attempts (
  run_id uuid not null references backup.runs (id) on delete cascade,
  attempt integer not null,
  snapshot text not null,
  wal_lsn pg_lsn not null,
  consistent_at timestamptz not null,
  server_version integer not null,
  fingerprint text not null,
  primary key (run_id, attempt)
);
comment on table backup.attempts is 'The snapshot of each attempt of a run.';

-- Tasks --------------------------------------------------------------------------------------------------------------

create table backup.tasks (
  id bigint generated always as identity primary key,
  run_id uuid not null references backup.runs (id) on delete cascade,
  -- 0 for the task that begins attempts
  attempt integer not null default 0,
  kind text not null,
  status text not null default 'open',
  detail jsonb not null default '{}',
  estimated_bytes bigint not null default 0,
  token bigint not null default 0,
  tries integer not null default 0,
  worker text,
  lease_until timestamptz,
  not_before timestamptz,
  result jsonb,
  error jsonb,
  done_at timestamptz,
  constraint kind_is_known check (kind in ('plan', 'chunks', 'counts', 'manifest', 'verify')),
  constraint status_is_known check (status in ('open', 'leased', 'done', 'failed', 'void')),
  constraint leased_task_has_a_worker_and_an_end check (
    status <> 'leased' or (worker is not null and lease_until is not null)
  ),
  constraint done_task_says_when check ((status = 'done') = (done_at is not null)),
  constraint tries_are_at_most_five check (tries between 0 and 5)
);
comment on table backup.tasks is 'What one leg can finish, under a lease with a fencing token.';
create index tasks_claimable on backup.tasks (run_id, kind, id) where status in ('open', 'leased');
create index tasks_by_run on backup.tasks (run_id);

-- The tables of an attempt as its snapshot shows them.
create table backup.run_tables (
  run_id uuid not null references backup.runs (id) on delete cascade,
  table_oid oid not null,
  schema_name text not null,
  table_name text not null,
  relfilenode oid not null,
  columns jsonb not null,
  fingerprint text not null,
  data_owner text not null,
  -- condition that an extension puts on the rows that are the user's
  row_filter text,
  -- counters of pg_stat_all_tables, to tell a cause for a table that shrank
  statistics jsonb not null default '{}',
  counted_rows bigint,
  primary key (run_id, table_oid)
);
comment on table backup.run_tables is 'What a run reads: tables with their columns, and their exact counts.';

-- What a run leaves behind -------------------------------------------------------------------------------------------

-- One object of one kind under one name; a row says that it was put and read back, not that it is still there.
create table backup.objects (
  name text primary key,
  kind text not null,
  raw_bytes bigint not null,
  stored_bytes bigint not null,
  hash text not null,
  stored_hash text not null,
  epoch text,
  first_run uuid,
  recorded_at timestamptz not null default backup.clock_now(),
  constraint kind_is_known check (kind in ('chunk', 'schema', 'manifest'))
);
comment on table backup.objects is 'Objects that were put and read back.';

-- Chunks of every run; those of a succeeded run's last attempt make the backup. A range is [from, to) in (block, item).
create table backup.chunks (
  id bigint generated always as identity primary key,
  run_id uuid not null references backup.runs (id) on delete cascade,
  attempt integer not null,
  table_oid oid not null,
  schema_name text not null,
  table_name text not null,
  relfilenode oid not null,
  fingerprint text not null,
  from_block bigint not null,
  from_item integer not null default 0,
  -- null: no upper end
  to_block bigint,
  to_item integer not null default 0,
  rows bigint not null,
  raw_bytes bigint not null,
  stored_bytes bigint not null,
  object text not null,
  hash text not null,
  stored_hash text not null,
  -- the backup whose chunk this is, taken over without reading the range again
  taken_from uuid,
  constraint chunk_holds_rows check (rows > 0),
  constraint range_goes_forward check (to_block is null or (to_block, to_item) > (from_block, from_item))
);
comment on table backup.chunks is 'Which object holds which range of which table in which run.';
create unique index chunks_each_range_once on backup.chunks (run_id, attempt, table_oid, from_block, from_item);
create index chunks_by_object on backup.chunks (object);

alter table backup.runs enable row level security;
alter table backup.run_requests enable row level security;
alter table backup.attempts enable row level security;
alter table backup.tasks enable row level security;
alter table backup.run_tables enable row level security;
alter table backup.objects enable row level security;
alter table backup.chunks enable row level security;
revoke all on table backup.runs, backup.run_requests, backup.attempts, backup.tasks, backup.run_tables,
  backup.objects, backup.chunks from public;

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

-- Leases -------------------------------------------------------------------------------------------------------------

-- The task, once the run's row and its own are locked and the token is the present one; else HF413 (lease_lost).
create function backup.leased_task(task bigint, token bigint) returns backup.tasks
language plpgsql
volatile
set search_path = ''
as $$
declare
  found_task backup.tasks;
  run_status text;
  run_attempt integer;
begin
  select r.status, r.attempt into run_status, run_attempt
  from backup.runs as r
  where r.id = (select t.run_id from backup.tasks as t where t.id = leased_task.task)
  for no key update;
  select t.* into found_task from backup.tasks as t where t.id = leased_task.task for update;
  if found_task.id is null or found_task.status <> 'leased' or found_task.token <> leased_task.token
    or run_status not in ('queued', 'snapshotting', 'copying', 'finishing')
    or found_task.attempt not in (0, run_attempt)
  then
    raise exception 'task % is no longer ours', leased_task.task using errcode = 'HF413';
  end if;
  return found_task;
end
$$;
revoke all on function backup.leased_task(bigint, bigint) from public;

-- The next task that can be done now, leased; no row when there is none. Its `token` has to come with every later call.
-- Order: plan, chunks, counts; the manifest once all others are done. A lease that ran out is given again; after
-- the fifth try the run is failed.
create function backup.claim_task(run uuid, worker text, lease interval) returns setof backup.tasks
language plpgsql
volatile
set search_path = ''
as $$
declare
  run_row backup.runs;
  candidate backup.tasks;
  moment timestamptz := backup.clock_now();
begin
  select r.* into run_row from backup.runs as r where r.id = claim_task.run for no key update;
  if run_row.id is null then
    raise exception 'there is no run %', claim_task.run using errcode = 'HF414';
  end if;
  if run_row.status not in ('queued', 'snapshotting', 'copying', 'finishing') then
    return;
  end if;
  select t.* into candidate
  from backup.tasks as t
  where t.run_id = run_row.id
    and t.attempt in (0, run_row.attempt)
    and (t.status = 'open' or (t.status = 'leased' and t.lease_until < moment))
    and (t.not_before is null or t.not_before <= moment)
    and (
      t.kind <> 'manifest' or not exists (
        select from backup.tasks as other
        where other.run_id = run_row.id and other.attempt in (0, run_row.attempt) and other.kind <> 'manifest'
          and other.status in ('open', 'leased', 'failed')
      )
    )
  order by pg_catalog.array_position(array['plan', 'chunks', 'counts', 'manifest', 'verify'], t.kind), t.id
  limit 1
  for update skip locked;
  if candidate.id is null then
    return;
  end if;
  if candidate.tries >= 5 then
    perform backup.fail_run(
      run_row.id, coalesce(candidate.error ->> 'code', 'internal'),
      coalesce(
        candidate.error ->> 'message',
        pg_catalog.format('task %s (%s) was begun five times and never ended', candidate.id, candidate.kind)
      ),
      candidate.error ->> 'hint'
    );
    return;
  end if;
  update backup.runs as r
  set heartbeat_at = moment,
    started_at = coalesce(r.started_at, moment),
    status = case when candidate.kind = 'manifest' then 'finishing' when r.status = 'queued' then 'snapshotting' else r.status end
  where r.id = run_row.id;
  return query
    update backup.tasks as t
    set status = 'leased', worker = claim_task.worker, lease_until = moment + claim_task.lease,
      token = t.token + 1, tries = t.tries + 1
    where t.id = candidate.id
    returning t.*;
end
$$;
revoke all on function backup.claim_task(uuid, text, interval) from public;

-- Before the lease runs out. HF413 when it is lost.
create function backup.renew_lease(task bigint, token bigint, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
begin
  update backup.tasks as t set lease_until = moment + renew_lease.lease where t.id = ours.id;
  update backup.runs as r set heartbeat_at = moment where r.id = ours.run_id;
end
$$;
revoke all on function backup.renew_lease(bigint, bigint, interval) from public;

-- The task's end. `result` of kind chunks: {chunks: [...], objects: [...], rest: [{detail, estimated_bytes}]}, where
-- `rest` is what a leg had no room for and becomes tasks of its own; of counts: {counts: [{oid, rows}]},
-- objects: [...] as for record_objects.
create function backup.complete_task(task bigint, token bigint, result jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
  new_bytes bigint;
  rest_bytes bigint := (
    select coalesce(sum(x.estimated_bytes), 0)
    from pg_catalog.jsonb_to_recordset(coalesce(result -> 'rest', '[]')) as x (estimated_bytes bigint)
  );
  rest_tasks integer;
begin
  update backup.run_tables as t
  set counted_rows = coalesce(t.counted_rows, 0) + c.rows
  from (
    select x.oid, sum(x.rows)::bigint as rows
    from pg_catalog.jsonb_to_recordset(coalesce(result -> 'counts', '[]')) as x (oid oid, rows bigint)
    group by x.oid
  ) as c
  where t.run_id = ours.run_id and t.table_oid = c.oid;
  insert into backup.chunks (
    run_id, attempt, table_oid, schema_name, table_name, relfilenode, fingerprint,
    from_block, from_item, to_block, to_item, rows, raw_bytes, stored_bytes, object, hash, stored_hash, taken_from
  )
  select
    ours.run_id, ours.attempt, t.table_oid, t.schema_name, t.table_name, t.relfilenode, t.fingerprint,
    c.from_block, c.from_item, c.to_block, c.to_item, c.rows, c.raw_bytes, c.stored_bytes, c.object, c.hash,
    c.stored_hash, c.taken_from
  from pg_catalog.jsonb_to_recordset(coalesce(result -> 'chunks', '[]')) as c (
    oid oid, from_block bigint, from_item integer, to_block bigint, to_item integer, rows bigint, raw_bytes bigint,
    stored_bytes bigint, object text, hash text, stored_hash text, taken_from uuid
  )
  join backup.run_tables as t on t.run_id = ours.run_id and t.table_oid = c.oid;
  new_bytes := backup.record_objects(ours.run_id, coalesce(result -> 'objects', '[]'));
  insert into backup.tasks (run_id, attempt, kind, detail, estimated_bytes)
  select ours.run_id, ours.attempt, ours.kind, r.detail, coalesce(r.estimated_bytes, 0)
  from pg_catalog.jsonb_to_recordset(coalesce(result -> 'rest', '[]')) as r (detail jsonb, estimated_bytes bigint);
  get diagnostics rest_tasks = row_count;
  update backup.tasks as t
  set status = 'done', done_at = moment, lease_until = null, error = null,
    result = complete_task.result - 'chunks' - 'counts' - 'objects' - 'rest'
  where t.id = ours.id;
  update backup.runs as r
  set heartbeat_at = moment,
    tasks_done = r.tasks_done + 1,
    tasks_total = r.tasks_total + rest_tasks,
    bytes_done = r.bytes_done + greatest(ours.estimated_bytes - rest_bytes, 0),
    new_stored_bytes = r.new_stored_bytes + new_bytes,
    rows = r.rows + c.rows, raw_bytes = r.raw_bytes + c.raw_bytes, stored_bytes = r.stored_bytes + c.stored_bytes
  from (
    select
      coalesce(sum(x.rows), 0)::bigint as rows, coalesce(sum(x.raw_bytes), 0)::bigint as raw_bytes,
      coalesce(sum(x.stored_bytes), 0)::bigint as stored_bytes
    from pg_catalog.jsonb_to_recordset(coalesce(result -> 'chunks', '[]'))
      as x (rows bigint, raw_bytes bigint, stored_bytes bigint)
  ) as c
  where r.id = ours.run_id;
end
$$;
revoke all on function backup.complete_task(bigint, bigint, jsonb) from public;

-- Records objects that were put and read back; returns the stored bytes of those that were not there before.
create function backup.record_objects(run uuid, objects jsonb) returns bigint
language sql
volatile
set search_path = ''
as $$
  with given as (
    select distinct on (o.name) o.*
    from pg_catalog.jsonb_to_recordset(record_objects.objects) as o (
      name text, kind text, raw_bytes bigint, stored_bytes bigint, hash text, stored_hash text, epoch text, created boolean
    )
    order by o.name
  ),
  recorded as (
    insert into backup.objects as o (name, kind, raw_bytes, stored_bytes, hash, stored_hash, epoch, first_run)
    select g.name, g.kind, g.raw_bytes, g.stored_bytes, g.hash, g.stored_hash, g.epoch, record_objects.run
    from given as g
    -- put again after its sweep, with another seal
    on conflict (name) do update
      set stored_bytes = excluded.stored_bytes, stored_hash = excluded.stored_hash, recorded_at = backup.clock_now()
  )
  select coalesce(sum(g.stored_bytes) filter (where g.created), 0)::bigint from given as g
$$;
revoke all on function backup.record_objects(uuid, jsonb) from public;

-- Gives the task back. `error` is {code, message, hint, retry}. Retry never and after_fix fail the run at once, as does
-- the fifth try; backoff waits 1, 4, 9 … seconds. A lost keeper and a changed catalog begin a new attempt.
create function backup.return_task(task bigint, token bigint, error jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
begin
  update backup.tasks as t
  set status = 'open', worker = null, lease_until = null, error = return_task.error,
    not_before = case when return_task.error is null then null else moment + ours.tries * ours.tries * interval '1 second' end,
    -- a leg that only ran out of its budget is not a try
    tries = case when return_task.error is null then greatest(t.tries - 1, 0) else t.tries end
  where t.id = ours.id;
  update backup.runs as r set heartbeat_at = moment where r.id = ours.run_id;
  if return_task.error is null then
    return;
  end if;
  if return_task.error ->> 'code' in ('keeper_lost', 'catalog_changed') then
    perform backup.start_over(ours.run_id, return_task.error);
  elsif return_task.error ->> 'retry' <> 'backoff' or ours.tries >= 5 then
    update backup.tasks as t set status = 'failed' where t.id = ours.id;
    perform backup.fail_run(
      ours.run_id, return_task.error ->> 'code', return_task.error ->> 'message', return_task.error ->> 'hint'
    );
  end if;
end
$$;
revoke all on function backup.return_task(bigint, bigint, jsonb) from public;

-- Attempts -----------------------------------------------------------------------------------------------------------

-- The snapshot of the present attempt is gone or useless: its tasks are void and the plan is open again. After the fifth
-- attempt the run fails with `error`. The caller holds the run's row.
create function backup.start_over(run uuid, error jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run_attempt integer;
begin
  select r.attempt into run_attempt from backup.runs as r where r.id = start_over.run for no key update;
  perform backup.end_keeper(start_over.run);
  if run_attempt >= 5 then
    perform backup.fail_run(start_over.run, error ->> 'code', error ->> 'message', error ->> 'hint');
    return;
  end if;
  update backup.tasks as t
  set status = 'void', worker = null, lease_until = null, done_at = null
  where t.run_id = start_over.run and t.attempt > 0 and t.status <> 'void';
  update backup.tasks as t
  set status = 'open', worker = null, lease_until = null, done_at = null, not_before = null,
    error = start_over.error, tries = 0
  where t.run_id = start_over.run and t.kind = 'plan';
  update backup.runs as r
  set status = 'snapshotting', snapshot_name = null
  where r.id = start_over.run;
  perform backup.audit('run.started_over', 'run:' || start_over.run, pg_catalog.jsonb_build_object(
    'attempt', run_attempt, 'code', error ->> 'code'
  ));
end
$$;
revoke all on function backup.start_over(uuid, jsonb) from public;

-- A new attempt under the plan task's lease: tasks of the older ones are void, their keeper is ended. Returns its number.
create function backup.begin_attempt(run uuid, task bigint, token bigint) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  next_attempt integer;
begin
  if ours.run_id <> begin_attempt.run or ours.kind <> 'plan' then
    raise exception 'an attempt begins with the plan of its run' using errcode = 'HF415';
  end if;
  perform backup.end_keeper(ours.run_id);
  update backup.tasks as t
  set status = 'void', worker = null, lease_until = null, done_at = null
  where t.run_id = ours.run_id and t.attempt > 0 and t.status <> 'void';
  update backup.runs as r
  set attempt = r.attempt + 1, status = 'snapshotting', heartbeat_at = backup.clock_now(),
    consistent_at = null, snapshot = null, snapshot_name = null, wal_lsn = null,
    keeper_pid = null, keeper_started_at = null, keeper_until = null, fingerprint = null,
    tables = null, rows = 0, raw_bytes = 0, stored_bytes = 0, tasks_total = 0, tasks_done = 0,
    bytes_total = null, bytes_done = 0, warnings = '[]'
  where r.id = ours.run_id and r.attempt < 5
  returning r.attempt into next_attempt;
  if next_attempt is null then
    raise exception 'run % has used its five attempts', ours.run_id using errcode = 'HF412';
  end if;
  return next_attempt;
end
$$;
revoke all on function backup.begin_attempt(uuid, bigint, bigint) from public;

-- What the keeper holds. `facts`: {snapshot_name, snapshot, wal_lsn, consistent_at, keeper_pid, keeper_started_at,
-- keeper_until, fingerprint, server_version}.
create function backup.record_snapshot(run uuid, task bigint, token bigint, facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  run_attempt integer;
begin
  if ours.run_id <> record_snapshot.run or ours.kind <> 'plan' then
    raise exception 'a snapshot belongs to the plan of its run' using errcode = 'HF415';
  end if;
  update backup.runs as r
  set snapshot_name = facts ->> 'snapshot_name', snapshot = facts ->> 'snapshot',
    wal_lsn = (facts ->> 'wal_lsn')::pg_lsn, consistent_at = (facts ->> 'consistent_at')::timestamptz,
    keeper_pid = (facts ->> 'keeper_pid')::integer, keeper_started_at = (facts ->> 'keeper_started_at')::timestamptz,
    keeper_until = (facts ->> 'keeper_until')::timestamptz, fingerprint = facts ->> 'fingerprint',
    chain_id = (
      select c.id from backup.chains as c
      where c.ended_at is null and c.started_at < (facts ->> 'consistent_at')::timestamptz
    ),
    heartbeat_at = backup.clock_now()
  where r.id = ours.run_id
  returning r.attempt into run_attempt;
  insert into backup.attempts (run_id, attempt, snapshot, wal_lsn, consistent_at, server_version, fingerprint)
  values (
    ours.run_id, run_attempt, facts ->> 'snapshot', (facts ->> 'wal_lsn')::pg_lsn,
    (facts ->> 'consistent_at')::timestamptz, (facts ->> 'server_version')::integer, facts ->> 'fingerprint'
  );
end
$$;
revoke all on function backup.record_snapshot(uuid, bigint, bigint, jsonb) from public;

-- The plan of the present attempt, and its end: the run goes on to copying. `plan`: {tables: [...], tasks: [{kind,
-- detail, estimated_bytes}], base_run, epoch, bytes_total, warnings}.
create function backup.add_tasks(run uuid, task bigint, token bigint, plan jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
  run_attempt integer := (select r.attempt from backup.runs as r where r.id = ours.run_id);
begin
  if ours.run_id <> add_tasks.run or ours.kind <> 'plan' then
    raise exception 'tasks come with the plan of their run' using errcode = 'HF415';
  end if;
  delete from backup.run_tables as t where t.run_id = ours.run_id;
  insert into backup.run_tables (
    run_id, table_oid, schema_name, table_name, relfilenode, columns, fingerprint, data_owner, row_filter, statistics
  )
  select
    ours.run_id, t.oid, t.schema, t.name, t.relfilenode, t.columns, t.fingerprint, t.data_owner, t.row_filter,
    coalesce(t.statistics, '{}')
  from pg_catalog.jsonb_to_recordset(plan -> 'tables') as t (
    oid oid, schema text, name text, relfilenode oid, columns jsonb, fingerprint text, data_owner text,
    row_filter text, statistics jsonb
  );
  insert into backup.tasks (run_id, attempt, kind, detail, estimated_bytes)
  select ours.run_id, run_attempt, t.kind, coalesce(t.detail, '{}'), coalesce(t.estimated_bytes, 0)
  from rows from (
    pg_catalog.jsonb_to_recordset(plan -> 'tasks') as (kind text, detail jsonb, estimated_bytes bigint)
  ) with ordinality as t (kind, detail, estimated_bytes, place)
  order by t.place;
  update backup.tasks as t
  set status = 'done', done_at = moment, lease_until = null, error = null
  where t.id = ours.id;
  update backup.runs as r
  set status = 'copying', heartbeat_at = moment,
    base_run = (plan ->> 'base_run')::uuid,
    epoch = plan ->> 'epoch',
    bytes_total = (plan ->> 'bytes_total')::bigint,
    warnings = coalesce(plan -> 'warnings', '[]'),
    tables = pg_catalog.jsonb_array_length(plan -> 'tables'),
    tasks_total = pg_catalog.jsonb_array_length(plan -> 'tasks')
  where r.id = ours.run_id;
end
$$;
revoke all on function backup.add_tasks(uuid, bigint, bigint, jsonb) from public;

-- Ends ---------------------------------------------------------------------------------------------------------------

-- The manifest is in the store and was read back. `manifest`: {name, hash, generation, epoch, totals: {rows, raw_bytes,
-- stored_bytes}, objects: [...], warnings, quarantine_reason}. HF411 (counts_differ) when what was read is not what was
-- counted: then nothing is a success.
create function backup.finish_run(run uuid, task bigint, token bigint, manifest jsonb) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
  reason text := manifest ->> 'quarantine_reason';
  differing text;
  new_bytes bigint;
  new_status text;
begin
  if ours.run_id <> finish_run.run or ours.kind <> 'manifest' then
    raise exception 'a run ends with its manifest' using errcode = 'HF415';
  end if;
  select pg_catalog.string_agg(pg_catalog.format('%I.%I', t.schema_name, t.table_name), ', ') into differing
  from backup.run_tables as t
  left join lateral (
    select sum(c.rows) as rows from backup.chunks as c
    where c.run_id = t.run_id and c.attempt = ours.attempt and c.table_oid = t.table_oid
  ) as c on true
  where t.run_id = ours.run_id and t.counted_rows is distinct from coalesce(c.rows, 0);
  if differing is not null then
    raise exception 'rows read differ from rows counted: %', pg_catalog.left(differing, 500) using errcode = 'HF411';
  end if;
  new_bytes := backup.record_objects(ours.run_id, coalesce(manifest -> 'objects', '[]'));
  delete from backup.chunks as c where c.run_id = ours.run_id and c.attempt < ours.attempt;
  update backup.tasks as t set status = 'done', done_at = moment, lease_until = null, error = null where t.id = ours.id;
  update backup.runs as r
  set status = case when reason is null then 'succeeded' else 'quarantined' end,
    quarantine_reason = reason,
    finished_at = greatest(moment, r.started_at), heartbeat_at = moment, tasks_done = r.tasks_done + 1,
    manifest_name = manifest ->> 'name', manifest_hash = manifest ->> 'hash',
    generation = (manifest ->> 'generation')::bigint, epoch = manifest ->> 'epoch',
    rows = coalesce((manifest #>> '{totals,rows}')::bigint, r.rows),
    raw_bytes = coalesce((manifest #>> '{totals,raw_bytes}')::bigint, r.raw_bytes),
    stored_bytes = coalesce((manifest #>> '{totals,stored_bytes}')::bigint, r.stored_bytes),
    new_stored_bytes = r.new_stored_bytes + new_bytes,
    warnings = coalesce(manifest -> 'warnings', r.warnings),
    -- one store is configured: it holds everything
    complete_at = case when (manifest ->> 'stores_pending')::boolean then null else moment end,
    error_code = null, error_message = null, hint = null
  where r.id = ours.run_id
  returning r.status into new_status;
  perform backup.end_keeper(ours.run_id);
  delete from backup.tasks as t where t.run_id = ours.run_id and t.status = 'void';
  if new_status = 'quarantined' then
    perform backup.raise_alert('backup_quarantined', 'run:' || ours.run_id, reason);
  else
    perform backup.resolve_alert('backup_failed', 'kind:full');
  end if;
  perform backup.audit('run.' || new_status, 'run:' || ours.run_id, pg_catalog.jsonb_build_object(
    'manifest', manifest ->> 'name', 'attempt', ours.attempt
  ));
  return new_status;
end
$$;
revoke all on function backup.finish_run(uuid, bigint, bigint, jsonb) from public;

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
  perform backup.raise_alert(
    'backup_failed', 'kind:' || run_kind,
    pg_catalog.format('run %s failed: %s (%s)', fail_run.run, fail_run.message, fail_run.code)
  );
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
  perform backup.audit('run.cancelled', 'run:' || cancel_run.run, '{}');
end
$$;
revoke all on function backup.cancel_run(uuid) from public;

-- Nobody works on an ended run: its workers' tokens are void.
create function backup.void_tasks(run uuid) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.tasks as t
  set status = 'void', worker = null, lease_until = null, done_at = null
  where t.run_id = void_tasks.run and t.status in ('open', 'leased')
$$;
revoke all on function backup.void_tasks(uuid) from public;

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

-- What a person does with a backup -----------------------------------------------------------------------------------

-- A quarantined run was looked at and is a good backup: it counts from now on. HF414, HF415.
create function backup.accept_run(run uuid, reason text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if coalesce(pg_catalog.btrim(reason), '') = '' then
    raise exception 'accepting a backup needs a reason' using errcode = 'HF003';
  end if;
  update backup.runs as r
  set status = 'succeeded', accepted_at = backup.clock_now(), accepted_by = session_user, accepted_reason = accept_run.reason
  where r.id = accept_run.run and r.status = 'quarantined';
  if not found then
    perform backup.raise_no_such_run(accept_run.run, 'quarantined');
  end if;
  perform backup.resolve_alert('backup_quarantined', 'run:' || accept_run.run);
  -- a failure before it is made good by it; one after it is not
  if not exists (
    select
    from backup.runs as accepted
    join backup.runs as later on later.kind = 'full' and later.status = 'failed' and later.created_at > accepted.created_at
    where accepted.id = accept_run.run
  ) then
    perform backup.resolve_alert('backup_failed', 'kind:full');
  end if;
  perform backup.audit('run.accepted', 'run:' || accept_run.run, pg_catalog.jsonb_build_object('reason', accept_run.reason));
end
$$;
revoke all on function backup.accept_run(uuid, text) from public;

-- Keeps a backup from retention until a moment, whatever its tiers say. HF414, HF415.
create function backup.hold_backup(id uuid, reason text, until timestamptz) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if coalesce(pg_catalog.btrim(reason), '') = '' or until is null then
    raise exception 'a hold needs a reason and an end' using errcode = 'HF003';
  end if;
  update backup.runs as r
  set hold_until = hold_backup.until, hold_reason = hold_backup.reason
  where r.id = hold_backup.id and r.kind = 'full' and r.status in ('succeeded', 'quarantined');
  if not found then
    perform backup.raise_no_such_run(hold_backup.id, 'a backup');
  end if;
  perform backup.audit('backup.held', 'run:' || hold_backup.id, pg_catalog.jsonb_build_object(
    'reason', hold_backup.reason, 'until', hold_backup.until
  ));
end
$$;
revoke all on function backup.hold_backup(uuid, text, timestamptz) from public;

create function backup.release_hold(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.runs as r
  set hold_until = null, hold_reason = null
  where r.id = release_hold.id and r.hold_until is not null;
  if not found then
    perform backup.raise_no_such_run(release_hold.id, 'on hold');
  end if;
  perform backup.audit('backup.released', 'run:' || release_hold.id, '{}');
end
$$;
revoke all on function backup.release_hold(uuid) from public;

-- The outcome of verifying a backup: `problems` is empty for a sound one. A damaged one raises an alert.
create function backup.record_verification(run uuid, problems jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  sound boolean := pg_catalog.jsonb_array_length(problems) = 0;
begin
  update backup.runs as r
  set verified_at = case when sound then backup.clock_now() end
  where r.id = record_verification.run and r.kind = 'full' and r.status in ('succeeded', 'quarantined');
  if not found then
    perform backup.raise_no_such_run(record_verification.run, 'a backup');
  end if;
  if sound then
    perform backup.resolve_alert('backup_damaged', 'run:' || record_verification.run);
  else
    perform backup.raise_alert(
      'backup_damaged', 'run:' || record_verification.run,
      pg_catalog.format('verifying found %s problems', pg_catalog.jsonb_array_length(problems))
    );
  end if;
  perform backup.audit(
    case when sound then 'backup.verified' else 'backup.damaged' end, 'run:' || record_verification.run,
    pg_catalog.jsonb_build_object('problems', pg_catalog.jsonb_array_length(problems))
  );
end
$$;
revoke all on function backup.record_verification(uuid, jsonb) from public;
