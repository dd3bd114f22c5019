-- A restore's way from its begin to its end, told by the worker that has its token.
-- Lock order: as of restores.

-- Begins one. Of `facts`: scope, mode, source_backup, target_label; optional point_at, target_is_here (true), user_id, side
-- (true for tables, rows and users), side_seconds, tables, steps_total, safety_run, state, worker, lease_seconds (90),
-- requested_by, by_function (false: nobody has it yet, legs of the function do). A side schema is named here, where no schema has the name, and made by whoever fills it.
-- HF415 for a second one in place on the same tables, and while a person is being erased; HF473 (user_erased).
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
  if ours.target_is_here then
    perform backup.refuse_while_erasing(ours.user_id);
  end if;
  perform backup.refuse_pruned(ours.source_backup);
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
  -- What earlier ones left half done is replaced as a whole.
  if ours.status = 'succeeded' and ours.mode = 'replace' and ours.scope in ('table', 'full') and ours.target_is_here then
    perform backup.resolve_alert('restore_failed', a.subject)
    from backup.alerts as a
    join backup.restores as r on a.subject = 'restore:' || r.id and r.started_at <= ours.started_at
    where a.kind = 'restore_failed' and a.status <> 'resolved' and r.target_is_here and (
      ours.scope = 'full' or pg_catalog.jsonb_array_length(r.tables) > 0 and not exists (
        select from pg_catalog.jsonb_array_elements(r.tables) as t (of)
        where not exists (
          select from pg_catalog.jsonb_array_elements(ours.tables) as o (of)
          where o.of ->> 'schema' = t.of ->> 'schema' and o.of ->> 'name' = t.of ->> 'name'
        )
      )
    );
  end if;
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
