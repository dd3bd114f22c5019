-- Imports of exports: a person's own rows and files out of a document that this install, or one whose place it took, has signed.
-- An administrator asks, another one or the person agrees, the CLI carries it out. At the dashboard (SQL editor):
--   select * from public.backup_imports order by asked_at desc;
-- Lock order: advisory lock of the document → backup.imports.

-- Installs whose place in the store this one took over: what they signed is this project's.
create table backup.adopted_installs (
  install_id uuid primary key,
  adopted_at timestamptz not null default backup.clock_now()
);
comment on table backup.adopted_installs is 'Installs of Holdfast whose place in the store this one has taken.';

-- Status: asked → agreed → done; asked | agreed → ended. One that is asked or agreed and whose time is over is as good as ended,
-- unless it has begun: then it may be gone on with.
create table backup.imports (
  id uuid primary key default gen_random_uuid(),
  -- of the document: SHA-256 as its signature has it, what it says of itself
  document text not null,
  export_id uuid not null,
  install_id uuid not null,
  user_id uuid not null,
  status text not null default 'asked',
  asked_by text not null,
  asked_at timestamptz not null default backup.clock_now(),
  -- `administrator`: another one than who asked; `person`: whose data it is, by a fresh sign-in
  agreed_as text,
  agreed_by text,
  agreed_at timestamptz,
  expires_at timestamptz not null,
  begun_at timestamptz,
  ended_at timestamptz,
  rows bigint,
  files integer,
  -- `due`, `sent`, or why nobody was told by mail
  mail text,
  constraint document_is_a_hash check (document ~ '^[0-9a-f]{64}$'),
  constraint status_is_known check (status in ('asked', 'agreed', 'done', 'ended')),
  constraint agreement_says_whose check ((agreed_as is null) = (agreed_by is null) and (agreed_as is null) = (agreed_at is null)),
  constraint agreed_as_is_known check (agreed_as in ('administrator', 'person')),
  constraint nobody_agrees_with_oneself check (agreed_as is distinct from 'administrator' or agreed_by <> asked_by),
  constraint nothing_goes_in_before_it_is_agreed check (status not in ('agreed', 'done') or agreed_at is not null),
  constraint over_one_says_when check ((status in ('done', 'ended')) = (ended_at is not null))
);
comment on table backup.imports is 'Imports of exports: who asked, who agreed, what came of it.';
create unique index imports_one_a_document on backup.imports (document) where status in ('asked', 'agreed');

alter table backup.adopted_installs enable row level security;
alter table backup.imports enable row level security;
revoke all on table backup.adopted_installs, backup.imports from public;

create function backup.import_detail(ours backup.imports) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'user', backup.person_hash(ours.user_id::text), 'export', ours.export_id, 'document', ours.document, 'agreed_as', ours.agreed_as,
    'rows', ours.rows, 'files', ours.files
  ))
$$;
revoke all on function backup.import_detail(backup.imports) from public;

-- The place of these was taken. Their own id counts as adopted at all times.
create function backup.note_adopted(installs uuid[]) returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.adopted_installs (install_id)
  select distinct a.id from pg_catalog.unnest(installs) as a (id), backup.identity as i where a.id <> i.install_id
  on conflict do nothing
$$;
revoke all on function backup.note_adopted(uuid[]) from public;

-- What forbids an import of a document of that install about that person, whoever asks: HF476 (import_foreign), HF473 (user_erased).
create function backup.refuse_import(install_id uuid, user_id uuid) returns void
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
begin
  if not backup.is_original() then
    raise exception 'this database is a copy of a project, or may be one: nothing is imported into it'
      using errcode = 'HF476', hint = 'Where it goes on in the original''s place: `holdfast adopt`.';
  elsif not exists (select from backup.identity as i where i.install_id = refuse_import.install_id)
    and not exists (select from backup.adopted_installs as a where a.install_id = refuse_import.install_id)
  then
    raise exception 'the document is of a project whose identity was not adopted here' using errcode = 'HF476';
  elsif exists (
    select from backup.erasures as e
    where e.person = backup.person_hash(refuse_import.user_id::text) and e.status <> 'begun'
  ) then
    raise exception 'the person was erased, and is not brought back' using errcode = 'HF473';
  end if;
end
$$;
revoke all on function backup.refuse_import(uuid, uuid) from public;

