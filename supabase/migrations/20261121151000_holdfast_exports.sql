-- Exports: what the project holds of one person, for that person. The row and its audit are committed before anything is read,
-- each link's audit before the link is made.
-- Lock order: advisory lock of the user → backup.exports → backup.export_files → backup.calls.

insert into backup.settings (name, kind, value, minimum, maximum, pattern, note) values
  ('exports_a_day', 'integer', '3', 1, 100, null, 'exports that one person may order within 24 hours'),
  ('exports_at_once', 'integer', '2', 1, 16, null, 'exports that are made at the same time; others wait'),
  ('backup_map', 'text', '', null, null, '^(\{.*\})?$',
    'backup.map.json for exports that the function makes: whose rows they are, and what of them is others'''),
  ('export_page', 'text', '', null, null, '^(https://[^\s<>"]{1,250})?$',
    'where people download their exports; stands in the mail that tells them');

-- Status: queued → making → ready → ending → removed; queued | making → failed → removed. `ready` whose time is over is as good
-- as `ending`. `making` has stages: rows are laid in one snapshot, files are copied, the document is put and signed.
create table backup.exports (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null,
  origin text not null,
  status text not null default 'queued',
  stage text not null default 'rows',
  by_function boolean not null,
  actor text not null,
  created_at timestamptz not null default backup.clock_now(),
  started_at timestamptz,
  -- the moment whose rows it holds
  consistent_at timestamptz,
  ready_at timestamptz,
  expires_at timestamptz,
  ended_at timestamptz,
  removed_at timestamptz,
  removal_error text,
  -- tables with rows of theirs, and those rows
  tables integer,
  rows bigint,
  files integer,
  files_done integer not null default 0,
  file_bytes bigint not null default 0,
  -- of what was laid, so that what is lost is seen
  pieces bigint,
  -- of the document up to its signature
  document_bytes bigint,
  -- of the document in the bucket, in their order: [{object, bytes, sha256}]
  parts jsonb not null default '[]',
  -- how often what was laid, or put, was gone and had to be made again
  again integer not null default 0,
  links integer not null default 0,
  -- `sent`, or why nobody was told by mail
  mail text,
  token bigint not null default 0,
  worker text,
  lease_until timestamptz,
  legs_begun integer not null default 0,
  next_leg_at timestamptz,
  error_code text,
  error_message text,
  error_hint text,
  constraint origin_is_known check (origin in ('user', 'admin', 'cli', 'check')),
  constraint status_is_known check (status in ('queued', 'making', 'ready', 'failed', 'ending', 'removed')),
  constraint stage_is_known check (stage in ('rows', 'files', 'document')),
  constraint ready_one_says_until_when check (status <> 'ready' or (ready_at is not null and expires_at is not null)),
  constraint expiry_is_within_seven_days check (expires_at <= ready_at + interval '7 days'),
  constraint removed_one_says_when check ((status = 'removed') = (removed_at is not null)),
  constraint failed_one_says_why check (status <> 'failed' or error_code is not null),
  constraint parts_are_a_list check (jsonb_typeof(parts) = 'array')
);
comment on table backup.exports is 'Exports of people''s own data, and what became of them.';
-- one at a time a person
create unique index exports_one_a_person on backup.exports (user_id) where status in ('queued', 'making');
create index exports_of_a_person on backup.exports (user_id, created_at);
create index exports_not_removed on backup.exports (created_at) where status <> 'removed';

-- Which rows are theirs, while they are read: gone before the transaction ends.
create unlogged table backup.export_rows (
  id bigint generated always as identity primary key,
  export_id uuid not null,
  -- of the table in the plan
  place integer not null,
  relation oid not null,
  row_at tid not null,
  shared boolean not null
);
comment on table backup.export_rows is 'Rows of an export that is being read, within its transaction.';

-- The document's bytes up to its signature, until it lies where it is fetched from. Unlogged: in no change stream and no backup;
-- after a crash the rows are read again.
create unlogged table backup.export_pieces (
  export_id uuid not null,
  place integer not null,
  piece bigint not null,
  -- where it begins in the document; null until all of it is laid
  begins bigint,
  body bytea not null,
  primary key (export_id, place, piece)
);
comment on table backup.export_pieces is 'Documents of exports that are being made.';
create index export_pieces_in_order on backup.export_pieces (export_id, begins);

