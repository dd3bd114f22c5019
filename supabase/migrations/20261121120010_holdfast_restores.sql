-- Restores: what was asked for, how far it is, what it changed and how long it took. Names of tables and counts stand here,
-- never a row's value; the id of a user who is restored stands in backup.restores alone, and in the audit as a keyed hash.
-- Lock order: the row of one restore → the advisory lock holdfast:restores → the relations of its side schema.

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
  constraint scope_is_known check (scope in ('table', 'record', 'user', 'full', 'point')),
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

-- The row, locked, for the worker whose token it is. HF414 when there is none, HF413 (lease_lost) when another has taken
-- over or when it has ended.
create function backup.held_restore(id uuid, token bigint) returns backup.restores
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores;
begin
  select r.* into ours from backup.restores as r where r.id = held_restore.id for no key update;
  if ours.id is null then
    raise exception 'there is no restore %', held_restore.id using errcode = 'HF414';
  end if;
  if ours.token <> held_restore.token or ours.finished_at is not null then
    raise exception 'restore % is % and not yours any more', ours.id, ours.status using errcode = 'HF413';
  end if;
  return ours;
end
$$;
revoke all on function backup.held_restore(uuid, bigint) from public;

-- Begins one. Of `facts`: scope, mode, source_backup, target_label; optional point_at, target_is_here (true), user_id, side
-- (true for tables, rows and users), side_seconds, tables, steps_total, safety_run, state, worker, lease_seconds (90),
-- requested_by, by_function (false: nobody has it yet, legs of the function do). A side schema is named here, where no schema has the name, and made by whoever fills it.
-- HF415 for a second one in place on the same tables.
create function backup.begin_restore(facts jsonb, out id uuid, out side_schema text, out token bigint)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours backup.restores;
begin
  if coalesce((facts ->> 'side')::boolean, facts ->> 'scope' in ('table', 'record', 'user')) then
    loop
      side_schema := 'restore_' || pg_catalog.substr(pg_catalog.md5(gen_random_uuid()::text), 1, 8);
      exit when pg_catalog.to_regnamespace(side_schema) is null
        and not exists (select from backup.restores as r where r.side_schema = begin_restore.side_schema);
    end loop;
  end if;
  insert into backup.restores as r (
    scope, mode, source_backup, point_at, target_label, target_is_here, user_id, side_schema, side_expires_at, tables,
    steps_total, safety_run, state, worker, lease_until, next_leg_at, requested_by
  )
  values (
    facts ->> 'scope', facts ->> 'mode', (facts ->> 'source_backup')::uuid, (facts ->> 'point_at')::timestamptz,
    facts ->> 'target_label', coalesce((facts ->> 'target_is_here')::boolean, true), facts ->> 'user_id',
    begin_restore.side_schema,
    case when begin_restore.side_schema is not null then
      backup.clock_now() + interval '1 second'
        * coalesce((facts ->> 'side_seconds')::bigint, backup.setting_integer('side_schema_seconds'))
    end,
    backup.restored_tables(facts -> 'tables'), (facts ->> 'steps_total')::integer, (facts ->> 'safety_run')::uuid,
    coalesce(facts -> 'state', '{}'), facts ->> 'worker',
    backup.clock_now() + interval '1 second' * case
      when (facts ->> 'by_function')::boolean then -1 else coalesce((facts ->> 'lease_seconds')::integer, 90)
    end,
    case when (facts ->> 'by_function')::boolean then backup.clock_now() end,
    coalesce(
      facts ->> 'requested_by',
      backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'),
      'role:' || session_user
    )
  )
  returning r.* into ours;
  perform backup.refuse_same_tables(ours);
  perform backup.audit('restore.begun', 'restore:' || ours.id, backup.restore_detail(ours));
  id := ours.id;
  token := ours.token;
end
$$;
revoke all on function backup.begin_restore(jsonb) from public;

