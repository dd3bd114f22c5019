-- Exports as they are made: leg by leg, under a lease. Rows are laid by one transaction, which goes on where the function that
-- began it has ended; then files, then the document.

-- The row, locked, for the worker whose token it is. HF413 (lease_lost) when another has taken over, or when it has ended.
create function backup.held_export(id uuid, token bigint) returns backup.exports
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.known_export(id);
begin
  if ours.token <> held_export.token or ours.status <> 'making' then
    raise exception 'export % is % and not yours any more', ours.id, ours.status using errcode = 'HF413';
  end if;
  return ours;
end
$$;
revoke all on function backup.held_export(uuid, bigint) from public;

-- The number of the lock that whoever lays the rows of an export holds until its transaction ends.
create function backup.export_lock(id uuid) returns bigint
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.hashtextextended('holdfast:export-rows:' || id, 0)
$$;
revoke all on function backup.export_lock(uuid) from public;

-- A function's leg takes it over; null while another has the lease or its rows are being laid, while as many are made as may be at
-- once, and when it has ended. Five legs in a row that the platform ended end it, and so does the end of its person.
create function backup.claim_export(id uuid, worker text, lease interval) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  ours backup.exports := backup.known_export(id);
begin
  if ours.status not in ('queued', 'making') or not ours.by_function
    -- nobody takes a lease for an hour: one that ends later is of a clock that was moved back since
    or ours.lease_until between moment and moment + interval '1 hour'
    or not pg_catalog.pg_try_advisory_xact_lock(backup.export_lock(ours.id))
  then
    return null;
  elsif ours.status = 'queued' and (
    select count(*) from backup.exports as e where e.status = 'making' and e.by_function
  ) >= backup.setting_integer('exports_at_once') then
    return null;
  end if;
  update backup.exports as e
  set status = 'making', started_at = coalesce(e.started_at, moment), token = e.token + 1, worker = claim_export.worker,
    lease_until = moment + claim_export.lease, legs_begun = e.legs_begun + 1, next_leg_at = moment + interval '1 minute'
  where e.id = ours.id
  returning e.* into ours;
  if ours.legs_begun > 5 then
    perform backup.fail_export(
      ours.id, ours.token, 'run_stalled', 'five legs of the function, one after the other, came to no end',
      'Look at the function''s log; the CLI makes exports without its limits.'
    );
    return null;
  end if;
  return ours.token;
end
$$;
revoke all on function backup.claim_export(uuid, text, interval) from public;

