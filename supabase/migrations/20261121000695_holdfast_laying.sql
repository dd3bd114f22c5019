-- How the file of a download comes to lie in its bucket, leg by leg under a lease, and goes from there. Lock order: as in 0692.

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

-- Parts that lie in the bucket behind the first `kept`, and from where to go on; renews the lease. A part that was short is
-- recorded again with more in it. HF413; 22023 where parts would be lost that way.
create function backup.record_download(id uuid, token bigint, kept integer, parts jsonb, mark jsonb, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.held_download(id, token);
  recorded constant integer := pg_catalog.jsonb_array_length(ours.parts);
  parted jsonb;
begin
  if kept not between greatest(recorded - 1, 0) and recorded
    or (kept < recorded and (parts -> 0 ->> 'bytes')::bigint is distinct from
      greatest((parts -> 0 ->> 'bytes')::bigint, (ours.parts -> kept ->> 'bytes')::bigint))
  then
    raise exception 'download % has % parts, and none of them may get shorter', ours.id, recorded using errcode = '22023';
  end if;
  select coalesce(pg_catalog.jsonb_agg(p.part order by p.place) filter (where p.place <= kept), '[]') || record_download.parts
  into parted
  from pg_catalog.jsonb_array_elements(ours.parts) with ordinality as p (part, place);
  update backup.downloads as d
  set parts = parted, mark = record_download.mark,
    bytes = coalesce((select sum((p.part ->> 'bytes')::bigint) from pg_catalog.jsonb_array_elements(parted) as p (part)), 0),
    lease_until = backup.clock_now() + record_download.lease, legs_begun = case when d.by_function then 1 else 0 end
  where d.id = ours.id;
end
$$;
revoke all on function backup.record_download(uuid, bigint, integer, jsonb, jsonb, interval) from public;

-- The file is whole; from now on it is kept for as long as was asked. Returns until when. HF413.
create function backup.finish_download(id uuid, token bigint, sha256 text) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.downloads := backup.held_download(id, token);
  moment constant timestamptz := backup.clock_now();
begin
  update backup.downloads as d
  set status = 'ready', sha256 = finish_download.sha256, ready_at = moment, expires_at = moment + d.keep_for, mark = null, worker = null, next_leg_at = null
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
  set status = 'removed', removed_at = backup.clock_now(), ended_at = coalesce(d.ended_at, d.expires_at), removal_error = null, file = null
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
