-- Tasks: what one leg of a run can finish, under a lease. A lease has a fencing token: whoever comes with an older one
-- gets HF413 (lease_lost) and has changed nothing. Lock order: as in 0400.

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
  constraint kind_is_known check (kind in ('plan', 'chunks', 'counts', 'look', 'files', 'manifest', 'verify', 'replicate', 'prune', 'drill')),
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

alter table backup.tasks enable row level security;
revoke all on table backup.tasks from public;

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

-- Tasks of a stage are done once all of the stages before are: the plan; what is read in the snapshot; files; the manifest.
create function backup.task_stage(kind text) returns integer
language sql
immutable
set search_path = ''
as $$
  select case kind when 'plan' then 0 when 'files' then 2 when 'manifest' then 3 else 1 end
$$;
revoke all on function backup.task_stage(text) from public;

-- The next task that can be done now, leased; no row when there is none. Its `token` has to come with every later call.
-- Order: by stage, then by kind. A lease that ran out is given again; after the fifth try the run is failed.
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
    and backup.task_stage(t.kind) = (
      select min(backup.task_stage(other.kind)) from backup.tasks as other
      where other.run_id = run_row.id and other.attempt in (0, run_row.attempt) and other.status in ('open', 'leased', 'failed')
    )
  order by
    pg_catalog.array_position(
      array['plan', 'chunks', 'counts', 'look', 'files', 'manifest', 'verify', 'replicate', 'prune', 'drill'], t.kind
    ), t.id
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
  -- what it names may have been about to be swept
  perform backup.rescue_objects(array(
    select c.object from pg_catalog.jsonb_to_recordset(coalesce(result -> 'chunks', '[]')) as c (object text)
    union
    select o.name from pg_catalog.jsonb_to_recordset(coalesce(result -> 'objects', '[]')) as o (name text)
  ));
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

-- Gives the task back. `error` is {code, message, hint, retry}. Retry never and after_fix fail the run at once, as does
-- the fifth try; backoff waits 1, 4, 9 … seconds. A lost keeper, a changed catalog and another
-- place to write to begin a new attempt.
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
  perform backup.note_store_failure(return_task.error);
  if return_task.error ->> 'code' in ('keeper_lost', 'catalog_changed', 'place_changed') then
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