-- Their files, until the export is removed. State: open → copied | missing.
create table backup.export_files (
  export_id uuid not null references backup.exports (id) on delete cascade,
  number integer not null,
  bucket_id text not null,
  name text not null,
  -- where it lies beside the document
  path text not null,
  version text,
  bytes bigint not null,
  content_type text,
  created_at timestamptz,
  updated_at timestamptz,
  metadata jsonb,
  state text not null default 'open',
  parts jsonb not null default '[]',
  -- how often it was another one when its copy was whole
  changed integer not null default 0,
  why text,
  primary key (export_id, number),
  constraint state_is_known check (state in ('open', 'copied', 'missing')),
  constraint missing_one_says_why check (state <> 'missing' or why is not null)
);
comment on table backup.export_files is 'Files of exports.';

do $$
declare
  ours text;
begin
  foreach ours in array array['exports', 'export_rows', 'export_pieces', 'export_files'] loop
    execute pg_catalog.format('alter table backup.%I enable row level security', ours);
    execute pg_catalog.format('revoke all on table backup.%I from public', ours);
  end loop;
end
$$;

create function backup.export_detail(ours backup.exports) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'user', backup.person_hash(ours.user_id::text), 'origin', ours.origin, 'rows', ours.rows, 'files', ours.files,
    'bytes', ours.document_bytes, 'expires_at', ours.expires_at, 'error', ours.error_code
  ))
$$;
revoke all on function backup.export_detail(backup.exports) from public;

create function backup.user_is_there(user_id uuid) returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('auth.users') is null then
    return false;
  end if;
  return exists (select from auth.users as u where u.id = user_is_there.user_id and u.deleted_at is null);
end
$$;
revoke all on function backup.user_is_there(uuid) from public;

