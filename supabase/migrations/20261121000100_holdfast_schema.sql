-- Schema `backup`: time, settings, the identity of this install, and who may read.
-- Not exposed through the API. Nothing here is granted to anybody who is not named.

create schema backup;
comment on schema backup is 'Holdfast: runs, tasks, schedules, audit. Owned by the installer, exposed to no API.';
revoke all on schema backup from public;

-- The only source of time in this schema. Tests replace the function; no setting and no row can move it.
create function backup.clock_now() returns timestamptz
language sql
volatile
set search_path = ''
as $$
  select pg_catalog.clock_timestamp()
$$;
comment on function backup.clock_now() is 'The present moment; the only clock of this schema.';
revoke all on function backup.clock_now() from public;

-- `2026-11-22T10:00:00Z`, for documents.
create function backup.moment_text(moment timestamptz) returns text
language sql
stable
strict
set search_path = ''
as $$
  select pg_catalog.to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;
revoke all on function backup.moment_text(timestamptz) from public;

-- Settings -----------------------------------------------------------------------------------------------------------

create table backup.settings (
  name text primary key,
  kind text not null,
  value text not null,
  minimum bigint,
  maximum bigint,
  pattern text,
  note text not null,
  -- the value is somebody's name or address: the audit gets its keyed hash
  personal boolean not null default false,
  changed_at timestamptz not null default backup.clock_now(),
  constraint kind_is_known check (kind in ('integer', 'text')),
  constraint integer_has_bounds check ((kind = 'integer') = (minimum is not null and maximum is not null)),
  constraint text_has_a_pattern check ((kind = 'text') = (pattern is not null)),
  constraint value_is_an_integer_within_its_bounds check (
    case
      when kind <> 'integer' then true
      when value !~ '^[0-9]{1,15}$' then false
      else value::bigint between minimum and maximum
    end
  ),
  constraint value_matches_its_pattern check (kind <> 'text' or value ~ pattern)
);
comment on table backup.settings is 'What may be tuned, each value with its bounds. Time spans are whole seconds.';
alter table backup.settings enable row level security;
revoke all on table backup.settings from public;

insert into backup.settings (name, kind, value, minimum, maximum, pattern, note) values
  ('concurrency', 'integer', '2', 1, 16, null, 'legs of one run that work at the same time'),
  ('run_dead_seconds', 'integer', '1800', 60, 86400, null,
    'a run without a sign of life for this long is failed'),
  ('missed_run_grace_seconds', 'integer', '1800', 60, 86400, null,
    'how late a scheduled run may be before an alert is raised'),
  ('call_timeout_seconds', 'integer', '10', 1, 60, null, 'how long a call of a function may take to be answered');

-- The value of an integer setting; HF002 (setting_missing) when there is none of that name.
create function backup.setting_integer(setting_name text) returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  found_value bigint;
begin
  select s.value::bigint into found_value from backup.settings as s where s.name = setting_name and s.kind = 'integer';
  if found_value is null then
    raise exception 'there is no integer setting %', setting_name
      using errcode = 'HF002', hint = 'The names stand in backup.settings.';
  end if;
  return found_value;
end
$$;
revoke all on function backup.setting_integer(text) from public;

-- Identity -----------------------------------------------------------------------------------------------------------

-- One row: which project this install believes to be in, and where it may write. What changes it is in `identity`.
create table backup.identity (
  singleton boolean primary key default true,
  install_id uuid not null default gen_random_uuid(),
  -- written by the first function that runs here
  project_ref text,
  -- where the functions run now, while that is another project
  present_ref text,
  system_identifier text not null,
  database_name text not null,
  installed_at timestamptz not null default backup.clock_now(),
  standing text not null default 'original',
  -- all that it writes is below this in its stores; '' is their top
  store_prefix text not null default '',
  copied_because text,
  noticed_at timestamptz,
  -- a person has said that it takes the original's place: the next writer does it
  adopting boolean not null default false,
  -- when it took the original's place: claims of before, in further stores, are overruled too
  adopted_at timestamptz,
  constraint there_is_one_identity check (singleton),
  constraint project_ref_is_a_short_name check (project_ref ~ '^[a-z0-9-]{1,63}$'),
  constraint standing_is_known check (standing in ('original', 'copy')),
  constraint store_prefix_is_a_plain_name check (store_prefix ~ '^(clone-[0-9a-f]{8})?$'),
  constraint copy_writes_below_a_prefix check (standing = 'original' or store_prefix <> ''),
  constraint copy_says_why_and_since_when check (
    (standing = 'copy') = (copied_because is not null) and (standing = 'copy') = (noticed_at is not null)
  ),
  constraint only_a_copy_adopts check (standing = 'copy' or not adopting)
);
comment on table backup.identity is 'What tells this database apart from a clone of it.';
alter table backup.identity enable row level security;
revoke all on table backup.identity from public;

insert into backup.identity (system_identifier, database_name)
select c.system_identifier::text, current_database()
from pg_catalog.pg_control_system() as c;

-- Administrators -----------------------------------------------------------------------------------------------------

-- No foreign key to auth.users: it would lock that table on every sign-up's deletion, and a plain PostgreSQL has none.
create table backup.admins (
  user_id uuid primary key,
  added_by text not null default session_user,
  added_at timestamptz not null default backup.clock_now(),
  note text not null default ''
);
comment on table backup.admins is 'The users who may read what is recorded here, once signed in with a second factor.';
alter table backup.admins enable row level security;
revoke all on table backup.admins from public;

-- What the session of these claims, which are of a genuine token, is worth now: `aal2`, `aal1`; null where it has ended, where
-- its user was banned or deleted, and where there is no Auth. A second factor that was taken away leaves `aal1`, while the
-- token still says what it was. By primary keys: Auth may hold millions of sessions.
create function backup.session_level(claims jsonb) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  wanted constant uuid := case
    when claims ->> 'session_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (claims ->> 'session_id')::uuid
  end;
begin
  if wanted is null or pg_catalog.to_regclass('auth.sessions') is null then
    return null;
  end if;
  return (
    select case
      when s.aal = 'aal2' and exists (
        select from auth.mfa_factors as f where f.id = s.factor_id and f.user_id = s.user_id and f.status = 'verified'
      ) then 'aal2'
      else 'aal1'
    end
    from auth.sessions as s join auth.users as u on u.id = s.user_id
    where s.id = wanted and u.id::text = claims ->> 'sub' and (s.not_after is null or s.not_after > moment)
      and u.deleted_at is null and (u.banned_until is null or u.banned_until <= moment)
  );
end
$$;
revoke all on function backup.session_level(jsonb) from public;

-- Is the caller of this API request an administrator, in a session that has a second factor and still lasts? Policies ask
-- it once a query (`(select backup.is_admin())`): docs/decisions/0027-sessions.md says what that costs.
create function backup.is_admin() returns boolean
language sql
stable
-- definer because the policies that ask are evaluated for callers who may read neither backup.admins nor the sessions of Auth
security definer
set search_path = ''
as $$
  select exists (
    select
    from backup.admins as a,
      (select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb as claims) as request
    where a.user_id::text = request.claims ->> 'sub'
      and request.claims ->> 'aal' = 'aal2'
      and backup.session_level(request.claims) = 'aal2'
  )
$$;
comment on function backup.is_admin() is 'True for an administrator whose session has a second factor and lasts.';
revoke all on function backup.is_admin() from public;
