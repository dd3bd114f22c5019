-- What a run leaves behind: objects, chunks, the manifest that makes it a backup, and what a person does with that.
-- Lock order: as in 0400.

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

alter table backup.objects enable row level security;
alter table backup.chunks enable row level security;
revoke all on table backup.objects, backup.chunks from public;

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

-- The end of a backup ------------------------------------------------------------------------------------------------

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
  perform backup.rescue_objects(array(
    select o.name from pg_catalog.jsonb_to_recordset(coalesce(manifest -> 'objects', '[]')) as o (name text)
  ));
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
    -- where there is a second store, once that holds everything too
    complete_at = case when backup.has_second_store() and not backup.is_copied(manifest ->> 'name') then null else moment end,
    error_code = null, error_message = null, hint = null
  where r.id = ours.run_id
  returning r.status into new_status;
  perform backup.end_keeper(ours.run_id);
  delete from backup.tasks as t where t.run_id = ours.run_id and t.status = 'void';
  if new_status = 'quarantined' then
    perform backup.raise_alert('backup_quarantined', 'run:' || ours.run_id, reason);
  else
    perform backup.resolve_alert('backup_failed', 'kind:full');
    -- compared with the last good one nothing is lost any more
    perform backup.resolve_alert(a.kind, a.subject)
    from backup.alerts as a where a.kind = 'backup_quarantined' and a.status <> 'resolved';
  end if;
  perform backup.audit('run.' || new_status, 'run:' || ours.run_id, pg_catalog.jsonb_build_object(
    'manifest', manifest ->> 'name', 'attempt', ours.attempt
  ));
  perform backup.ask_for_copies();
  return new_status;
end
$$;
revoke all on function backup.finish_run(uuid, bigint, bigint, jsonb) from public;

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
