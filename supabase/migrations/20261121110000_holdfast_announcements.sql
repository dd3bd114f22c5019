-- Windows of maintenance, planned and in force, which an app shows to its users.

-- One line of 1 to 300 letters. Null is none.
create function backup.is_short_line(line text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select line is not null and pg_catalog.length(line) between 1 and 300 and line !~ '[[:cntrl:]]'
$$;
revoke all on function backup.is_short_line(text) from public;

-- Whom to ask -------------------------------------------------------------------------------------------------------------

insert into backup.settings (name, kind, value, pattern, note, personal) values
  ('contact_name', 'text', '', '^([^[:cntrl:]<>,"\\]{1,100})?$',
    'emergency contact: who; told with alerts and incidents, and to everybody in windows of maintenance', true),
  ('contact_email', 'text', '', '^([A-Za-z0-9._%+''-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,250}\.[A-Za-z]{2,63})?$',
    'emergency contact: e-mail; alerts that nobody acknowledges go there too', true),
  ('contact_phone', 'text', '', '^(\+?[0-9][0-9 ()./-]{2,38}[0-9])?$', 'emergency contact: telephone', true);

-- The emergency contact in one line, such as `Ada Admin, ada@example.org, +44 20 7946 0000`; '' when nothing is set.
create function backup.emergency_contact() returns text
language sql
stable
set search_path = ''
as $$
  select pg_catalog.concat_ws(
    ', ',
    (select nullif(s.value, '') from backup.settings as s where s.name = 'contact_name'),
    (select nullif(s.value, '') from backup.settings as s where s.name = 'contact_email'),
    (select nullif(s.value, '') from backup.settings as s where s.name = 'contact_phone')
  )
$$;
comment on function backup.emergency_contact() is 'Whom to ask in an emergency, in one line; empty when nobody was named.';
revoke all on function backup.emergency_contact() from public;

-- Windows -----------------------------------------------------------------------------------------------------------------

create table backup.announcements (
  id bigint generated always as identity primary key,
  message text not null,
  starts_at timestamptz not null,
  until timestamptz,
  status text not null default 'planned',
  announced_at timestamptz not null default backup.clock_now(),
  announced_by text not null default session_user,
  ended_at timestamptz,
  -- as it was when the window was announced: an app shows it to everybody, and who is refused is told
  contact text not null default backup.emergency_contact(),
  constraint message_is_a_short_line check (backup.is_short_line(message)),
  constraint status_is_known check (status in ('planned', 'in_force', 'ended')),
  constraint until_is_after_starts_at check (until > starts_at),
  constraint ended_announcement_says_when check ((status = 'ended') = (ended_at is not null))
);
comment on table backup.announcements is 'Windows of maintenance, planned and in force. Public through a view.';
create unique index announcements_one_in_force on backup.announcements (status) where status = 'in_force';
alter table backup.announcements enable row level security;
revoke all on table backup.announcements from public;

create view public.backup_announcements with (security_invoker = true) as
select a.id, a.message, a.starts_at, a.until, a.status, a.contact
from backup.announcements as a;
comment on view public.backup_announcements is 'Holdfast: windows of maintenance. Everybody may read those that have not ended.';
revoke all on table public.backup_announcements from public;

-- Announces a window ahead of time. HF003 when the times or the message do not fit. Returns its id.
create function backup.announce(message text, starts_at timestamptz, until timestamptz default null) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  announcement_id bigint;
begin
  if not backup.is_short_line(announce.message) or announce.starts_at is null or announce.until <= announce.starts_at then
    raise exception 'a window needs a message of 1 to 300 letters and a beginning before its end' using errcode = 'HF003';
  end if;
  insert into backup.announcements (message, starts_at, until)
  values (announce.message, announce.starts_at, announce.until)
  returning id into announcement_id;
  perform backup.audit('maintenance.announced', 'announcement:' || announcement_id, '{}');
  return announcement_id;
end
$$;
revoke all on function backup.announce(text, timestamptz, timestamptz) from public;

-- Takes a planned window back. HF008 when there is none of that id.
create function backup.withdraw_announcement(announcement_id bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.announcements as a set status = 'ended', ended_at = backup.clock_now()
  where a.id = announcement_id and a.status = 'planned';
  if not found then
    raise exception 'there is no planned announcement %', announcement_id using errcode = 'HF008';
  end if;
  perform backup.audit('maintenance.withdrawn', 'announcement:' || announcement_id, '{}');
end
$$;
revoke all on function backup.withdraw_announcement(bigint) from public;

-- Everybody may read what has not ended: an app shows it to people who are not signed in. A plain PostgreSQL has no API
-- roles; there the owner reads, and nobody else.
do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    -- a project may grant everything in public by default
    execute pg_catalog.format('revoke all on table public.backup_announcements from %I', api_role);
    continue when api_role = 'service_role';
    execute pg_catalog.format(
      'grant select (id, message, starts_at, until, status, contact) on backup.announcements to %I', api_role
    );
    execute pg_catalog.format('grant select on table public.backup_announcements to %I', api_role);
    execute pg_catalog.format(
      $policy$create policy %I on backup.announcements for select to %I using (status <> 'ended')$policy$,
      'announcements_are_public_to_' || api_role, api_role
    );
  end loop;
end
$$;
