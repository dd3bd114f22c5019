-- Restores: what was asked for, how far it is, what it changed and how long it took. Names of tables and counts stand here,
-- never a row's value; the id of a user who is restored stands in backup.restores alone, and in the audit as a keyed hash.
-- How they go is in 0012 and 0014. Lock order: the row of one restore → the advisory lock holdfast:restores → the relations
-- of its side schema.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('side_schema_seconds', 'integer', '604800', 60, 31536000,
    'how long rows stay in a side schema after the restore that put them there has ended');

-- Names and counts out of a list of tables, and nothing else that may stand in it.
create function backup.restored_tables(tables jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select coalesce(
    pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.to_jsonb(t)) order by t.schema, t.name), '[]'
  )
  from pg_catalog.jsonb_to_recordset(restored_tables.tables) as t (
    schema text, name text, rows bigint, inserted bigint, updated bigint, deleted bigint, conflicts bigint
  )
$$;
revoke all on function backup.restored_tables(jsonb) from public;

create table backup.restores (
  id uuid primary key default gen_random_uuid(),
  scope text not null,
  mode text not null,
  status text not null default 'planned',
  -- the last of planned, loading, applying that it was in: a resumed one goes on there
  stage text not null default 'planned',
  -- no foreign key: a backup is restored from its store also where no run of this database took it
  source_backup uuid not null,
  point_at timestamptz,
  target_label text not null,
  target_is_here boolean not null,
  user_id text,
  side_schema text unique,
  side_expires_at timestamptz,
  side_dropped_at timestamptz,
  -- [{schema, name, rows, inserted, updated, deleted, conflicts}]
  tables jsonb not null default '[]',
  safety_run uuid,
  -- what a worker needs to go on; it holds no row's value
  state jsonb not null default '{}',
  steps_done integer not null default 0,
  steps_total integer,
  rows_done bigint not null default 0,
  worker text,
  token bigint not null default 1,
  lease_until timestamptz,
  -- a function works on it, leg by leg: when the next one is sent where none is at work; null: the CLI does
  next_leg_at timestamptz,
  -- legs that were claimed since one came to its end
  legs_begun integer not null default 0,
  cancel_requested_at timestamptz,
  requested_by text not null,
  started_at timestamptz not null default backup.clock_now(),
  heartbeat_at timestamptz not null default backup.clock_now(),
  finished_at timestamptz,
  error_code text,
  error_message text,
  error_hint text,
  measured_seconds numeric,
  objective_seconds bigint,
  within_objective boolean generated always as (measured_seconds <= objective_seconds) stored,
  constraint scope_is_known check (scope in ('table', 'record', 'user', 'full', 'point', 'files')),
  constraint mode_is_known check (mode in ('beside', 'missing', 'merge', 'replace', 'in_place')),
  constraint status_is_known check (status in (
    'planned', 'loading', 'applying', 'beside', 'succeeded', 'failed', 'cancelled'
  )),
  constraint stage_is_known check (stage in ('planned', 'loading', 'applying')),
  constraint active_restore_is_in_its_stage check (status not in ('planned', 'loading', 'applying') or status = stage),
  constraint only_a_restore_in_place_applies check (mode <> 'beside' or stage <> 'applying'),
  constraint restore_beside_is_not_in_place check (status <> 'beside' or (mode = 'beside' and side_schema is not null)),
  constraint restore_of_a_user_says_of_whom check ((scope = 'user') = (user_id is not null)),
  constraint side_schema_has_its_form check (side_schema ~ '^restore_[0-9a-f]{8}$'),
  constraint side_schema_has_an_expiry check ((side_schema is null) = (side_expires_at is null)),
  constraint only_a_side_schema_is_dropped check (side_dropped_at is null or side_schema is not null),
  constraint tables_hold_names_and_counts_alone check (tables = backup.restored_tables(tables)),
  constraint state_is_an_object check (jsonb_typeof(state) = 'object'),
  constraint steps_are_not_negative check (steps_done >= 0 and steps_total >= 0 and rows_done >= 0),
  constraint ended_restore_says_when check (
    (status in ('beside', 'succeeded', 'failed', 'cancelled')) = (finished_at is not null)
  ),
  constraint finished_at_is_not_before_started_at check (finished_at >= started_at),
  constraint only_an_active_restore_is_leased check (finished_at is null or lease_until is null),
  constraint failed_restore_says_why check ((status = 'failed') = (error_code is not null and error_message is not null)),
  constraint finished_restore_is_measured check (
    (status in ('beside', 'succeeded')) = (measured_seconds is not null and objective_seconds is not null)
  )
);
comment on table backup.restores is 'One row a restore: what was asked for, how far it is, what it changed, how long it took.';
create index restores_by_age on backup.restores (started_at);
create index restores_active on backup.restores (lease_until) where status in ('planned', 'loading', 'applying');