-- Orders an export, or joins the one of this person that is under way (`joined`; its token is null). `origin`: `user` for one's
-- own, `admin`, `cli`; `check` for a sample that is thrown away. HF510 (user_not_found); HF465 (export_too_often) for a person's own orders.
create function backup.begin_export(
  user_id uuid, origin text, worker text default null, lease interval default null,
  out id uuid, out token bigint, out joined boolean
)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  allowed constant bigint := backup.setting_integer('exports_a_day');
  ordered bigint;
  next_at timestamptz;
  entry bigint;
  ours backup.exports;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:export:' || begin_export.user_id, 0));
  if not backup.user_is_there(begin_export.user_id) then
    raise exception 'there is no user %', begin_export.user_id using errcode = 'HF510';
  end if;
  select e.* into ours from backup.exports as e
  where e.user_id = begin_export.user_id and e.status in ('queued', 'making');
  if ours.origin = 'check' and begin_export.origin <> 'check' then
    -- nobody waits for a sample
    perform backup.end_export(ours.id);
  elsif ours.id is not null then
    begin_export.id := ours.id;
    begin_export.joined := true;
    return;
  end if;
  select count(*), min(e.created_at) + interval '24 hours' into ordered, next_at from (
    select e.created_at from backup.exports as e
    where e.user_id = begin_export.user_id and e.origin = 'user' and e.created_at > moment - interval '24 hours'
    order by e.created_at desc limit allowed
  ) as e;
  if begin_export.origin = 'user' and ordered >= allowed then
    raise exception 'this person has ordered % exports within 24 hours', ordered
      using errcode = 'HF465', hint = pg_catalog.format(
        'The next one may be ordered from %s on.', pg_catalog.to_char(next_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
      );
  end if;
  begin_export.id := pg_catalog.gen_random_uuid();
  entry := backup.audit(
    'export.requested', 'export:' || begin_export.id, pg_catalog.jsonb_build_object(
      'user', backup.person_hash(begin_export.user_id::text), 'origin', begin_export.origin
    )
  );
  insert into backup.exports (id, user_id, origin, by_function, actor, status, token, worker, lease_until, started_at)
  select begin_export.id, begin_export.user_id, begin_export.origin, begin_export.lease is null, l.actor,
    case when begin_export.lease is null then 'queued' else 'making' end, 1, begin_export.worker,
    moment + begin_export.lease, case when begin_export.lease is not null then moment end
  from backup.audit_log as l where l.id = entry;
  begin_export.token := 1;
  begin_export.joined := false;
end
$$;
revoke all on function backup.begin_export(uuid, text, text, interval) from public;

-- The row, locked until the caller's transaction ends. HF414 when there is none.
create function backup.known_export(id uuid) returns backup.exports
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports;
begin
  select e.* into ours from backup.exports as e where e.id = known_export.id for no key update;
  if ours.id is null then
    raise exception 'there is no export %', known_export.id
      using errcode = 'HF414', hint = '`holdfast export list` shows those that are there.';
  end if;
  return ours;
end
$$;
revoke all on function backup.known_export(uuid) from public;

-- A link is about to be made: counted, audited, and until when it lasts. `wanted` null: a day. HF415 where there is nothing to
-- link to, HF003 for a time behind the export's own end.
create function backup.link_export(id uuid, wanted interval default null) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.known_export(id);
  until timestamptz;
begin
  if ours.status <> 'ready' or ours.expires_at <= backup.clock_now() then
    raise exception 'export % is %', ours.id, case ours.status when 'ready' then 'over' else ours.status end
      using errcode = 'HF415', hint = 'Only one that is ready has a link; order another one when its time is over.';
  end if;
  until := coalesce(backup.clock_now() + wanted, least(backup.clock_now() + interval '24 hours', ours.expires_at));
  if wanted < interval '1 second' or until > ours.expires_at then
    raise exception 'a link to export % lasts until % at most', ours.id,
      pg_catalog.to_char(ours.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
      using errcode = 'HF003';
  end if;
  update backup.exports as e set links = e.links + 1 where e.id = ours.id returning e.* into ours;
  perform backup.audit(
    'export.linked', 'export:' || ours.id,
    backup.export_detail(ours) || pg_catalog.jsonb_build_object('until', until, 'link', ours.links)
  );
  return until;
end
$$;
revoke all on function backup.link_export(uuid, interval) from public;

-- Somebody wants it gone; whoever makes it loses it. False when its files are gone already. HF414.
create function backup.end_export(id uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.known_export(id);
begin
  if ours.status = 'removed' then
    return false;
  elsif ours.status <> 'ending' then
    update backup.exports as e
    set status = 'ending', ended_at = coalesce(e.ended_at, backup.clock_now()), token = e.token + 1, worker = null, next_leg_at = null
    where e.id = ours.id
    returning e.* into ours;
    delete from backup.export_pieces as p where p.export_id = ours.id;
    perform backup.audit('export.end_asked', 'export:' || ours.id, backup.export_detail(ours));
  end if;
  return true;
end
$$;
revoke all on function backup.end_export(uuid) from public;

-- Whose objects have to go, and since when.
create function backup.due_exports() returns table (export uuid, due_since timestamptz)
language sql
stable
set search_path = ''
as $$
  select e.id, case when e.status = 'ready' then e.expires_at else e.ended_at end
  from backup.exports as e
  where e.status in ('failed', 'ending') or (e.status = 'ready' and e.expires_at <= backup.clock_now())
$$;
revoke all on function backup.due_exports() from public;

-- Nothing of it is in the bucket any more.
create function backup.export_removed(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.known_export(id);
begin
  if ours.id not in (select due.export from backup.due_exports() as due) then
    return;
  end if;
  update backup.exports as e
  set status = 'removed', removed_at = backup.clock_now(), ended_at = coalesce(e.ended_at, e.expires_at), removal_error = null
  where e.id = ours.id
  returning e.* into ours;
  delete from backup.export_pieces as p where p.export_id = ours.id;
  delete from backup.export_files as f where f.export_id = ours.id;
  perform backup.audit('export.removed', 'export:' || ours.id, backup.export_detail(ours));
  perform backup.resolve_alert('export_not_removed', 'export:' || ours.id);
end
$$;
revoke all on function backup.export_removed(uuid) from public;

-- What keeps objects from being removed, for the alert.
create function backup.exports_stay(message text) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.exports as e
  set removal_error = pg_catalog.left(message, 500)
  where e.id in (select due.export from backup.due_exports() as due)
$$;
revoke all on function backup.exports_stay(text) from public;

-- Whoever fetched it with the CLI has all of it.
create function backup.export_downloaded(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.exports := backup.known_export(id);
begin
  perform backup.audit('export.downloaded', 'export:' || ours.id, backup.export_detail(ours));
end
$$;
revoke all on function backup.export_downloaded(uuid) from public;
