-- What a full run's worker calls for files, under the lease of a task of kind `look` (are the copies still in the store?) or `files`
-- (copy what is missing, then list all). The queue of the change stream stands on the same. Lock order: as in 150000.

-- The run of a task of that kind, once the lease was checked. HF413 for an old token, HF415 for another kind.
create function backup.filing(task bigint, token bigint, kind text) returns backup.tasks
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
begin
  if ours.kind <> filing.kind then
    raise exception 'task % is of another kind', filing.task using errcode = 'HF415';
  end if;
  return ours;
end
$$;
revoke all on function backup.filing(bigint, bigint, text) from public;

-- All that had to be read in the snapshot was read, and no definition has changed: the keeper may go, and takes its locks along.
create function backup.settle_attempt(task bigint, token bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'files');
begin
  update backup.runs as r set settled_at = backup.clock_now() where r.id = ours.run_id and r.settled_at is null;
  if found then
    perform backup.end_keeper(ours.run_id);
  end if;
end
$$;
revoke all on function backup.settle_attempt(bigint, bigint) from public;

-- What the store lists below a prefix, complete, with its sizes: copies under the run's epoch that hold an object which is not there
-- as it was recorded, or which was found damaged, are forgotten. Returns how many objects those were.
create function backup.look_at_copies(
  task bigint, token bigint, store text, prefix text, names text[], sizes bigint[]
) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'look');
  lost text[];
begin
  lost := array(
    select o.name
    from backup.objects as o
    join backup.runs as r on r.id = ours.run_id and r.epoch = o.epoch
    left join rows from (pg_catalog.unnest(names), pg_catalog.unnest(sizes)) as l (name, size) on l.name = o.name and l.size = o.stored_bytes
    where o.kind = 'blob' and pg_catalog.starts_with(o.name, look_at_copies.prefix)
      and (
        l.name is null
        or exists (
          select from backup.inventory as i
          where i.store = look_at_copies.store and i.name = o.name and i.damage ->> 'code' in ('object_missing', 'object_damaged')
        )
      )
  );
  perform backup.forget_copied_files(lost);
  return pg_catalog.cardinality(lost);
end
$$;
revoke all on function backup.look_at_copies(bigint, bigint, text, text, text[], bigint[]) from public;

-- At the end of a backup: an alert while Storage does not give files that it lists. One that copied no files says nothing of it.
create function backup.note_unreadable_files(run uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  unreadable text := (
    select pg_catalog.string_agg(w.one ->> 'message', '; ')
    from backup.runs as r cross join lateral pg_catalog.jsonb_array_elements(r.warnings) as w (one)
    where r.id = note_unreadable_files.run and w.one ->> 'code' = 'files_unreadable'
  );
begin
  if unreadable is not null then
    perform backup.raise_alert('files_unreadable', 'kind:full', unreadable, 'warning');
  elsif exists (
    select from backup.tasks as t join backup.runs as r on r.id = t.run_id and t.attempt = r.attempt
    where t.run_id = note_unreadable_files.run and t.kind = 'files'
  ) then
    perform backup.resolve_alert('files_unreadable', 'kind:full');
  end if;
end
$$;
revoke all on function backup.note_unreadable_files(uuid) from public;

-- First and last id of a task's files.
create function backup.first_id(prefix text) returns uuid
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.rpad(pg_catalog.replace(prefix, '-', ''), 32, '0')::uuid
$$;
create function backup.last_id(prefix text) returns uuid
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.rpad(pg_catalog.replace(prefix, '-', ''), 32, 'f')::uuid
$$;
revoke all on function backup.first_id(text) from public;
revoke all on function backup.last_id(text) from public;

-- The versions that those files have now, of those that are there.
create function backup.present_files(ids uuid[]) returns table (object_id uuid, bucket text, name text, version text, size bigint, file jsonb)
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
begin
  return query
    select o.id, o.bucket_id, o.name, backup.file_version(r.file), backup.file_size(r.file), r.file
    from storage.objects as o
    cross join lateral (select pg_catalog.to_jsonb(o) - 'path_tokens' - 'level' as file offset 0) as r
    where o.id = any (ids) and o.bucket_id is not null and o.name is not null;
end
$$;
revoke all on function backup.present_files(uuid[]) from public;

-- The next files of a run whose ids begin so that have to be copied, each as it stands in Storage right now: what has changed since it
-- was seen is missed, and its present version comes in its place, up to five of a file. `parts` and `done`: parts and bytes of it that
-- are copied already. No row: all have been copied, or missed.
create function backup.next_versions(run uuid, run_epoch text, prefix text, most integer)
returns table (object_id uuid, version text, bucket text, name text, size bigint, etag text, parts bigint, done bigint)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  buckets text[] := (select b.copied from backup.file_buckets() as b);
  first_object uuid := backup.first_id(prefix);
  last_object uuid := backup.last_id(prefix);
  ids uuid[];
begin
  -- copied since the snapshot
  update backup.run_files as f set copy = c.id
  from backup.copied_files as c
  where f.run_id = next_versions.run and f.object_id between first_object and last_object and f.copy is null and f.missed is null
    and c.object_id = f.object_id and c.version = f.version and c.epoch = next_versions.run_epoch and c.complete;
  loop
    ids := array(
      select f.object_id from backup.run_files as f
      where f.run_id = next_versions.run and f.object_id between first_object and last_object and f.copy is null and f.missed is null
      order by f.object_id limit next_versions.most
    );
    if ids = '{}' then
      return;
    end if;
    update backup.run_files as f set missed = case when p.object_id is null then 'removed' else 'changed' end
    from pg_catalog.unnest(ids) as wanted (id)
    left join backup.present_files(ids) as p on p.object_id = wanted.id
    where f.run_id = next_versions.run and f.object_id = wanted.id and f.copy is null and f.missed is null
      and f.version is distinct from p.version;
    insert into backup.run_files (run_id, object_id, version, in_snapshot, bucket, name, size, file, copy)
    select next_versions.run, p.object_id, p.version, false, p.bucket, p.name, p.size, p.file,
      (
        select c.id from backup.copied_files as c
        where c.object_id = p.object_id and c.version = p.version and c.epoch = next_versions.run_epoch and c.complete
      )
    from backup.present_files(ids) as p
    where p.bucket = any (buckets)
      and (select count(*) from backup.run_files as f where f.run_id = next_versions.run and f.object_id = p.object_id) < 5
    on conflict do nothing;
    return query
      select f.object_id, f.version, f.bucket, f.name, f.size, f.file #>> '{metadata,eTag}', d.parts, d.bytes
      from backup.run_files as f
      cross join lateral (
        select count(*) as parts, coalesce(pg_catalog.sum(o.raw_bytes), 0)::bigint as bytes
        from backup.copied_files as c
        join backup.file_parts as p on p.copy = c.id
        join backup.objects as o on o.name = p.object
        where c.object_id = f.object_id and c.version = f.version and c.epoch = next_versions.run_epoch
      ) as d
      where f.run_id = next_versions.run and f.object_id = any (ids) and f.copy is null and f.missed is null
      order by f.object_id;
    if found then
      return;
    end if;
  end loop;
end
$$;
revoke all on function backup.next_versions(uuid, text, text, integer) from public;

-- Those of the task.
create function backup.next_files(task bigint, token bigint, most integer)
returns table (object_id uuid, version text, bucket text, name text, size bigint, etag text, parts bigint, done bigint)
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'files');
begin
  return query
    select n.* from backup.runs as r
    cross join lateral backup.next_versions(r.id, r.epoch, ours.detail ->> 'prefix', most) as n
    where r.id = ours.run_id;
