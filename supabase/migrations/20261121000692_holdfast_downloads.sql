-- Downloads: files of a backup in a bucket of their own, for as long as a link to them lasts. The row and its audit are
-- committed before a byte lies there, each link's audit before the link is made.
-- Lock order: backup.downloads → backup.calls.

-- Status: making → ready → ending → removed, making → failed → removed. `ready` whose time is over is as good as `ending`.
-- `making` under a lease: whoever works on it renews it with each part; a function's waits for its next leg between two.
create table backup.downloads (
  id uuid primary key default gen_random_uuid(),
  -- a full backup, or an incremental; it may be of another install, so nothing is referred to
  backup_id uuid not null,
  -- `schema.table`, quoted where needed; null: the whole backup
  table_name text,
  format text not null,
  -- of the format files: the bucket, and the name of one file, which is forgotten once nothing of it lies there
  bucket text,
  file text,
  -- what a browser calls the file
  file_name text not null,
  status text not null default 'making',
  by_function boolean not null,
  -- in the bucket, in their order: [{object, bytes, sha256}]; one after the other they are the file
  parts jsonb not null default '[]',
  bytes bigint not null default 0,
  -- of the file in hex; null until it is whole, and where it has several parts that no one process has seen
  sha256 text,
  actor text not null,
  created_at timestamptz not null default backup.clock_now(),
  -- how long it is kept once it is ready
  keep_for interval not null,
  ready_at timestamptz,
  expires_at timestamptz,
  links integer not null default 0,
  ended_at timestamptz,
  removed_at timestamptz,
  removal_error text,
  token bigint not null default 1,
  worker text,
  lease_until timestamptz not null,
  legs_begun integer not null default 0,
  next_leg_at timestamptz,
  -- from where the next leg goes on
  mark jsonb,
  error_code text,
  error_message text,
  error_hint text,
  constraint format_is_known check (format in ('bundle', 'csv', 'json', 'sql', 'files')),
  constraint bundle_is_of_the_whole_backup check (format not in ('bundle', 'files') or table_name is null),
  constraint files_are_of_a_bucket check ((format = 'files') = (bucket is not null)),
  constraint file_is_of_a_bucket check (file is null or bucket is not null),
  constraint status_is_known check (status in ('making', 'ready', 'failed', 'ending', 'removed')),
  constraint keeping_is_bounded check (keep_for between interval '1 second' and interval '7 days'),
  constraint ready_one_says_until_when check (status <> 'ready' or (ready_at is not null and expires_at is not null)),
  constraint expiry_is_within_seven_days check (expires_at <= ready_at + interval '7 days'),
  constraint removed_one_says_when check ((status = 'removed') = (removed_at is not null)),
  constraint failed_one_says_why check (status <> 'failed' or error_code is not null),
  constraint parts_are_a_list check (jsonb_typeof(parts) = 'array')
);
comment on table backup.downloads is 'Files of backups that were laid out for a link, and what became of them.';
create index downloads_not_removed on backup.downloads (created_at) where status <> 'removed';
alter table backup.downloads enable row level security;
revoke all on table backup.downloads from public;

-- The longest that a link of the format may last, and its file lie in the bucket.
create function backup.longest_download(format text) returns interval
language sql
immutable
set search_path = ''
as $$
  select case format when 'bundle' then interval '7 days' else interval '24 hours' end
$$;
revoke all on function backup.longest_download(text) from public;

create function backup.download_detail(ours backup.downloads) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'backup', ours.backup_id, 'table', ours.table_name, 'format', ours.format, 'bucket', ours.bucket,
    'bytes', nullif(ours.bytes, 0), 'expires_at', ours.expires_at, 'error', ours.error_code
  ))
$$;
revoke all on function backup.download_detail(backup.downloads) from public;

-- Writes the row and its audit, which names no file: its name may tell of a person. `facts`: {backup, table, format, bucket, file, file_name,
-- expires_seconds, by_function, worker, lease_seconds}. HF003 (payload_invalid) for a time that is longer than the format may lie there, for
-- a bundle of a table, and for files of no bucket.
create function backup.begin_download(facts jsonb, out id uuid, out token bigint)
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads;
  wanted interval := coalesce((facts ->> 'expires_seconds')::bigint, 0) * interval '1 second';
  longest interval := backup.longest_download(facts ->> 'format');
  entry bigint;