-- The hash of the signed-in person of this session. HF007 where nobody is.
create function backup.import_actor() returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  person text := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
begin
  if person is null then
    raise exception 'an import is asked for and agreed to by people' using errcode = 'HF007';
  end if;
  return backup.person_hash(person);
end
$$;
revoke all on function backup.import_actor() from public;

-- The row, locked until the caller's transaction ends. HF414.
create function backup.known_import(id uuid) returns backup.imports
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.imports;
begin
  select m.* into ours from backup.imports as m where m.id = known_import.id for no key update;
  if ours.id is null then
    raise exception 'there is no import %', known_import.id
      using errcode = 'HF414', hint = '`holdfast import-export list` shows those that are there.';
  end if;
  return ours;
end
$$;
revoke all on function backup.known_import(uuid) from public;

-- One whose time is over and that has not begun is over.
create function backup.end_late_imports() returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  late backup.imports;
begin
  for late in
    update backup.imports as m
    set status = 'ended', ended_at = backup.clock_now()
    where m.status in ('asked', 'agreed') and m.begun_at is null and m.expires_at <= backup.clock_now()
    returning m.*
  loop
    perform backup.audit('import.ended', 'import:' || late.id, backup.import_detail(late) || '{"because": "its time is over"}');
  end loop;
end
$$;
revoke all on function backup.end_late_imports() from public;

-- An administrator asks, for a day; the one of this document that is open is joined. HF007, HF473, HF476.
create function backup.ask_import(
  document text, export_id uuid, install_id uuid, user_id uuid, out id uuid, out joined boolean
)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  asker constant text := backup.import_actor();
  ours backup.imports;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:import:' || ask_import.document, 0));
  perform backup.refuse_import(ask_import.install_id, ask_import.user_id);
  perform backup.end_late_imports();
  select m.id into ask_import.id from backup.imports as m
  where m.document = ask_import.document and m.status in ('asked', 'agreed');
  joined := ask_import.id is not null;
  if joined then
    return;
  end if;
  insert into backup.imports as m (document, export_id, install_id, user_id, asked_by, expires_at)
  values (
    ask_import.document, ask_import.export_id, ask_import.install_id, ask_import.user_id, asker,
    backup.clock_now() + interval '24 hours'
  )
  returning m.* into ours;
  ask_import.id := ours.id;
  perform backup.audit('import.asked', 'import:' || ours.id, backup.import_detail(ours));
end
$$;
revoke all on function backup.ask_import(text, uuid, uuid, uuid) from public;

-- Another administrator than who asked agrees (`as_person` false), or whose data it is: for a day from now. Whether they may speak
-- at all, the door has asked. HF007, HF414, HF415, HF473, HF476.
create function backup.agree_import(id uuid, as_person boolean) returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
declare
  actor constant text := backup.import_actor();
  ours backup.imports;
begin
  perform backup.end_late_imports();
  ours := backup.known_import(agree_import.id);
  if as_person and actor <> backup.person_hash(ours.user_id::text) then
    raise exception 'the data is another person''s' using errcode = 'HF007';
  elsif not as_person and actor = ours.asked_by then
    raise exception 'who has asked for an import does not agree to it as well'
      using errcode = 'HF007', hint = 'Another administrator agrees, or whose data it is: by signing in, and the action `consent`.';
  elsif ours.status <> 'asked' then
    raise exception 'import % is %', ours.id, ours.status using errcode = 'HF415', hint = 'Ask for it anew.';
  end if;
  perform backup.refuse_import(ours.install_id, ours.user_id);
  update backup.imports as m
  set status = 'agreed', agreed_as = case when as_person then 'person' else 'administrator' end, agreed_by = actor,
    agreed_at = backup.clock_now(), expires_at = backup.clock_now() + interval '24 hours'
  where m.id = ours.id
  returning m.* into ours;
  perform backup.audit('import.agreed', 'import:' || ours.id, backup.import_detail(ours));
  return ours.expires_at;
end
$$;
revoke all on function backup.agree_import(uuid, boolean) from public;