end
$$;
revoke all on function backup.next_files(bigint, bigint, integer) from public;

-- What was put and read back: [{object_id, version, first, parts: [objects as for record_objects], complete}], or {object_id, version,
-- unreadable: true} for what Storage does not give. It counts where the file still has that version: nothing came in between.
-- Returns the stored bytes of parts that were not there before.
create function backup.record_versions(run uuid, run_epoch text, copied jsonb) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  ids uuid[] := array(select c.object_id from pg_catalog.jsonb_to_recordset(copied) as c (object_id uuid));
  still jsonb;
  objects jsonb;
  new_bytes bigint;
begin
  select coalesce(pg_catalog.jsonb_agg(c.one), '[]') into still
  from pg_catalog.jsonb_array_elements(copied) as c (one)
  join backup.present_files(ids) as p on p.object_id = (c.one ->> 'object_id')::uuid and p.version = c.one ->> 'version';
  objects := coalesce(
    (
      select pg_catalog.jsonb_agg(o.one)
      from pg_catalog.jsonb_array_elements(still) as c (file)
      cross join lateral pg_catalog.jsonb_array_elements(coalesce(c.file -> 'parts', '[]')) as o (one)
    ),
    '[]'
  );
  perform backup.rescue_objects(array(select o.name from pg_catalog.jsonb_to_recordset(objects) as o (name text)));
  new_bytes := backup.record_objects(nullif(run, backup.queue_id()), objects);
  insert into backup.copied_files (object_id, version, epoch)
  select c.object_id, c.version, record_versions.run_epoch
  from pg_catalog.jsonb_to_recordset(still) as c (object_id uuid, version text, complete boolean)
  where c.complete is not null
  on conflict do nothing;
  insert into backup.file_parts (copy, number, object)
  select f.id, c.first + o.place - 1, o.one ->> 'name'
  from pg_catalog.jsonb_to_recordset(still) as c (object_id uuid, version text, first bigint, parts jsonb)
  join backup.copied_files as f on f.object_id = c.object_id and f.version = c.version and f.epoch = record_versions.run_epoch
  cross join lateral pg_catalog.jsonb_array_elements(c.parts) with ordinality as o (one, place)
  on conflict do nothing;
  update backup.copied_files as f set complete = true
  from pg_catalog.jsonb_to_recordset(still) as c (object_id uuid, version text, complete boolean)
  where c.complete and f.object_id = c.object_id and f.version = c.version and f.epoch = record_versions.run_epoch;
  update backup.run_files as f set copy = d.id, held = c.first = 0
  from pg_catalog.jsonb_to_recordset(still) as c (object_id uuid, version text, first bigint, complete boolean)
  join backup.copied_files as d on d.object_id = c.object_id and d.version = c.version and d.epoch = record_versions.run_epoch
  where c.complete and f.run_id = record_versions.run and f.object_id = c.object_id and f.version = c.version;
  update backup.run_files as f set missed = 'unreadable'
  from pg_catalog.jsonb_to_recordset(still) as c (object_id uuid, version text, unreadable boolean)
  where c.unreadable and f.run_id = record_versions.run and f.object_id = c.object_id and f.version = c.version;
  return new_bytes;