begin
  if wanted < interval '1 second' or wanted > longest then
    raise exception 'a download of the format % lasts from one second to % hours',
      facts ->> 'format', extract(epoch from longest)::bigint / 3600
      using errcode = 'HF003';
  elsif facts ->> 'format' = 'bundle' and facts ->> 'table' is not null then
    raise exception 'a bundle is of a whole backup, not of a table' using errcode = 'HF003';
  elsif (facts ->> 'format' = 'files') <> (facts ->> 'bucket' is not null) or (facts ->> 'format' = 'files' and facts ->> 'table' is not null) then
    raise exception 'files are of a bucket, and nothing else is' using errcode = 'HF003';
  end if;
  begin_download.id := pg_catalog.gen_random_uuid();
  entry := backup.audit(
    'download.begun', 'download:' || begin_download.id,
    pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'backup', facts -> 'backup', 'table', facts -> 'table', 'format', facts -> 'format', 'bucket', facts -> 'bucket',
      'one_file', case when facts ->> 'file' is not null then true end, 'expires_seconds', facts -> 'expires_seconds'
    ))
  );
  insert into backup.downloads (
    id, backup_id, table_name, format, bucket, file, file_name, by_function, actor, keep_for, worker, lease_until, next_leg_at
  )
  select
    begin_download.id, (facts ->> 'backup')::uuid, facts ->> 'table', facts ->> 'format', facts ->> 'bucket', facts ->> 'file', facts ->> 'file_name',
    coalesce((facts ->> 'by_function')::boolean, false), l.actor, wanted, facts ->> 'worker',
    backup.clock_now() + coalesce((facts ->> 'lease_seconds')::bigint, 1) * interval '1 second',
    case when coalesce((facts ->> 'by_function')::boolean, false) then backup.clock_now() + interval '1 minute' end
  from backup.audit_log as l where l.id = entry
  returning * into ours;
  perform backup.refuse_pruned(ours.backup_id);
  begin_download.token := ours.token;
end
$$;
revoke all on function backup.begin_download(jsonb) from public;

-- The row, locked until the caller's transaction ends. HF414 when there is none.
create function backup.known_download(id uuid) returns backup.downloads
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads;
begin
  select d.* into ours from backup.downloads as d where d.id = known_download.id for no key update;
  if ours.id is null then
    raise exception 'there is no download %', known_download.id
      using errcode = 'HF414', hint = '`holdfast download list` shows those that are there.';
  end if;
  return ours;
end
$$;
revoke all on function backup.known_download(uuid) from public;

-- A link is about to be made: counted, audited, and until when it may last. `wanted` null: as long as the file lies there.
-- HF415 where there is nothing to link to, HF003 for a time behind the longest that a file of the format is kept.
create function backup.link_download(id uuid, wanted interval default null) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.known_download(id);
  until timestamptz;
  latest timestamptz;
begin
  if ours.status <> 'ready' or ours.expires_at <= backup.clock_now() then
    raise exception 'download % is %', ours.id, case ours.status when 'ready' then 'over' else ours.status end
      using errcode = 'HF415', hint = 'Only one that is ready has a link; make another one when its time is over.';
  end if;
  until := coalesce(backup.clock_now() + wanted, ours.expires_at);
  latest := ours.ready_at + backup.longest_download(ours.format);
  if wanted < interval '1 second' or until > latest then
    raise exception 'a link to download % lasts until % at most', ours.id,
      pg_catalog.to_char(latest at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
      using errcode = 'HF003';
  end if;
  update backup.downloads as d
  set links = d.links + 1, expires_at = greatest(d.expires_at, until)
  where d.id = ours.id
  returning d.* into ours;
  perform backup.audit(
    'download.linked', 'download:' || ours.id,
    backup.download_detail(ours) || pg_catalog.jsonb_build_object('until', until, 'link', ours.links)
  );
  return until;
end
$$;
revoke all on function backup.link_download(uuid, interval) from public;

-- A person wants it gone; whoever makes it loses it. False when its files are gone already. HF414.
create function backup.end_download(id uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.known_download(id);
begin
  if ours.status = 'removed' then
    return false;
  elsif ours.status <> 'ending' then
    update backup.downloads as d
    set status = 'ending', ended_at = coalesce(d.ended_at, backup.clock_now()), token = d.token + 1, mark = null,
      worker = null, next_leg_at = null
    where d.id = ours.id
    returning d.* into ours;
    perform backup.audit('download.end_asked', 'download:' || ours.id, backup.download_detail(ours));
  end if;
  return true;
end
$$;
revoke all on function backup.end_download(uuid) from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_downloads with (security_invoker = true) as
select
  d.id, d.backup_id, d.table_name, d.format, d.bucket, d.file_name, d.status, d.parts, d.bytes, d.sha256, d.actor, d.created_at,
  d.ready_at, d.expires_at, d.links, d.ended_at, d.removed_at, d.removal_error, d.error_code, d.error_message, d.error_hint
from backup.downloads as d;
comment on view public.backup_downloads is 'Holdfast: downloads. Administrators with a second factor only.';
revoke all on table public.backup_downloads from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_downloads from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_downloads on backup.downloads
    for select to authenticated using ((select backup.is_admin()));
  grant select (
    id, backup_id, table_name, format, bucket, file_name, status, parts, bytes, sha256, actor, created_at, ready_at, expires_at,
    links, ended_at, removed_at, removal_error, error_code, error_message, error_hint
  ) on backup.downloads to authenticated;
  grant select on table public.backup_downloads to authenticated;
end
$$;
