-- The keeper: the backend that holds a run's snapshot and its table locks while legs come and go.
-- It is a session of the role that takes the backup, inside a transaction, in the statement `select backup.keep(…)`.
-- docs/decisions/0003-keeper.md says why it is held this way.

-- Ends the keeper that the run has recorded, if that backend still is the one that was recorded. True when it was told.
create function backup.end_keeper(run uuid) returns boolean
language sql
volatile
set search_path = ''
as $$
  select coalesce(
    (
      select pg_catalog.pg_terminate_backend(a.pid)
      from backup.runs as r
      join pg_catalog.pg_stat_activity as a on a.pid = r.keeper_pid and a.backend_start = r.keeper_started_at
      where r.id = end_keeper.run and a.pid <> pg_catalog.pg_backend_pid()
    ),
    false
  )
$$;
revoke all on function backup.end_keeper(uuid) from public;

-- Seconds that the longest waiter has waited for a backend, this one if none is named, whatever the lock: a table, or the end of its snapshot,
-- for which CREATE INDEX CONCURRENTLY waits. Null when nobody waits. Who stands in a queue behind such a waiter is
-- free once the waiter is.
create function backup.longest_wait(backend integer default pg_catalog.pg_backend_pid()) returns double precision
language sql
volatile
set search_path = ''
as $$
  select max(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - w.waitstart))
  from pg_catalog.pg_locks as w
  where not w.granted and backend = any (pg_catalog.pg_blocking_pids(w.pid))
$$;
revoke all on function backup.longest_wait(integer) from public;

-- The keeper's sleep, inside the transaction that holds snapshot and locks. It reads the catalog of locks only, never a
-- row of the run: its snapshot is old. Returns why it ended: 'yielded' when a session had waited 4 s for one of its
-- locks (it looks twice a second, so that a waiter is free before 5 s are over), 'expired' after `at_most`. Being told to
-- end is pg_terminate_backend (`end_keeper`). The transaction is over when the statement's batch is.
create function backup.keep(run uuid, attempt integer, at_most interval) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ends_at timestamptz := pg_catalog.clock_timestamp() + at_most;
begin
  -- the run and its attempt show in pg_stat_activity: they tell a person whose keeper this is
  if keep.run is null or keep.attempt < 1 or keep.at_most is null then
    raise exception 'a keeper is that of an attempt of a run' using errcode = 'HF003';
  end if;
  while pg_catalog.clock_timestamp() < ends_at loop
    perform pg_catalog.pg_sleep(0.5);
    if backup.longest_wait() >= 4 then
      return 'yielded';
    end if;
  end loop;
  return 'expired';
end
$$;
revoke all on function backup.keep(uuid, integer, interval) from public;