-- How far it is; renews the lease. Of `facts`, all optional: status (loading, applying: never back), tables, steps_done,
-- steps_total, rows_done, safety_run, state, lease_seconds (90). True once somebody has asked that it ends: the worker then
-- undoes what is not committed and calls fail_restore with the code `cancelled`. The row stays locked until the caller's
-- transaction ends. HF413 for an old token, HF415 for a step back or for tables that another one is at work on.
create function backup.restore_progress(id uuid, token bigint, facts jsonb) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours backup.restores := backup.held_restore(id, token);
  stages constant text[] := array['planned', 'loading', 'applying'];
  next text := coalesce(facts ->> 'status', ours.stage);
begin
  if coalesce(array_position(stages, next), 0) < array_position(stages, ours.stage) then
    raise exception 'restore % is %, and does not become %', ours.id, ours.status, next using errcode = 'HF415';
  end if;
  update backup.restores as r
  set status = next, stage = next,
    tables = case when facts ? 'tables' then backup.restored_tables(facts -> 'tables') else r.tables end,
    steps_done = coalesce((facts ->> 'steps_done')::integer, r.steps_done),
    steps_total = coalesce((facts ->> 'steps_total')::integer, r.steps_total),
    rows_done = coalesce((facts ->> 'rows_done')::bigint, r.rows_done),
    safety_run = coalesce((facts ->> 'safety_run')::uuid, r.safety_run),
    state = coalesce(facts -> 'state', r.state),
    heartbeat_at = backup.clock_now(),
    lease_until = backup.clock_now() + interval '1 second' * coalesce((facts ->> 'lease_seconds')::integer, 90)
  where r.id = ours.id
  returning r.* into ours;
  if facts ? 'tables' or facts ->> 'status' = 'applying' then
    perform backup.refuse_same_tables(ours);
  end if;
  return ours.cancel_requested_at is not null;
end
$$;
revoke all on function backup.restore_progress(uuid, bigint, jsonb) from public;

-- Its good end: `beside` when its rows stand in a side schema for somebody to look at, else `succeeded`. Of `facts`, all
-- optional: tables, steps_done, rows_done, safety_run, measured_seconds (else the time since it began). The time is kept with
-- the objective as it is now. Somebody who asked that it ends came too late. HF413 for an old token. Returns the status.
create function backup.finish_restore(id uuid, token bigint, facts jsonb) returns text
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours backup.restores := backup.held_restore(id, token);
begin
  update backup.restores as r
  set status = case when r.mode = 'beside' and r.side_schema is not null then 'beside' else 'succeeded' end,
    tables = case when facts ? 'tables' then backup.restored_tables(facts -> 'tables') else r.tables end,
    steps_done = coalesce((facts ->> 'steps_done')::integer, r.steps_done),
    rows_done = coalesce((facts ->> 'rows_done')::bigint, r.rows_done),
    safety_run = coalesce((facts ->> 'safety_run')::uuid, r.safety_run),
    heartbeat_at = backup.clock_now(), finished_at = greatest(backup.clock_now(), r.started_at),
    worker = null, lease_until = null,
    side_expires_at = case when r.side_expires_at is not null then
      greatest(r.side_expires_at, backup.clock_now() + interval '1 second' * backup.setting_integer('side_schema_seconds'))
    end,
    measured_seconds = greatest(0, coalesce(
      (facts ->> 'measured_seconds')::numeric,
      pg_catalog.round(extract(epoch from backup.clock_now() - r.started_at), 3)
    )),
    objective_seconds = (select o.seconds from backup.objectives as o where o.kind = 'recovery' and o.scope = r.scope)
  where r.id = ours.id
  returning r.* into ours;
  perform backup.resolve_alert('restore_failed', 'restore:' || ours.id);
  perform backup.audit(
    'restore.finished', 'restore:' || ours.id,
    backup.restore_detail(ours) || pg_catalog.jsonb_build_object(
      'tables', ours.tables, 'seconds', ours.measured_seconds, 'within_objective', ours.within_objective
    )
  );
  return ours.status;