end
$$;
revoke all on function backup.record_versions(uuid, text, jsonb) from public;

-- The same for the run of the task.
create function backup.record_files(task bigint, token bigint, copied jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'files');
  new_bytes bigint;
begin
  select backup.record_versions(r.id, r.epoch, copied) into new_bytes from backup.runs as r where r.id = ours.run_id;
  update backup.runs as r
  set new_stored_bytes = r.new_stored_bytes + new_bytes, heartbeat_at = backup.clock_now()
  where r.id = ours.run_id;
end
$$;
revoke all on function backup.record_files(bigint, bigint, jsonb) from public;

-- Parts of copies that were taken over, and whose locks in the store have to be renewed, of at most so many files of a run.
create function backup.versions_to_hold(run uuid, prefix text, most integer) returns table (object_id uuid, object text)
language sql
stable
set search_path = ''
as $$
  select f.object_id, p.object
  from (
    select x.object_id, x.copy from backup.run_files as x
    where x.run_id = versions_to_hold.run and not x.held and x.copy is not null
      and x.object_id between backup.first_id(versions_to_hold.prefix) and backup.last_id(versions_to_hold.prefix)
    order by x.object_id limit versions_to_hold.most
  ) as f
  left join backup.file_parts as p on p.copy = f.copy
$$;
revoke all on function backup.versions_to_hold(uuid, text, integer) from public;

create function backup.next_holds(task bigint, token bigint, most integer) returns table (object_id uuid, object text)
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'files');
begin
  return query select h.* from backup.versions_to_hold(ours.run_id, ours.detail ->> 'prefix', most) as h;
end
$$;
revoke all on function backup.next_holds(bigint, bigint, integer) from public;

-- Their locks were renewed.
create function backup.record_holds(task bigint, token bigint, files uuid[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'files');
begin
  update backup.run_files as f set held = true
  where f.run_id = ours.run_id and f.object_id = any (files) and f.copy is not null;
end
$$;
revoke all on function backup.record_holds(bigint, bigint, uuid[]) from public;

-- Files of a run whose ids begin so, at most so many, in the order of their ids, for a list; versions that came later only where they were
-- copied. What holds them is not swept from now on. `parts`: [{object, rawBytes, storedBytes, hash, storedHash}], null for what was missed.
create function backup.versions_to_list(run uuid, prefix text, most integer)
returns table (object_id uuid, in_snapshot boolean, missed text, bucket text, name text, size bigint, file text, parts text, version text)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  first_object uuid := backup.first_id(prefix);
  last_object uuid := backup.last_id(prefix);
begin
  perform backup.rescue_objects(array(
    select p.object from backup.run_files as f join backup.file_parts as p on p.copy = f.copy
    where f.run_id = versions_to_list.run and f.object_id between first_object and last_object
  ));
  return query
    select f.object_id, f.in_snapshot, f.missed, f.bucket, f.name, f.size, f.file::text, d.parts::text, f.version
    from backup.run_files as f
    left join lateral (
      select coalesce(
        pg_catalog.jsonb_agg(
          pg_catalog.jsonb_build_object(
            'object', o.name, 'rawBytes', o.raw_bytes, 'storedBytes', o.stored_bytes, 'hash', o.hash, 'storedHash', o.stored_hash
          )
          order by p.number
        ),
        '[]'
      ) as parts
      from backup.file_parts as p
      join backup.objects as o on o.name = p.object
      where p.copy = f.copy
    ) as d on f.copy is not null
    where f.run_id = versions_to_list.run and f.object_id between first_object and last_object and (f.in_snapshot or f.copy is not null)
    order by f.object_id, f.in_snapshot desc, f.version
    limit most;
end
$$;
revoke all on function backup.versions_to_list(uuid, text, integer) from public;

-- All of the task.
create function backup.files_to_list(task bigint, token bigint)
returns table (object_id uuid, in_snapshot boolean, missed text, bucket text, name text, size bigint, file text, parts text, version text)
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.filing(task, token, 'files');
begin
  return query select l.* from backup.versions_to_list(ours.run_id, ours.detail ->> 'prefix', null) as l;
end
$$;
revoke all on function backup.files_to_list(bigint, bigint) from public;
