-- Attempts: one snapshot's life each, what it shows, and the tasks that are planned on it.
-- Lock order: as in 0400.

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

alter table backup.attempts enable row level security;
alter table backup.run_tables enable row level security;
revoke all on table backup.attempts, backup.run_tables from public;

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
  perform backup.forget_run_files(ours.run_id);
  update backup.tasks as t
  set status = 'void', worker = null, lease_until = null, done_at = null
  where t.run_id = ours.run_id and t.attempt > 0 and t.status <> 'void';
  update backup.runs as r
  set attempt = r.attempt + 1, status = 'snapshotting', heartbeat_at = backup.clock_now(),
    consistent_at = null, snapshot = null, snapshot_name = null, wal_lsn = null,
    keeper_pid = null, keeper_started_at = null, keeper_until = null, fingerprint = null, settled_at = null,
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
      select c.id from backup.chains as c join backup.identity as i on i.store_prefix = c.store_prefix
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
-- detail, estimated_bytes}], base_run, epoch, store_prefix, bytes_total, warnings}.
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
  perform backup.rescue_objects(array(
    select t.detail #>> '{schemaObject,record,name}'
    from pg_catalog.jsonb_to_recordset(plan -> 'tasks') as t (kind text, detail jsonb) where t.kind = 'manifest'
  ));
  update backup.tasks as t
  set status = 'done', done_at = moment, lease_until = null, error = null
  where t.id = ours.id;
  update backup.runs as r
  set status = 'copying', heartbeat_at = moment,
    base_run = (plan ->> 'base_run')::uuid,
    epoch = plan ->> 'epoch',
    store_prefix = coalesce(plan ->> 'store_prefix', ''),
    bytes_total = (plan ->> 'bytes_total')::bigint,
    warnings = coalesce(plan -> 'warnings', '[]'),
    tables = pg_catalog.jsonb_array_length(plan -> 'tables'),
    tasks_total = pg_catalog.jsonb_array_length(plan -> 'tasks')
  where r.id = ours.run_id;
end
$$;
revoke all on function backup.add_tasks(uuid, bigint, bigint, jsonb) from public;

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