end
$$;
revoke all on function backup.finish_restore(uuid, bigint, jsonb) from public;

-- Ends an active one: `cancelled` for that code, else `failed`; one in place that failed raises an alert, unless it is
-- known to have changed nothing. For `claim_restore(…, resume => true)` both can be gone on with. Rows that it may have changed
-- stand in its side schema as they were: for that, the schema stays as long as after a good end. Rows that a function has not
-- laid to their end are of use to nobody, and go at the next tick.
create function backup.end_restore(
  restore backup.restores, code text, message text, hint text, changed boolean default true
) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  is_cancelled boolean := end_restore.code = 'cancelled';
begin
  update backup.restores as r
  set status = case when is_cancelled then 'cancelled' else 'failed' end,
    error_code = case when not is_cancelled then end_restore.code end,
    error_message = case when not is_cancelled then pg_catalog.left(end_restore.message, 1000) end,
    error_hint = case when not is_cancelled then pg_catalog.left(end_restore.hint, 1000) end,
    finished_at = greatest(backup.clock_now(), r.started_at), worker = null, lease_until = null, token = r.token + 1,
    side_expires_at = case
      when r.side_expires_at is not null and r.stage = 'applying' then
        greatest(r.side_expires_at, backup.clock_now() + interval '1 second' * backup.setting_integer('side_schema_seconds'))
      when r.side_expires_at is not null and r.next_leg_at is not null then backup.clock_now()
      else r.side_expires_at
    end
  where r.id = restore.id;
  if not is_cancelled and restore.mode <> 'beside' and end_restore.changed then
    perform backup.raise_alert(
      'restore_failed', 'restore:' || restore.id,
      pg_catalog.format('restore %s failed: %s (%s)', restore.id, pg_catalog.left(end_restore.message, 300), end_restore.code)
    );
  end if;
  perform backup.audit(
    case when is_cancelled then 'restore.cancelled' else 'restore.failed' end, 'restore:' || restore.id,
    backup.restore_detail(restore)
      || case when is_cancelled then '{}' else pg_catalog.jsonb_build_object('code', end_restore.code) end
  );
end
$$;
revoke all on function backup.end_restore(backup.restores, text, text, text, boolean) from public;

