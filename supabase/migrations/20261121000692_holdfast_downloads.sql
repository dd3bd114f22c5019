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
  constraint format_is_known check (format in ('bundle', 'csv', 'json', 'sql')),
  constraint bundle_is_of_the_whole_backup check (format <> 'bundle' or table_name is null),
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
    'backup', ours.backup_id, 'table', ours.table_name, 'format', ours.format,
    'bytes', nullif(ours.bytes, 0), 'expires_at', ours.expires_at, 'error', ours.error_code
  ))
$$;
revoke all on function backup.download_detail(backup.downloads) from public;

-- Writes the row and its audit. `facts`: {backup, table, format, file_name, expires_seconds, by_function, worker,
-- lease_seconds}. HF003 (payload_invalid) for a time that is longer than the format may lie there, and for a bundle of a table.
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
  end if;
  begin_download.id := pg_catalog.gen_random_uuid();
  entry := backup.audit(
    'download.begun', 'download:' || begin_download.id,
    pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'backup', facts -> 'backup', 'table', facts -> 'table', 'format', facts -> 'format',
      'expires_seconds', facts -> 'expires_seconds'
    ))
  );
  insert into backup.downloads (
    id, backup_id, table_name, format, file_name, by_function, actor, keep_for, worker, lease_until, next_leg_at
  )
  select
    begin_download.id, (facts ->> 'backup')::uuid, facts ->> 'table', facts ->> 'format', facts ->> 'file_name',
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

-- The row, locked, for the worker whose token it is. HF413 (lease_lost) when another has taken over, or when it has ended.
create function backup.held_download(id uuid, token bigint) returns backup.downloads
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.known_download(id);
begin
  if ours.token <> held_download.token or ours.status <> 'making' then
    raise exception 'download % is % and not yours any more', ours.id, ours.status using errcode = 'HF413';
  end if;
  return ours;
end
$$;
revoke all on function backup.held_download(uuid, bigint) from public;

-- A function's leg takes it over; null while another has the lease, and when it is not being made any more. Five legs in a
-- row that the platform ended end it.
create function backup.claim_download(id uuid, worker text, lease interval) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.known_download(id);
begin
  if ours.status <> 'making' or not ours.by_function
    -- nobody takes a lease for an hour: one that ends later is of a clock that was moved back since
    or ours.lease_until between backup.clock_now() and backup.clock_now() + interval '1 hour'
  then
    return null;
  elsif ours.legs_begun >= 5 then
    perform backup.fail_download(
      ours.id, ours.token, 'run_stalled',
      'five legs of the function, one after the other, came to no end',
      'Look at the function''s log; the CLI downloads without its limits.'
    );
    return null;
  end if;
  update backup.downloads as d
  set token = d.token + 1, worker = claim_download.worker, lease_until = backup.clock_now() + claim_download.lease,
    legs_begun = d.legs_begun + 1
  where d.id = ours.id
  returning d.* into ours;
  return ours.token;
end
$$;
revoke all on function backup.claim_download(uuid, text, interval) from public;

