-- Files: what a full backup copies out of the project's Storage beside the rows of storage.objects.
-- docs/decisions/0036-files.md says why it is so. Lock order: as in 0400, then backup.run_files → backup.copied_files →
-- backup.file_parts → backup.condemned → backup.objects.

insert into backup.settings (name, kind, value, pattern, note) values
  ('file_buckets', 'text', '', '^[^\n\r]{0,250}$', 'buckets whose files are backed up, with commas; empty: all but ours'),
  ('file_buckets_left_out', 'text', '', '^[^\n\r]{0,250}$', 'buckets whose files are not backed up, with commas');

-- One version of one file that was copied, or is being copied, under one epoch. It is never changed but for `complete`.
create table backup.copied_files (
  id bigint generated always as identity primary key,
  object_id uuid not null,
  version text not null,
  epoch text not null,
  -- all its parts are there
  complete boolean not null default false,
  recorded_at timestamptz not null default backup.clock_now(),
  unique (object_id, version, epoch)
);
comment on table backup.copied_files is 'Versions of files whose content is in the store.';
create index copied_files_by_epoch on backup.copied_files (epoch);

-- The content of a version, in order, from part 0 on; a file without bytes has none.
create table backup.file_parts (
  copy bigint not null references backup.copied_files (id) on delete cascade,
  number integer not null,
  object text not null,
  primary key (copy, number)
);
comment on table backup.file_parts is 'Objects that hold the content of copied files.';
create index file_parts_by_object on backup.file_parts (object);

-- What the snapshot of a full run under way shows of storage.objects, and what came in the place of what had changed before it was
-- copied (in_snapshot is false). Gone once the run has ended. Under backup.queue_id() it is what the change stream told of, until it is
-- listed. Without foreign keys: it is written in the run's snapshot, which could
-- not lock rows that were changed since.
create table backup.run_files (
  run_id uuid not null,
  object_id uuid not null,
  version text not null,
  in_snapshot boolean not null,
  bucket text not null,
  name text not null,
  size bigint,
  -- the row as JSON, without what Storage computes
  file jsonb not null,
  -- the copy of its content, once that is complete
  copy bigint,
  -- its parts were put in this run, or their locks were renewed
  held boolean not null default false,
  -- why there is none: changed, removed, unreadable
  missed text,
  noted_at timestamptz not null default backup.clock_now(),
  primary key (run_id, object_id, version),
  constraint missed_is_known check (missed in ('changed', 'removed', 'unreadable'))
);
comment on table backup.run_files is 'Files that the full backup under way has to hold.';

alter table backup.copied_files enable row level security;
alter table backup.file_parts enable row level security;
alter table backup.run_files enable row level security;
revoke all on table backup.copied_files, backup.file_parts, backup.run_files from public;

-- In the place of a run's id: files that changed since the last full backup.
create function backup.queue_id() returns uuid
language sql
immutable
set search_path = ''
as $$
  select '00000000-0000-0000-0000-000000000000'::uuid
$$;
revoke all on function backup.queue_id() from public;

-- What tells one version of a file from another, by its row as JSON.
create function backup.file_version(file jsonb) returns text
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_array(
    file -> 'version', file #> '{metadata,eTag}', file #> '{metadata,size}', file -> 'updated_at'
  )::text
$$;
revoke all on function backup.file_version(jsonb) from public;

-- Bytes of a file as its row says them; null where it does not.
create function backup.file_size(file jsonb) returns bigint
language sql
immutable
set search_path = ''
as $$
  select case when file #>> '{metadata,size}' ~ '^[0-9]{1,15}$' then (file #>> '{metadata,size}')::bigint end
$$;
revoke all on function backup.file_size(jsonb) from public;