-- It is not to be after all. False where it is over already. What has begun to go in stays. HF414.
create function backup.withdraw_import(id uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.imports := backup.known_import(id);
begin
  if ours.status not in ('asked', 'agreed') then
    return false;
  end if;
  update backup.imports as m set status = 'ended', ended_at = backup.clock_now() where m.id = ours.id returning m.* into ours;
  perform backup.audit('import.ended', 'import:' || ours.id, backup.import_detail(ours) || '{"because": "it was withdrawn"}');
  return true;
end
$$;
revoke all on function backup.withdraw_import(uuid) from public;

-- The agreed import of this document, before anything goes in; the same again where it was broken off. HF473, HF476, HF477
-- (import_not_agreed).
create function backup.begin_import(document text, install_id uuid, user_id uuid) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours backup.imports;
begin
  perform backup.refuse_import(begin_import.install_id, begin_import.user_id);
  perform backup.end_late_imports();
  select m.* into ours from backup.imports as m
  where m.document = begin_import.document and m.status in ('asked', 'agreed') for no key update;
  if ours.id is null and exists (
    select from backup.imports as m where m.document = begin_import.document and m.status = 'done'
  ) then
    raise exception 'the document was imported, and nobody has agreed to another time' using errcode = 'HF477';
  elsif ours.id is null then
    raise exception 'nobody has asked for the import of this document, or the time for it is over' using errcode = 'HF477';
  elsif ours.status = 'asked' then
    raise exception 'import % was asked for, and nobody has agreed to it', ours.id using errcode = 'HF477';
  end if;
  if ours.begun_at is null then
    update backup.imports as m set begun_at = backup.clock_now() where m.id = ours.id returning m.* into ours;
  end if;
  perform backup.audit('import.begun', 'import:' || ours.id, backup.import_detail(ours));
  return ours.id;
end
$$;
revoke all on function backup.begin_import(text, uuid, uuid) from public;

-- All of it is in place, was read again and holds together: its person is told by mail. HF414, HF415.
create function backup.finish_import(id uuid, rows bigint, files integer) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.imports := backup.known_import(id);
begin
  if ours.status <> 'agreed' then
    raise exception 'import % is %', ours.id, ours.status using errcode = 'HF415';
  end if;
  update backup.imports as m
  set status = 'done', ended_at = backup.clock_now(), rows = finish_import.rows, files = finish_import.files, mail = 'due'
  where m.id = ours.id
  returning m.* into ours;
  perform backup.audit('import.done', 'import:' || ours.id, backup.import_detail(ours));
  perform backup.call_mailer();
end
$$;
revoke all on function backup.finish_import(uuid, bigint, integer) from public;

-- Whose imports are done and who are to be told by mail, as `export_mails`.
create function backup.import_mails() returns table (import uuid, address text)
language plpgsql
stable
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('auth.users') is null then
    return;
  end if;
  return query
  select m.id, case when u.email_confirmed_at is not null then u.email::text end
  from backup.imports as m left join auth.users as u on u.id = m.user_id
  where m.mail = 'due' and m.status = 'done' and backup.is_original()
  order by m.ended_at
  limit 50;
end
$$;
revoke all on function backup.import_mails() from public;

-- Whether their person was told by mail: `sent`, or why not. HF414.
create function backup.note_import_mail(id uuid, told text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.imports := backup.known_import(id);
begin
  update backup.imports as m set mail = pg_catalog.left(told, 300) where m.id = ours.id;
  perform backup.audit('import.told', 'import:' || ours.id, pg_catalog.jsonb_build_object('mail', pg_catalog.left(told, 300)));
end
$$;
revoke all on function backup.note_import_mail(uuid, text) from public;

-- Whom nobody has told within an hour is told no more.
create function backup.forget_import_mails() returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.note_import_mail(m.id, 'not sent: the function notify did not send it within an hour')
  from backup.imports as m
  where m.mail = 'due' and m.ended_at < backup.clock_now() - interval '1 hour';
end
$$;
revoke all on function backup.forget_import_mails() from public;

create view public.backup_imports with (security_invoker = true) as
select
  m.id, m.document, m.export_id, m.install_id, m.user_id, m.status, m.asked_by, m.asked_at, m.agreed_as, m.agreed_by, m.agreed_at,
  m.expires_at, m.begun_at, m.ended_at, m.rows, m.files, m.mail
from backup.imports as m;
comment on view public.backup_imports is 'Holdfast: imports of exports. Administrators with a second factor only.';
revoke all on table public.backup_imports from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_imports from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_imports on backup.imports for select to authenticated using ((select backup.is_admin()));
  grant select (
    id, document, export_id, install_id, user_id, status, asked_by, asked_at, agreed_as, agreed_by, agreed_at, expires_at, begun_at,
    ended_at, rows, files, mail
  ) on backup.imports to authenticated;
  grant select on table public.backup_imports to authenticated;
end
$$;