alter table backup.restores enable row level security;
revoke all on table backup.restores from public;

-- What the audit says of a restore; the user as a keyed hash.
create function backup.restore_detail(restore backup.restores) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'scope', (restore).scope, 'mode', (restore).mode, 'backup', (restore).source_backup, 'point', (restore).point_at,
    'target', (restore).target_label, 'person', backup.person_hash((restore).user_id)
  ))
$$;
revoke all on function backup.restore_detail(backup.restores) from public;

-- In one place at a time: HF415 (run_state) when another restore is at work in place on one of the same tables, naming it.
-- A full one is at work on all of them; one of rows that names no table yet, on none. Beside, any number may go on.
create function backup.refuse_same_tables(restore backup.restores) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  other backup.restores;
begin
  if restore.mode = 'beside' then
    return;
  end if;
  -- held until the caller's transaction ends: of two that begin at once the second sees the first
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:restores', 0));
  select o.* into other
  from backup.restores as o
  where o.id <> restore.id and o.mode <> 'beside' and o.status in ('planned', 'loading', 'applying')
    and o.target_is_here = restore.target_is_here
    and (o.target_is_here or o.target_label = restore.target_label)
    and (
      o.scope in ('full', 'point')
      or restore.scope in ('full', 'point')
      or exists (
        select
        from pg_catalog.jsonb_array_elements(o.tables) as theirs (t)
        join pg_catalog.jsonb_array_elements(restore.tables) as ours (t)
          on ours.t ->> 'schema' = theirs.t ->> 'schema' and ours.t ->> 'name' = theirs.t ->> 'name'
      )
    )
  order by o.started_at
  limit 1;
  if other.id is not null then
    raise exception 'restore % is at work on the same tables', other.id
      using errcode = 'HF415', hint = 'Wait for its end, go on with it, or cancel it.';
  end if;
end
$$;
revoke all on function backup.refuse_same_tables(backup.restores) from public;

-- The row, locked until the caller's transaction ends. HF414 when there is none.
create function backup.known_restore(id uuid) returns backup.restores
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores;
begin
  select r.* into ours from backup.restores as r where r.id = known_restore.id for no key update;
  if ours.id is null then
    raise exception 'there is no restore %', known_restore.id using errcode = 'HF414';
  end if;
  return ours;
end
$$;
revoke all on function backup.known_restore(uuid) from public;

-- The row, locked, for the worker whose token it is. HF414 when there is none, HF413 (lease_lost) when another has taken
-- over or when it has ended.
create function backup.held_restore(id uuid, token bigint) returns backup.restores
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores := backup.known_restore(id);
begin
  if ours.token <> held_restore.token or ours.finished_at is not null then
    raise exception 'restore % is % and not yours any more', ours.id, ours.status using errcode = 'HF413';
  end if;
  return ours;
end
$$;
revoke all on function backup.held_restore(uuid, bigint) from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_restores with (security_invoker = true) as
select
  r.id, r.scope, r.mode, r.status, r.source_backup, r.point_at, r.target_label, r.target_is_here, r.user_id, r.side_schema,
  r.side_expires_at, r.side_dropped_at, r.tables, r.safety_run, r.steps_done, r.steps_total, r.rows_done,
  r.cancel_requested_at, r.started_at, r.heartbeat_at, r.finished_at, r.error_code, r.error_message,
  r.error_hint, r.measured_seconds, r.objective_seconds, r.within_objective, r.requested_by
from backup.restores as r;
comment on view public.backup_restores is 'Holdfast: restores. Administrators with a second factor only.';
revoke all on table public.backup_restores from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_restores from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_restores on backup.restores
    for select to authenticated using ((select backup.is_admin()));
  grant select (
    id, scope, mode, status, source_backup, point_at, target_label, target_is_here, user_id, side_schema, side_expires_at,
    side_dropped_at, tables, safety_run, steps_done, steps_total, rows_done, cancel_requested_at, requested_by, started_at,
    heartbeat_at, finished_at, error_code, error_message, error_hint, measured_seconds, objective_seconds, within_objective
  ) on backup.restores to authenticated;
  grant select on table public.backup_restores to authenticated;
end
$$;