-- The project's buckets: whose files are copied, and whose are left out because the settings say so. Ours, and exports, which are
-- copies of what is backed up, are in neither. Both null where there is no Storage.
create function backup.file_buckets(out copied text[], out left_out text[])
language plpgsql
stable
set search_path = ''
as $$
declare
  wanted text[] := (
    select pg_catalog.regexp_split_to_array(nullif(pg_catalog.btrim(s.value), ''), '\s*,\s*')
    from backup.settings as s where s.name = 'file_buckets'
  );
  unwanted text[] := (
    select pg_catalog.regexp_split_to_array(pg_catalog.btrim(s.value), '\s*,\s*')
    from backup.settings as s where s.name = 'file_buckets_left_out'
  );
begin
  if pg_catalog.to_regclass('storage.buckets') is null or pg_catalog.to_regclass('storage.objects') is null then
    return;
  end if;
  select
    coalesce(pg_catalog.array_agg(b.id order by b.id) filter (where c.is_copied), '{}'),
    coalesce(pg_catalog.array_agg(b.id order by b.id) filter (where not c.is_copied), '{}')
  into copied, left_out
  from storage.buckets as b
  cross join lateral (select (wanted is null or b.id = any (wanted)) and b.id <> all (unwanted) as is_copied) as c
  where b.id <> all (backup.own_buckets() || array['data-exports']);
end
$$;
revoke all on function backup.file_buckets() from public;

-- Called in a transaction that sees the snapshot of the run's attempt: what storage.objects holds there, with the copies that were
-- known then. Returns how many files.
create function backup.list_files(run uuid, epoch text) returns bigint
language plpgsql
volatile
set search_path = ''
set timezone = 'UTC'
as $$
declare
  buckets text[] := (select b.copied from backup.file_buckets() as b);
  listed bigint;
begin
  if buckets is null then
    return 0;
  end if;
  insert into backup.run_files (run_id, object_id, version, in_snapshot, bucket, name, size, file, copy)
  select list_files.run, o.id, f.version, true, o.bucket_id, o.name, f.size, f.file, c.id
  from storage.objects as o
  cross join lateral (select pg_catalog.to_jsonb(o) - 'path_tokens' - 'level' as file offset 0) as r
  cross join lateral (
    select r.file, backup.file_version(r.file) as version, backup.file_size(r.file) as size
  ) as f
  left join backup.copied_files as c
    on c.object_id = o.id and c.version = f.version and c.epoch = list_files.epoch and c.complete
  where o.bucket_id = any (buckets) and o.name is not null;
  get diagnostics listed = row_count;
  return listed;
end
$$;
revoke all on function backup.list_files(uuid, text) from public;

-- The files of a run by the first digits of their ids, so that what changed alters one list and no other: some hundreds a list.
-- `bytes`: of those that have to be copied.
create function backup.file_groups(run uuid) returns table (prefix text, files bigint, bytes bigint)
language sql
stable
set search_path = ''
as $$
  with amount as (
    select count(*) as files from backup.run_files as f where f.run_id = file_groups.run
  ),
  digits as (
    select case when a.files <= 64 then 0 when a.files <= 8192 then 1 when a.files <= 131072 then 2 else 3 end as n from amount as a
  )
  select pg_catalog.left(f.object_id::text, d.n), count(*), coalesce(pg_catalog.sum(f.size) filter (where f.copy is null), 0)::bigint
  from backup.run_files as f
  cross join digits as d
  where f.run_id = file_groups.run
  group by 1
  order by 1
$$;
revoke all on function backup.file_groups(uuid) from public;

create function backup.forget_run_files(run uuid) returns void
language sql
volatile
set search_path = ''
as $$
  delete from backup.run_files as f where f.run_id = forget_run_files.run
$$;
revoke all on function backup.forget_run_files(uuid) from public;

-- Copies that hold one of these objects are no copies any more: their files are copied again.
create function backup.forget_copied_files(objects text[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  gone bigint[] := array(select distinct p.copy from backup.file_parts as p where p.object = any (objects));
begin
  if gone = '{}' then
    return;
  end if;
  update backup.run_files as f set copy = null where f.copy = any (gone);
  delete from backup.copied_files as c where c.id = any (gone);
end
$$;
revoke all on function backup.forget_copied_files(text[]) from public;
