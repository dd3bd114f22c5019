-- Files that changed since the last full backup: the drain finds them in the change stream, copies them, and leaves lists of what it
-- copied beside the segments. docs/decisions/0036-files.md says why it is so. Lock order: backup.drain, then as in 150000.

-- Lists of copies that lie beside the segments of a chain. What is in the store counts; this tells which epoch and which copies to look for.
create table backup.file_lists (
  name text primary key,
  chain_id text not null references backup.chains (id) on delete cascade,
  -- where the log was once all that it lists was copied
  lsn pg_lsn not null,
  files integer not null,
  stored_bytes bigint not null,
  stored_hash text not null,
  epoch text not null,
  recorded_at timestamptz not null default backup.clock_now()
);
comment on table backup.file_lists is 'Lists of files that were copied between two full backups.';
create index file_lists_by_chain on backup.file_lists (chain_id, lsn);
alter table backup.file_lists enable row level security;
revoke all on table backup.file_lists from public;

-- With the segment that holds their changes: files by the ids of their rows, as they stand now. A version that is gone by then is
-- nobody's to copy any more.
create function backup.queue_files(ids uuid[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  buckets text[] := (select b.copied from backup.file_buckets() as b);
begin
  if ids = '{}' or buckets is null then
    return;
  end if;
  insert into backup.run_files (run_id, object_id, version, in_snapshot, bucket, name, size, file)
  select backup.queue_id(), p.object_id, p.version, false, p.bucket, p.name, p.size, p.file
  from backup.present_files(ids) as p
  where p.bucket = any (buckets)
  on conflict do nothing;
end
$$;
revoke all on function backup.queue_files(uuid[]) from public;

-- How many files wait to be copied or listed, those that are asked for again included.
create function backup.queued_files() returns bigint
language sql
stable
set search_path = ''
as $$
  select count(*) from backup.run_files as f
  where f.run_id = backup.queue_id() and (
    f.missed is null
    or f.missed = 'unreadable' and f.noted_at not between backup.clock_now() - interval '10 minutes' and backup.clock_now()
  )
$$;
revoke all on function backup.queued_files() from public;

-- As next_files, for the queue. What Storage did not give is asked for again ten minutes later; what was overtaken is known for a
-- minute, so that a file that changes all the time is not followed for ever.
create function backup.next_queued(token bigint, epoch text, most integer)
returns table (object_id uuid, version text, bucket text, name text, size bigint, etag text, parts bigint, done bigint)
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  update backup.run_files as f set missed = null, noted_at = backup.clock_now()
  where f.run_id = backup.queue_id() and f.missed = 'unreadable'
    and f.noted_at not between backup.clock_now() - interval '10 minutes' and backup.clock_now();
  delete from backup.run_files as f
  where f.run_id = backup.queue_id() and f.missed in ('changed', 'removed')
    and f.noted_at not between backup.clock_now() - interval '1 minute' and backup.clock_now();
  return query select n.* from backup.next_versions(backup.queue_id(), next_queued.epoch, '', most) as n;
end
$$;
revoke all on function backup.next_queued(bigint, text, integer) from public;

create function backup.record_queued(token bigint, epoch text, copied jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  perform backup.record_versions(backup.queue_id(), record_queued.epoch, copied);
end
$$;
revoke all on function backup.record_queued(bigint, text, jsonb) from public;

create function backup.next_queued_holds(token bigint, most integer) returns table (object_id uuid, object text)
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  return query select h.* from backup.versions_to_hold(backup.queue_id(), '', most) as h;
end
$$;
revoke all on function backup.next_queued_holds(bigint, integer) from public;

create function backup.record_queued_holds(token bigint, files uuid[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  update backup.run_files as f set held = true
  where f.run_id = backup.queue_id() and f.object_id = any (files) and f.copy is not null;
end
$$;
revoke all on function backup.record_queued_holds(bigint, uuid[]) from public;

-- Some of the files of the queue that were copied, for a list, and where the log was before they were looked at: what is taken out of the
-- queue by somebody whose place in the log comes before is in no list of a later place.
create function backup.queued_to_list(token bigint, most integer)
returns table (
  object_id uuid, in_snapshot boolean, missed text, bucket text, name text, size bigint, file text, parts text, version text, lsn pg_lsn
)
language plpgsql
volatile
set search_path = ''
as $$
declare
  place pg_lsn;
begin
  perform backup.hold_drain(token, interval '90 seconds');
  place := pg_catalog.pg_current_wal_insert_lsn();
  return query
    select l.*, place from backup.versions_to_list(backup.queue_id(), '', most) as l;
end
$$;
revoke all on function backup.queued_to_list(bigint, integer) from public;

-- The list was put and read back: {name, chain_id, lsn, files, stored_bytes, stored_hash, epoch}; `listed`: [{object_id, version}], which
-- leave the queue.
create function backup.record_file_list(token bigint, list jsonb, listed jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  given backup.file_lists := pg_catalog.jsonb_populate_record(null::backup.file_lists, list);
begin
  perform backup.hold_drain(token, interval '90 seconds');
  insert into backup.file_lists (name, chain_id, lsn, files, stored_bytes, stored_hash, epoch)
  values (given.name, given.chain_id, given.lsn, given.files, given.stored_bytes, given.stored_hash, given.epoch)
  on conflict do nothing;
  delete from backup.run_files as f
  using pg_catalog.jsonb_to_recordset(listed) as l (object_id uuid, version text)
  where f.run_id = backup.queue_id() and f.object_id = l.object_id and f.version = l.version;
end
$$;
revoke all on function backup.record_file_list(bigint, jsonb, jsonb) from public;

-- After a drain: what is told of the queue. `failure`: {code, message} of what kept files from being copied.
create function backup.tell_queue(token bigint, failure jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  late record;
  unreadable bigint;
begin
  perform backup.hold_drain(token, interval '90 seconds');
  select count(*) filter (where f.missed is null) as files, min(f.noted_at) filter (where f.missed is null) as since into late
  from backup.run_files as f where f.run_id = backup.queue_id();
  select count(*) into unreadable from backup.run_files as f where f.run_id = backup.queue_id() and f.missed = 'unreadable';
  if late.files > 0 and late.since < backup.clock_now() - interval '5 minutes' then
    perform backup.raise_alert(
      'files_behind', 'stream',
      pg_catalog.format(
        '%s files that changed since %s UTC are not copied yet%s', late.files,
        pg_catalog.to_char(late.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
        case when failure is not null then pg_catalog.format(': %s (%s)', failure ->> 'message', failure ->> 'code') end
      ),
      'warning'
    );
  else
    perform backup.resolve_alert('files_behind', 'stream');
  end if;
  if unreadable > 0 then
    perform backup.raise_alert(
      'files_unreadable', 'stream', pg_catalog.format('Storage does not give %s of the files that changed', unreadable), 'warning'
    );
  else
    perform backup.resolve_alert('files_unreadable', 'stream');
  end if;
end
$$;
revoke all on function backup.tell_queue(bigint, jsonb) from public;