-- Its person may have been deleted meanwhile: whoever works on it asks before each step. HF510, HF413.
create function backup.holding_export(id uuid, token bigint, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  if not backup.user_is_there(ours.user_id) then
    raise exception 'the user of export % is not there any more', ours.id using errcode = 'HF510';
  end if;
  update backup.exports as e set lease_until = backup.clock_now() + holding_export.lease where e.id = ours.id;
end
$$;
revoke all on function backup.holding_export(uuid, bigint, interval) from public;

-- What an earlier try has left is gone: the rows are read from here on. HF413.
create function backup.empty_export(id uuid, token bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  delete from backup.export_rows as r where r.export_id = ours.id;
  delete from backup.export_pieces as p where p.export_id = ours.id;
  delete from backup.export_files as f where f.export_id = ours.id;
end
$$;
revoke all on function backup.empty_export(uuid, bigint) from public;

-- The end of the transaction that lays the rows. `facts`: {tables, rows, consistent_at}. HF413.
create function backup.record_laid(id uuid, token bigint, facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  delete from backup.export_rows as r where r.export_id = ours.id;
  update backup.exports as e
  set stage = 'files', tables = (facts ->> 'tables')::integer, rows = (facts ->> 'rows')::bigint,
    consistent_at = (facts ->> 'consistent_at')::timestamptz, parts = '[]', files_done = 0, file_bytes = 0,
    pieces = (select count(*) from backup.export_pieces as p where p.export_id = ours.id),
    files = (select count(*) from backup.export_files as f where f.export_id = ours.id), legs_begun = 1
  where e.id = ours.id;
end
$$;
revoke all on function backup.record_laid(uuid, bigint, jsonb) from public;

-- How far files are: [{number, state, parts, why, version, bytes, changed}], of which what is left out stays. HF413.
create function backup.record_export_files(id uuid, token bigint, files jsonb, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  update backup.export_files as f
  set state = coalesce(facts.one ->> 'state', f.state), parts = coalesce(facts.one -> 'parts', f.parts),
    why = coalesce(facts.one ->> 'why', f.why), version = coalesce(facts.one ->> 'version', f.version),
    bytes = coalesce((facts.one ->> 'bytes')::bigint, f.bytes), changed = coalesce((facts.one ->> 'changed')::integer, f.changed)
  from pg_catalog.jsonb_array_elements(record_export_files.files) as facts (one)
  where f.export_id = ours.id and f.number = (facts.one ->> 'number')::integer;
  update backup.exports as e
  set legs_begun = case when e.by_function then 1 else 0 end, lease_until = backup.clock_now() + record_export_files.lease,
    files_done = e.files_done + done.files, file_bytes = e.file_bytes + done.bytes
  from (
    select count(*) as files, coalesce(sum(f.bytes) filter (where f.state = 'copied'), 0) as bytes
    from backup.export_files as f
    join pg_catalog.jsonb_array_elements(record_export_files.files) as facts (one)
      on f.number = (facts.one ->> 'number')::integer and facts.one ->> 'state' in ('copied', 'missing')
    where f.export_id = ours.id
  ) as done
  where e.id = ours.id;
end
$$;
revoke all on function backup.record_export_files(uuid, bigint, jsonb, interval) from public;

-- Every file is copied or missing: the document ends with what became of them, and from now on every byte of it has its place.
-- False where what was laid is not all there any more. HF413, HF415.
create function backup.close_document(id uuid, token bigint) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  if ours.stage <> 'files' or exists (select from backup.export_files as f where f.export_id = ours.id and f.state = 'open') then
    raise exception 'the files of export % are not copied', ours.id using errcode = 'HF415';
  end if;
  delete from backup.export_pieces as p where p.export_id = ours.id and p.place = 2147483647;
  if ours.pieces is distinct from (select count(*) from backup.export_pieces as p where p.export_id = ours.id) then
    return false;
  end if;
  insert into backup.export_pieces (export_id, place, piece, body)
  select ours.id, 2147483647, 0, pg_catalog.convert_to(coalesce(pg_catalog.string_agg(
    pg_catalog.json_build_object(
      'number', f.number, 'bucket', f.bucket_id, 'name', f.name, 'path', f.path, 'state', f.state, 'why', f.why, 'bytes', f.bytes,
      'contentType', f.content_type, 'cacheControl', f.metadata ->> 'cacheControl', 'metadata', f.metadata -> 'metadata',
      'createdAt', f.created_at at time zone 'UTC', 'updatedAt', f.updated_at at time zone 'UTC', 'parts', f.parts
    )::text, e',\n' order by f.number
  ), '') || e'\n]', 'UTF8')
  from backup.export_files as f where f.export_id = ours.id;
  update backup.export_pieces as p
  set begins = placed.begins
  from (
    select q.place, q.piece, sum(pg_catalog.octet_length(q.body)) over (order by q.place, q.piece) - pg_catalog.octet_length(q.body) as begins
    from backup.export_pieces as q where q.export_id = ours.id
  ) as placed
  where p.export_id = ours.id and p.place = placed.place and p.piece = placed.piece;
  update backup.exports as e
  set stage = 'document', parts = '[]', document_bytes = (
    select sum(pg_catalog.octet_length(p.body)) from backup.export_pieces as p where p.export_id = ours.id
  )
  where e.id = ours.id;
  return true;
end
$$;
revoke all on function backup.close_document(uuid, bigint) from public;

-- A part of the document lies there; renews the lease. HF413.
create function backup.record_export_part(id uuid, token bigint, part jsonb, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  update backup.exports as e
  set parts = e.parts || pg_catalog.jsonb_build_array(part), legs_begun = case when e.by_function then 1 else 0 end,
    lease_until = backup.clock_now() + record_export_part.lease
  where e.id = ours.id;
end
$$;
revoke all on function backup.record_export_part(uuid, bigint, jsonb, interval) from public;

-- What was laid is gone (a crash of the server empties unlogged tables), or what was put: it is made again from `stage` on, three
-- times at most. `files`: numbers of those that have to be copied again. HF413, HF466 (export_undone).
create function backup.redo_export(id uuid, token bigint, stage text, files integer[], why text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  if ours.again >= 3 then
    raise exception 'what was made of export % was gone again and again: %', ours.id, why using errcode = 'HF466';
  end if;
  update backup.exports as e
  set stage = redo_export.stage, again = e.again + 1, parts = '[]', document_bytes = null
  where e.id = ours.id;
  update backup.export_files as f
  set state = 'open', parts = '[]', why = null
  where f.export_id = ours.id and f.number = any (redo_export.files);
  update backup.exports as e
  set files_done = done.files, file_bytes = done.bytes
  from (
    select count(*) as files, coalesce(sum(f.bytes) filter (where f.state = 'copied'), 0) as bytes
    from backup.export_files as f where f.export_id = ours.id and f.state <> 'open'
  ) as done
  where e.id = ours.id;
end
$$;
revoke all on function backup.redo_export(uuid, bigint, text, integer[], text) from public;

-- All of it lies there, for seven days from now on. `by_hand`: in a folder of whoever ordered it, and in no bucket; else the function
-- `notify` tells its person by mail. Returns until when. HF413.
create function backup.finish_export(id uuid, token bigint, by_hand boolean default false) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  ours backup.exports := backup.held_export(id, token);
begin
  delete from backup.export_pieces as p where p.export_id = ours.id;
  update backup.exports as e
  set status = 'ready', ready_at = moment, worker = null, next_leg_at = null,
    mail = case when by_hand then null else 'due' end,
    expires_at = moment + case when by_hand then interval '0' else interval '7 days' end
  where e.id = ours.id
  returning e.* into ours;
  perform backup.audit('export.made', 'export:' || ours.id, backup.export_detail(ours));
  if by_hand then
    perform backup.export_downloaded(ours.id);
    perform backup.export_removed(ours.id);
  else
    perform backup.call_mailer();
  end if;
  return ours.expires_at;
end
$$;
revoke all on function backup.finish_export(uuid, bigint, boolean) from public;

-- Exports whose persons are to be told by mail, with their addresses, as far as those are confirmed; none in a copy of the project.
create function backup.export_mails() returns table (export uuid, address text, expires_at timestamptz, page text)
language plpgsql
stable
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('auth.users') is null then
    return;
  end if;
  return query
  select e.id, case when u.email_confirmed_at is not null then u.email::text end, e.expires_at, (
    select nullif(s.value, '') from backup.settings as s where s.name = 'export_page'
  )
  from backup.exports as e join auth.users as u on u.id = e.user_id
  where e.mail = 'due' and e.status = 'ready' and e.expires_at > backup.clock_now()
    and exists (select from backup.identity as i where i.standing = 'original')
  order by e.ready_at
  limit 50;
end
$$;
revoke all on function backup.export_mails() from public;

-- Calls the function that sends mail, where somebody is to be told. Whom nobody has told within an hour is told no more.
create function backup.call_mailer() returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  late record;
begin
  for late in
    select e.id from backup.exports as e
    where e.mail = 'due' and (e.status <> 'ready' or e.ready_at < backup.clock_now() - interval '1 hour')
  loop
    perform backup.note_export_mail(late.id, 'not sent: the function notify did not send it within an hour');
  end loop;
  perform backup.forget_import_mails();
  if exists (select from backup.exports as e where e.mail = 'due') or exists (select from backup.imports as m where m.mail = 'due') then
    perform backup.invoke('notify', '{"action": "deliver"}');
  end if;
exception
  -- without functions nobody is told
  when sqlstate 'HF002' then
    null;
end
$$;
revoke all on function backup.call_mailer() from public;

-- Whether their person was told by mail: `sent`, or why not.
create function backup.note_export_mail(id uuid, told text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.known_export(id);
begin
  update backup.exports as e set mail = pg_catalog.left(told, 300) where e.id = ours.id;
  perform backup.audit('export.told', 'export:' || ours.id, pg_catalog.jsonb_build_object('mail', pg_catalog.left(told, 300)));
end
$$;
revoke all on function backup.note_export_mail(uuid, text) from public;

-- HF413.
create function backup.fail_export(id uuid, token bigint, code text, message text, hint text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.held_export(id, token);
begin
  update backup.exports as e
  set status = 'failed', ended_at = backup.clock_now(), worker = null, next_leg_at = null, error_code = code,
    error_message = pg_catalog.left(message, 500), error_hint = pg_catalog.left(hint, 500)
  where e.id = ours.id
  returning e.* into ours;
  delete from backup.export_pieces as p where p.export_id = ours.id;
  perform backup.audit('export.failed', 'export:' || ours.id, backup.export_detail(ours));
end
$$;
revoke all on function backup.fail_export(uuid, bigint, text, text, text) from public;