-- Parts that lie in the bucket, and from where to go on; renews the lease. HF413.
create function backup.record_download(id uuid, token bigint, parts jsonb, mark jsonb, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.held_download(id, token);
begin
  update backup.downloads as d
  set parts = d.parts || record_download.parts, mark = record_download.mark,
    bytes = d.bytes + coalesce(
      (select sum((p.part ->> 'bytes')::bigint) from pg_catalog.jsonb_array_elements(record_download.parts) as p (part)), 0
    ),
    lease_until = backup.clock_now() + record_download.lease, legs_begun = case when d.by_function then 1 else 0 end
  where d.id = ours.id;
end
$$;
revoke all on function backup.record_download(uuid, bigint, jsonb, jsonb, interval) from public;

-- The file is whole; from now on it is kept for as long as was asked. Returns until when. HF413.
create function backup.finish_download(id uuid, token bigint, sha256 text) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.held_download(id, token);
begin
  update backup.downloads as d
  set status = 'ready', sha256 = finish_download.sha256, ready_at = backup.clock_now(),
    expires_at = backup.clock_now() + d.keep_for, mark = null, worker = null, next_leg_at = null
  where d.id = ours.id
  returning d.* into ours;
  perform backup.audit('download.made', 'download:' || ours.id, backup.download_detail(ours));
  return ours.expires_at;
end
$$;
revoke all on function backup.finish_download(uuid, bigint, text) from public;

-- HF413.
create function backup.fail_download(id uuid, token bigint, code text, message text, hint text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.held_download(id, token);
begin
  update backup.downloads as d
  set status = 'failed', ended_at = backup.clock_now(), mark = null, worker = null, next_leg_at = null,
    error_code = code, error_message = pg_catalog.left(message, 500), error_hint = pg_catalog.left(hint, 500)
  where d.id = ours.id
  returning d.* into ours;
  perform backup.audit('download.failed', 'download:' || ours.id, backup.download_detail(ours));
end
$$;
revoke all on function backup.fail_download(uuid, bigint, text, text, text) from public;

-- Sends a leg; what keeps it from being sent fails the download instead of the caller.
create function backup.launch_download(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads;
  told text;
  way_out text;
begin
  update backup.downloads as d
  set next_leg_at = backup.clock_now() + interval '1 minute'
  where d.id = launch_download.id and d.status = 'making' and d.by_function
  returning d.* into ours;
  if ours.id is null then
    return;
  end if;
  begin
    perform backup.invoke('download', pg_catalog.jsonb_build_object('action', 'leg', 'download', ours.id));
  exception
    when sqlstate 'HF002' then
      get stacked diagnostics told = message_text, way_out = pg_exception_hint;
      perform backup.fail_download(ours.id, ours.token, 'setting_missing', told, nullif(way_out, ''));
  end;
end
$$;
revoke all on function backup.launch_download(uuid) from public;

-- A leg is over and its download is not: the next one is sent. HF413.
create function backup.rest_download(id uuid, token bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.held_download(id, token);
begin
  update backup.downloads as d
  set worker = null, lease_until = backup.clock_now() - interval '1 millisecond', legs_begun = 0
  where d.id = ours.id;
  perform backup.launch_download(ours.id);
end
$$;
revoke all on function backup.rest_download(uuid, bigint) from public;

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

-- Whose files have to go, and since when.
create function backup.due_downloads() returns table (download uuid, due_since timestamptz)
language sql
stable
set search_path = ''
as $$
  select d.id, case when d.status = 'ready' then d.expires_at else d.ended_at end
  from backup.downloads as d
  where d.status in ('failed', 'ending') or (d.status = 'ready' and d.expires_at <= backup.clock_now())
$$;
revoke all on function backup.due_downloads() from public;

-- Its files are gone, and nothing of it is in the bucket.
create function backup.download_removed(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.known_download(id);
begin
  if ours.status in ('making', 'removed') or (ours.status = 'ready' and ours.expires_at > backup.clock_now()) then
    return;
  end if;
  update backup.downloads as d
  set status = 'removed', removed_at = backup.clock_now(), ended_at = coalesce(d.ended_at, d.expires_at), removal_error = null
  where d.id = ours.id
  returning d.* into ours;
  perform backup.audit('download.removed', 'download:' || ours.id, backup.download_detail(ours));
  perform backup.resolve_alert('download_not_removed', 'download:' || ours.id);
end
$$;
revoke all on function backup.download_removed(uuid) from public;

-- What keeps files from being removed, for the alert.
create function backup.downloads_stay(message text) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.downloads as d
  set removal_error = pg_catalog.left(message, 500)
  where d.id in (select due.download from backup.due_downloads() as due)
$$;
revoke all on function backup.downloads_stay(text) from public;

-- Each minute: legs for downloads whose last one was lost, an end for those of a CLI that went away, a sweep where files have
-- to go, an alert where they should have gone an hour ago. Returns how many files have to go.
create function backup.watch_downloads() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  found_one record;
  due integer := 0;
begin
  for found_one in
    select d.id, d.token, d.by_function
    from backup.downloads as d
    where d.status = 'making' and d.lease_until < backup.clock_now()
      and (not d.by_function or d.next_leg_at <= backup.clock_now())
    order by d.created_at
    limit 100
    for no key update skip locked
  loop
    if found_one.by_function then
      perform backup.launch_download(found_one.id);
    else
      perform backup.fail_download(
        found_one.id, found_one.token, 'run_stalled', 'the command that made it has gone away', 'Run it again.'
      );
    end if;
  end loop;
  for found_one in select o.download, o.due_since from backup.due_downloads() as o loop
    due := due + 1;
    if found_one.due_since < backup.clock_now() - interval '1 hour' then
      perform backup.raise_alert(
        'download_not_removed', 'download:' || found_one.download,
        coalesce(
          'files of a download whose time is over are still in its bucket: ' || (
            select d.removal_error from backup.downloads as d where d.id = found_one.download
          ),
          'files of a download whose time is over are still in its bucket: nothing has removed them'
        )
      );
    end if;
  end loop;
  if due > 0 then
    begin
      perform backup.invoke('download', '{"action": "sweep"}');
    exception
      -- without functions the CLI sweeps, with each of its downloads
      when sqlstate 'HF002' then
        null;
    end;
  end if;
  return due;
end
$$;
revoke all on function backup.watch_downloads() from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_downloads with (security_invoker = true) as
select
  d.id, d.backup_id, d.table_name, d.format, d.file_name, d.status, d.parts, d.bytes, d.sha256, d.actor, d.created_at,
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
    id, backup_id, table_name, format, file_name, status, parts, bytes, sha256, actor, created_at, ready_at, expires_at,
    links, ended_at, removed_at, removal_error, error_code, error_message, error_hint
  ) on backup.downloads to authenticated;
  grant select on table public.backup_downloads to authenticated;
end
$$;
