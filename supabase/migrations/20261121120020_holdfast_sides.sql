-- Side schemas: rows as they were, that a restore left beside the live ones, until their time is over.

-- What a full restore in place that was broken off had taken away stands in its side schema, for the next one to make it again
-- and tell: it goes into the record. Statements, no row's value.
create function backup.keep_gone(restore backup.restores) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  list constant text := pg_catalog.format('%I.%I', restore.side_schema, 'holdfast gone of try any');
  gone jsonb;
begin
  if restore.scope <> 'full' or restore.stage <> 'applying' or restore.status = 'succeeded'
    or pg_catalog.to_regclass(list) is null
  then
    return;
  end if;
  execute pg_catalog.format('select pg_catalog.jsonb_agg(g.document order by g.place) from %s as g', list) into gone;
  if gone is not null then
    update backup.restores as r set state = r.state || pg_catalog.jsonb_build_object('gone', gone) where r.id = restore.id;
    raise warning 'restore % was broken off: only the next one makes again what it took away', restore.id;
  end if;
end
$$;
revoke all on function backup.keep_gone(backup.restores) from public;

-- Drops a side schema and what stands in it: nothing but one that has our form and stands in backup.restores, and nothing
-- outside it (no CASCADE). False when it was gone already. HF415 when something outside depends on it, or when somebody put
-- in it what is neither table nor view nor sequence.
create function backup.remove_side(restore backup.restores) returns boolean
language plpgsql
volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
  side constant text := restore.side_schema;
  was_there boolean;
  drops record;
  told text;
begin
  if side is null or side !~ '^restore_[0-9a-f]{8}$'
    or not exists (select from backup.restores as r where r.id = restore.id and r.side_schema = side and r.target_is_here)
  then
    raise exception 'restore % has no side schema in this database', restore.id using errcode = 'HF415';
  end if;
  was_there := pg_catalog.to_regnamespace(side) is not null;
  if was_there then
    perform backup.keep_gone(restore);
    begin
      for drops in
        select kinds.word, pg_catalog.string_agg(pg_catalog.format('%I.%I', side, c.relname), ', ') as names
        from (values (1, 'view', 'v'), (2, 'materialized view', 'm'), (3, 'table', 'r'), (3, 'table', 'p'), (4, 'sequence', 'S'))
          as kinds (rank, word, relkind)
        join pg_catalog.pg_class as c on c.relkind::text = kinds.relkind
        where c.relnamespace = pg_catalog.to_regnamespace(side) and not c.relispartition
        group by kinds.rank, kinds.word
        order by kinds.rank
      loop
        execute pg_catalog.format('drop %s if exists %s restrict', drops.word, drops.names);
      end loop;
      execute pg_catalog.format('drop schema %I restrict', side);
    exception
      when dependent_objects_still_exist then
        get stacked diagnostics told = pg_exception_detail;
        raise exception 'something else depends on the side schema %: %', side, pg_catalog.left(told, 300)
          using errcode = 'HF415', hint = 'Drop that first, or keep the rows longer with backup.extend_side.';
    end;
  end if;
  update backup.restores as r set side_dropped_at = backup.clock_now() where r.id = restore.id;
  perform backup.resolve_alert('side_kept', 'restore:' || restore.id);
  perform backup.audit('side.dropped', 'restore:' || restore.id, pg_catalog.jsonb_build_object('schema', side));
  return was_there;
end
$$;
revoke all on function backup.remove_side(backup.restores) from public;

-- The side schema of a restore, locked. HF414 when there is no such restore, HF415 when it has none or is at work.
create function backup.ended_side(id uuid) returns backup.restores
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores := backup.known_restore(id);
begin
  if ours.finished_at is null then
    raise exception 'restore % is %: its side schema is in use', ours.id, ours.status
      using errcode = 'HF415', hint = 'Wait for its end, or cancel it.';
  elsif ours.side_schema is null or ours.side_dropped_at is not null then
    raise exception 'restore % has no side schema any more', ours.id using errcode = 'HF415';
  end if;
  return ours;
end
$$;
revoke all on function backup.ended_side(uuid) from public;

-- A person is done with the rows. False when somebody had dropped them already.
create function backup.drop_side(id uuid) returns boolean
language sql
volatile
set search_path = ''
as $$
  select backup.remove_side(backup.ended_side(id))
$$;
comment on function backup.drop_side(uuid) is 'Drops the side schema that a restore left.';
revoke all on function backup.drop_side(uuid) from public;

-- A person wants to keep the rows until then. HF003 (payload_invalid) for a moment that is over.
create function backup.extend_side(id uuid, until timestamptz) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores := backup.ended_side(id);
begin
  if until is null or until <= backup.clock_now() or until = 'infinity' then
    raise exception 'a side schema is kept until a moment to come' using errcode = 'HF003';
  end if;
  update backup.restores as r set side_expires_at = extend_side.until where r.id = ours.id;
  perform backup.audit(
    'side.extended', 'restore:' || ours.id, pg_catalog.jsonb_build_object('schema', ours.side_schema, 'until', until)
  );
end
$$;
comment on function backup.extend_side(uuid, timestamptz) is 'Keeps the side schema that a restore left until then.';
revoke all on function backup.extend_side(uuid, timestamptz) from public;

-- Drops side schemas whose time is over and whose restore has ended. One that cannot be dropped raises an alert and is tried
-- again. Returns how many were dropped.
create function backup.expire_sides() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  over backup.restores;
  dropped integer := 0;
  told text;
begin
  for over in
    select r.*
    from backup.restores as r
    where r.side_dropped_at is null and r.side_expires_at <= backup.clock_now() and r.target_is_here
      and r.finished_at is not null
    order by r.side_expires_at
    limit 20
    for no key update skip locked
  loop
    begin
      perform backup.remove_side(over);
      dropped := dropped + 1;
    exception
      when others then
        get stacked diagnostics told = message_text;
        perform backup.raise_alert('side_kept', 'restore:' || over.id, pg_catalog.left(told, 500), 'warning');
    end;
  end loop;
  return dropped;
end
$$;
revoke all on function backup.expire_sides() from public;

-- Each minute: a restore on which nothing has worked for run_dead_seconds has failed, or is cancelled where somebody asked
-- for that; side schemas whose time is over go. Returns how many restores ended and side schemas went.
create function backup.watch_restores() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  gone backup.restores;
  touched integer := 0;
begin
  for gone in
    select r.*
    from backup.restores as r
    where r.finished_at is null
      and (
        r.lease_until < moment - backup.setting_integer('run_dead_seconds') * interval '1 second'
        or (r.lease_until < moment and r.cancel_requested_at is not null)
      )
    order by r.started_at
    limit 100
    for no key update skip locked
  loop
    if gone.cancel_requested_at is not null then
      perform backup.end_restore(gone, 'cancelled', null, null);
    else
      perform backup.end_restore(
        gone, 'run_stalled',
        pg_catalog.format(
          'nothing has worked on the restore since %s',
          pg_catalog.to_char(gone.heartbeat_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
        ),
        'Run the same command again: it goes on.'
      );
    end if;
    touched := touched + 1;
  end loop;
  return touched + backup.expire_sides();
end
$$;
revoke all on function backup.watch_restores() from public;
