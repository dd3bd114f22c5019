-- What happens to the stream each minute: the slot is kept from filling the disk, then a function drains it.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('slot_limit_mb', 'integer', '0', 0, 16777216,
    'WAL in MB that the slot may hold back before it is given up; 0: a quarter of max_slot_wal_keep_size or of what disk_mb leaves free, the smaller, else 1024'),
  ('disk_mb', 'integer', '0', 0, 1073741824, 'Size in MB of the disk of the database, which SQL cannot see; 0: not known');

-- The slot -----------------------------------------------------------------------------------------------------------

-- See the setting slot_limit_mb. Free is what the databases leave of the disk: the log itself may use it, up to the limit.
create function backup.slot_limit_bytes() returns bigint
language sql
stable
set search_path = ''
as $$
  select case
    when backup.setting_integer('slot_limit_mb') > 0 then backup.setting_integer('slot_limit_mb') * 1048576
    else coalesce(least(kept.bytes, disk.free) / 4, 1024::bigint * 1048576)
  end
  from (
    select case when s.setting::bigint > 0 then s.setting::bigint * 1048576 end as bytes
    from pg_catalog.pg_settings as s where s.name = 'max_slot_wal_keep_size'
  ) as kept
  cross join (
    select case when backup.setting_integer('disk_mb') > 0 then greatest(
      backup.setting_integer('disk_mb') * 1048576
        - (select pg_catalog.sum(pg_catalog.pg_database_size(d.oid))::bigint from pg_catalog.pg_database as d), 0
    ) end as free
  ) as disk
$$;
revoke all on function backup.slot_limit_bytes() from public;

-- The slot and what it holds back; one row, or none without an open chain. `limit_bytes`: see the setting slot_limit_mb.
create function backup.slot_state()
returns table (
  chain_id text, slot_name name, present boolean, active boolean, wal_status text, restart_lsn pg_lsn,
  confirmed_flush_lsn pg_lsn, retained_bytes bigint, limit_bytes bigint, recorded_lsn pg_lsn
)
language sql
stable
set search_path = ''
as $$
  select c.id, c.slot_name, s.slot_name is not null, coalesce(s.active, false), s.wal_status, s.restart_lsn,
    s.confirmed_flush_lsn, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::bigint,
    backup.slot_limit_bytes(),
    coalesce((select max(g.end_lsn) from backup.segments as g where g.chain_id = c.id), c.start_lsn)
  from backup.chains as c
  left join pg_catalog.pg_replication_slots as s
    on s.slot_name = c.slot_name and s.database = pg_catalog.current_database()
  where c.ended_at is null
$$;
revoke all on function backup.slot_state() from public;

-- Each minute, beside the drain: a slot that is gone or holds back too much ends its chain; the database lives. `kept`: it
-- could not be dropped.
create function backup.guard_slot() returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  slot record;
begin
  select s.* into slot from backup.slot_state() as s;
  if slot.chain_id is null then
    return null;
  elsif not slot.present then
    perform backup.end_chain(slot.chain_id, 'the slot is gone');
    return 'gone';
  elsif slot.wal_status = 'lost' then
    return case when backup.give_up_slot(slot.chain_id, slot.slot_name, 'the server gave the slot up')
      then 'lost' else 'kept' end;
  elsif slot.retained_bytes > slot.limit_bytes then
    return case
      when backup.give_up_slot(slot.chain_id, slot.slot_name, pg_catalog.format(
        'the slot held back %s MB of WAL, more than %s MB', slot.retained_bytes / 1048576, slot.limit_bytes / 1048576
      )) then 'over the limit' else 'kept' end;
  elsif slot.retained_bytes > slot.limit_bytes / 2 then
    perform backup.raise_alert(
      'slot_behind', 'chain:' || slot.chain_id,
      pg_catalog.format(
        'the slot holds back %s MB of WAL (kept from %s on, drained up to %s); at %s MB it is given up%s',
        slot.retained_bytes / 1048576, slot.restart_lsn, slot.confirmed_flush_lsn, slot.limit_bytes / 1048576,
        coalesce('; ' || backup.oldest_transaction(), '')
      ),
      'warning'
    );
    return 'behind';
  end if;
  perform backup.resolve_alert('slot_behind', 'chain:' || slot.chain_id);
  return 'well';
end
$$;
revoke all on function backup.guard_slot() from public;