-- Its bad end, told by its worker; `error` is {code, message, hint, changed}. HF413 for an old token.
create function backup.fail_restore(id uuid, token bigint, error jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.end_restore(
    backup.held_restore(id, token), coalesce(error ->> 'code', 'internal'), coalesce(error ->> 'message', 'no reason given'),
    error ->> 'hint', coalesce((error ->> 'changed')::boolean, true)
  );
end
$$;
revoke all on function backup.fail_restore(uuid, bigint, jsonb) from public;

-- Asks that it ends. One that nobody works on is cancelled at once; a worker sees it at its next progress. Returns the
-- status. HF414 when there is none, HF415 when it has ended.
create function backup.cancel_restore(id uuid) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores;
begin
  select r.* into ours from backup.restores as r where r.id = cancel_restore.id for no key update;
  if ours.id is null then
    raise exception 'there is no restore %', cancel_restore.id using errcode = 'HF414';
  elsif ours.finished_at is not null then
    raise exception 'restore % is % already', ours.id, ours.status using errcode = 'HF415';
  end if;
  if ours.lease_until < backup.clock_now() then
    perform backup.end_restore(ours, 'cancelled', null, null);
    return 'cancelled';
  end if;
  update backup.restores as r set cancel_requested_at = coalesce(r.cancel_requested_at, backup.clock_now())
  where r.id = ours.id;
  perform backup.audit('restore.cancel_asked', 'restore:' || ours.id, backup.restore_detail(ours));
  return ours.status;
end
$$;
revoke all on function backup.cancel_restore(uuid) from public;

-- Takes over one that nobody works on; its token has to come with every later call. Null while another has the lease, and
-- for one that was asked to end, which ends now. `resume`: also one that failed or was cancelled. `apply`: puts the rows of
-- one that stands beside into place, in that mode, or of one that failed at that. HF414 when there is none; HF415 for any other state, for a side schema
-- that is gone, and for tables that another one is at work on.
create function backup.claim_restore(
  id uuid, worker text, lease interval, resume boolean default false, apply text default null
) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores;
begin
  select r.* into ours from backup.restores as r where r.id = claim_restore.id for no key update skip locked;
  if ours.id is null then
    if not exists (select from backup.restores as r where r.id = claim_restore.id) then
      raise exception 'there is no restore %', claim_restore.id using errcode = 'HF414';
    end if;
    -- whoever has the row locked is at work
    return null;
  end if;
  if ours.finished_at is null and apply is null then
    -- nobody takes a lease for an hour: one that ends later is of a clock that was moved back since
    if ours.lease_until between backup.clock_now() and backup.clock_now() + greatest(lease, interval '1 hour') then
      return null;
    elsif ours.cancel_requested_at is not null then
      perform backup.end_restore(ours, 'cancelled', null, null);
      return null;
    elsif ours.next_leg_at is not null and ours.legs_begun >= 5 then
      perform backup.end_restore(
        ours, 'run_stalled', 'five legs of the function were ended by the platform before they came to their end',
        'Look at the function''s log; the CLI restores without its limits.'
      );
      return null;
    end if;
  elsif not coalesce(
    case when apply is null then resume and ours.status in ('failed', 'cancelled')
    else apply in ('missing', 'merge', 'replace') and ours.side_schema is not null and (
      ours.status = 'beside' or (ours.status in ('failed', 'cancelled') and ours.stage = 'applying')
    ) end, false)
  then
    raise exception 'restore % is %', ours.id, ours.status using errcode = 'HF415';
  end if;
  if ours.side_dropped_at is not null then
    raise exception 'the side schema of restore % is gone', ours.id
      using errcode = 'HF415', hint = 'Restore again from the backup.';
  end if;
  update backup.restores as r
  set token = r.token + 1, worker = claim_restore.worker, lease_until = backup.clock_now() + claim_restore.lease,
    heartbeat_at = backup.clock_now(), legs_begun = r.legs_begun + 1, mode = coalesce(apply, r.mode),
    stage = case when apply is null then r.stage else 'applying' end,
    status = case when apply is null then r.stage else 'applying' end,
    -- rows that waited for somebody to look at them are not time that the restore took
    started_at = case when apply is null then r.started_at else backup.clock_now() end,
    finished_at = null, measured_seconds = null, objective_seconds = null, cancel_requested_at = null,
    error_code = null, error_message = null, error_hint = null
  where r.id = ours.id
  returning r.* into ours;
  perform backup.refuse_same_tables(ours);
  -- one leg after the other is nothing that anybody did
  if apply is not null or resume or ours.next_leg_at is null then
    perform backup.audit('restore.claimed', 'restore:' || ours.id, backup.restore_detail(ours));
  end if;
  return ours.token;
end
$$;
revoke all on function backup.claim_restore(uuid, text, interval, boolean, text) from public;

-- Backups that something needs until it has ended: nobody may remove one of them. What a restore reads, the full under the
-- moment that it wants, and its safety backup; those of a restore in place that failed or was cancelled for a day more, in
-- which somebody may go on with it.
create function backup.backups_in_use() returns table (backup uuid, restore uuid, until_moment timestamptz)
language sql
stable
set search_path = ''
as $$
  select used.backup, r.id, case when used.backup = r.source_backup then r.point_at end
  from backup.restores as r
  cross join lateral (values (r.source_backup), (r.safety_run)) as used (backup)
  where used.backup is not null
    and (
      r.finished_at is null
      or (
        r.status in ('failed', 'cancelled') and r.mode <> 'beside'
        and r.finished_at > backup.clock_now() - interval '1 day'
      )
    )
$$;
comment on function backup.backups_in_use() is
  'Backups that a restore needs, and up to which moment of the change stream; none of them may be removed.';
revoke all on function backup.backups_in_use() from public;

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