-- Drops the slot, which no rollback brings back, and ends its chain. False, with an alert, where it cannot be dropped: the
-- chain goes on, and the next minute tries again.
create function backup.give_up_slot(chain text, slot name, reason text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  told text;
begin
  begin
    perform backup.drop_slot(slot);
  exception when others then
    -- held by a process that we may not end, or that does not end within its time
    get stacked diagnostics told = returned_sqlstate;
    select pg_catalog.format('SQLSTATE %s%s', told, case when s.active_pid is not null then pg_catalog.format(
      '; process %s of role %s reads it', s.active_pid,
      (select a.usename from pg_catalog.pg_stat_activity as a where a.pid = s.active_pid)
    ) end)
    into told
    from pg_catalog.pg_replication_slots as s where s.slot_name = slot;
  end;
  if told is null then
    perform backup.end_chain(chain, reason);
    return true;
  end if;
  perform backup.raise_alert(
    'slot_behind', 'chain:' || chain, pg_catalog.format('%s, and it cannot be dropped (%s)', reason, told)
  );
  return false;
end
$$;
revoke all on function backup.give_up_slot(text, name, text) from public;

-- Whoever drains holds the slot: it is ended first, since the disk comes before the stream.
create function backup.drop_slot(slot name) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  pid integer := (select s.active_pid from pg_catalog.pg_replication_slots as s where s.slot_name = slot);
begin
  if pid is not null and pid <> pg_catalog.pg_backend_pid() then
    perform pg_catalog.pg_terminate_backend(pid, 5000);
  end if;
  perform pg_catalog.pg_drop_replication_slot(s.slot_name) from pg_catalog.pg_replication_slots as s where s.slot_name = slot;
end
$$;
revoke all on function backup.drop_slot(name) from public;

-- What keeps the slot from moving although it is drained: the oldest transaction of any database of the server, or one that was
-- prepared and left. One row, or none; `pid` is null for a prepared one.
create function backup.slot_holder()
returns table (pid integer, database name, application text, since timestamptz, prepared text)
language sql
stable
set search_path = ''
as $$
  select h.*
  from (
    select a.pid, a.datname as database, a.application_name as application, a.xact_start as since, null::text as prepared
    from pg_catalog.pg_stat_activity as a
    where a.xact_start is not null and a.backend_xid is not null
    union all
    select null, p.database, null, p.prepared, p.gid from pg_catalog.pg_prepared_xacts as p
  ) as h
  order by h.since
  limit 1
$$;
revoke all on function backup.slot_holder() from public;

-- The same in words; null where no transaction is under way.
create function backup.oldest_transaction() returns text
language sql
stable
set search_path = ''
as $$
  select pg_catalog.format(
    'the oldest transaction is %s in database %s, since %s UTC (%s old%s)',
    case when h.pid is null then pg_catalog.format('the prepared one %L', h.prepared) else 'that of process ' || h.pid end,
    h.database, pg_catalog.to_char(h.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
    pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - h.since), ', ' || nullif(h.application, '')
  )
  from backup.slot_holder() as h
$$;
revoke all on function backup.oldest_transaction() from public;

-- Drains by a function -----------------------------------------------------------------------------------------------

-- What the cron job `holdfast-changes` calls: the guard, then a drain by the function. Where no function can be called the
-- stream is left to `holdfast follow` and `holdfast incremental`. What keeps the call from being made takes back nothing
-- of what the guard noted: a slot that it dropped stays dropped.
create function backup.call_drain() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  told text;
begin
  perform backup.guard_slot();
  perform backup.seal_incrementals(false);
  begin
    return backup.invoke('backup', '{"action": "drain"}');
  exception
    when sqlstate 'HF002' then
      return null;
    when others then
      get stacked diagnostics told = returned_sqlstate;
  end;
  perform backup.raise_alert(
    'drain_failed', 'stream',
    pg_catalog.format('the function that drains the change stream could not be called (SQLSTATE %s)', told), 'warning'
  );
  return null;
end
$$;
revoke all on function backup.call_drain() from public;

-- Is there an open chain and no full backup on it, behind all that cannot be replayed, nor one under way that might be? One
-- that began before the chain is waited for: it would be joined.
create function backup.chain_lacks_full() returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from backup.chains as c
    where c.ended_at is null
      and not exists (
        select from backup.runs as r
        where r.kind = 'full' and r.chain_id = c.id and r.status in ('succeeded', 'quarantined')
          and not exists (select from backup.obstacles as o where o.chain_id = c.id and o.lsn > r.wal_lsn)
      )
      and not exists (
        select from backup.runs as r
        where r.kind = 'full' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
      )
  )
$$;
revoke all on function backup.chain_lacks_full() from public;

-- A drain by a function is over. `drain`: {outcome, begun, chain}; `failure`: {code, message}. What is left is drained at
-- once by another isolate. A chain without a full backup, or with none behind what cannot be replayed, gets one, asked for
-- once an hour: nothing from there on can be restored without.
create function backup.end_drain(nonce text, drain jsonb, failure jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run_id uuid;
begin
  perform backup.end_call(end_drain.nonce, coalesce(failure ->> 'code', drain ->> 'outcome', 'done'));
  if failure is not null then
    perform backup.raise_alert(
      'drain_failed', 'stream',
      pg_catalog.format('the change stream was not drained: %s (%s)', failure ->> 'message', failure ->> 'code'), 'warning'
    );
    perform backup.note_store_failure(failure);
    return;
  end if;
  perform backup.resolve_alert('drain_failed', 'stream');
  if backup.chain_lacks_full() then
    select r.run into run_id
    from backup.request_run(
      'full', array['daily'], 'schedule',
      pg_catalog.format(
        'chain:%s:%s', drain ->> 'chain', pg_catalog.to_char(backup.clock_now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
      )
    ) as r;
    perform backup.launch_run(run_id);
  end if;
  if exists (
    select from backup.segments as s
    where s.recorded_at > backup.clock_now() - interval '1 hour' and not backup.is_copied(s.name)
  ) then
    perform backup.ask_for_copies();
  end if;
  if drain ->> 'outcome' = 'work_left' then
    perform backup.invoke('backup', '{"action": "drain"}');
  end if;
end
$$;
revoke all on function backup.end_drain(text, jsonb, jsonb) from public;
