-- Draining: the one drainer's lease, the life of a chain, and the segments that were put. Lock order: as in 1000.

-- The lease ----------------------------------------------------------------------------------------------------------

-- The lease of the one drainer; null while another has it. Its token has to come with every later call.
create function backup.claim_drain(worker text, lease interval) returns bigint
language sql
volatile
set search_path = ''
as $$
  update backup.drain as d
  set token = d.token + 1, worker = claim_drain.worker, lease_until = backup.clock_now() + claim_drain.lease
  where d.singleton = (
    -- whoever has the row locked is at work, perhaps for as long as a large transaction takes to spool
    -- nobody takes a lease for an hour: one that ends later is of a clock that was moved back since
    select s.singleton from backup.drain as s
    where s.lease_until is null or s.lease_until < backup.clock_now()
      or s.lease_until > backup.clock_now() + greatest(claim_drain.lease, interval '1 hour')
    for update skip locked
  )
  returning d.token
$$;
revoke all on function backup.claim_drain(text, interval) from public;

-- Locks the drain's row for this transaction and renews the lease. HF413 (lease_lost) when it is somebody else's.
create function backup.hold_drain(token bigint, lease interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.drain as d set lease_until = backup.clock_now() + hold_drain.lease
  where d.token = hold_drain.token and d.lease_until is not null;
  if not found then
    raise exception 'another drainer has taken over' using errcode = 'HF413';
  end if;
end
$$;
revoke all on function backup.hold_drain(bigint, interval) from public;

-- A full backup that can be replayed from to the end of the open chain: what was told of gaps and obstacles is over.
create function backup.settle_stream() returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a
  where a.kind in ('stream_gap', 'stream_obstacle') and a.status <> 'resolved'
    and exists (
      select from backup.runs as r join backup.chains as c on c.id = r.chain_id and c.ended_at is null
      where r.kind = 'full' and r.status = 'succeeded'
        and not exists (select from backup.obstacles as o where o.chain_id = c.id and o.lsn > r.wal_lsn)
    );
end
$$;
revoke all on function backup.settle_stream() from public;

-- Gives the lease back. `covered_until`: every commit before that moment is stored; null when the end of the stream was not
-- reached. `failure`: what kept it from its end.
create function backup.release_drain(token bigint, covered_until timestamptz, failure text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.drain as d
  set lease_until = null, worker = null,
    drained_at = coalesce(release_drain.covered_until, d.drained_at),
    failed_at = case when release_drain.failure is not null then backup.clock_now() end,
    failure = release_drain.failure
  where d.token = release_drain.token;
  if found and release_drain.failure is null then
    perform backup.settle_stream();
  end if;
end
$$;
revoke all on function backup.release_drain(bigint, timestamptz, text) from public;

-- The slot -----------------------------------------------------------------------------------------------------------

-- Before the slot is moved over changes that are stored, or that nobody needs: a slot found further on was moved by others.
create function backup.intend_advance(token bigint, lsn pg_lsn) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  update backup.drain as d set advanced_lsn = intend_advance.lsn where d.token = intend_advance.token;
end
$$;
revoke all on function backup.intend_advance(bigint, pg_lsn) from public;

-- The first transactions behind the slot, up to a commit, whole and in order, into backup.spool. Runs as long as it takes,
-- also when whoever asked is gone by then.
create function backup.spool_transaction(token bigint, slot name, publications name[]) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  spooled bigint;
begin
  perform backup.hold_drain(token, interval '90 seconds');
  -- never TRUNCATE here: with a new file of the spool in this transaction, decoding an older TRUNCATE of it sends our rows
  -- to the file that is gone
  delete from backup.spool;
  insert into backup.spool (position, lsn, xid, data)
  select row_number() over (), c.lsn, c.xid, c.data
  from pg_catalog.pg_logical_slot_peek_binary_changes(
    slot, null, 1, 'proto_version', '1', 'publication_names',
    (select pg_catalog.string_agg('"' || p || '"', ',') from pg_catalog.unnest(publications) as p)
  ) as c;
  get diagnostics spooled = row_count;
  -- the row was locked all the while; whoever asked may be gone, and another goes on once this has run out
  perform backup.hold_drain(token, interval '90 seconds');
  return spooled;
end
$$;
revoke all on function backup.spool_transaction(bigint, name, name[]) from public;

-- Where the sequences of users stand; `is_called`: that value was given already. One that is dropped meanwhile cannot be opened
-- any more (XX000), and is left out: it is gone from the catalog when the next segment asks. `held`, without a value: a
-- transaction has it, perhaps for ever, and nobody takes a value from it meanwhile. All of them are waited for some seconds.
create function backup.sequence_values()
returns table (schema_name name, sequence_name name, last_value bigint, is_called boolean, held boolean)
language plpgsql
volatile
set search_path = ''
as $$
declare
  sequence record;
  old_timeout text := pg_catalog.current_setting('lock_timeout');
  waits integer := 0;
begin
  perform pg_catalog.set_config('lock_timeout', '300ms', true);
  for sequence in
    select n.nspname, c.relname, c.oid
    from pg_catalog.pg_sequence as s
    join pg_catalog.pg_class as c on c.oid = s.seqrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relpersistence = 'p' and c.oid >= 16384 and backup.is_streamed_schema(n.nspname)
      and case when c.relkind = 'S' then pg_catalog.has_sequence_privilege(c.oid, 'select') else false end
    order by 1, 2
  loop
    schema_name := sequence.nspname;
    sequence_name := sequence.relname;
    held := false;
    begin
      last_value := pg_catalog.pg_sequence_last_value(sequence.oid);
      is_called := last_value is not null;
      if not is_called then
        -- it may have been restarted with any value
        execute pg_catalog.format('select s.last_value from %I.%I as s', schema_name, sequence_name) into last_value;
      end if;
    exception
      when internal_error or undefined_table or invalid_schema_name then
        continue;
      when lock_not_available or deadlock_detected then
        last_value := null;
        held := true;
        waits := waits + 1;
        if waits = 10 then
          perform pg_catalog.set_config('lock_timeout', '1ms', true);
        end if;
    end;
    return next;
  end loop;
  perform pg_catalog.set_config('lock_timeout', old_timeout, true);
end
$$;
revoke all on function backup.sequence_values() from public;

-- Chains -------------------------------------------------------------------------------------------------------------

-- The slot is made: a chain begins. An open gap ends here.
create function backup.begin_chain(
  token bigint, id text, slot_name name, publications name[], start_lsn pg_lsn, store_prefix text default ''
) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  insert into backup.chains (id, slot_name, publications, start_lsn, store_prefix, system_identifier, database_name)
  select begin_chain.id, begin_chain.slot_name, begin_chain.publications, begin_chain.start_lsn, begin_chain.store_prefix,
    c.system_identifier::text, pg_catalog.current_database()
  from pg_catalog.pg_control_system() as c;
  update backup.drain as d set advanced_lsn = begin_chain.start_lsn, owners_read_at = null;
  update backup.gaps as g set to_lsn = begin_chain.start_lsn, to_at = greatest(g.from_at, backup.clock_now())
  where g.to_at is null;
  perform backup.audit('chain.begun', 'chain:' || begin_chain.id, pg_catalog.jsonb_build_object('start', start_lsn::text));
end
$$;
revoke all on function backup.begin_chain(bigint, text, name, name[], pg_lsn, text) from public;

-- The store was compared with what is recorded here, in this life of the server.
create function backup.note_look(token bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  update backup.drain as d
  set looked_at = backup.clock_now(), looked_while = pg_catalog.pg_postmaster_start_time()
  where d.token = note_look.token;
end
$$;
revoke all on function backup.note_look(bigint) from public;

-- Due with each start of the server, since a database that was put back starts as another process, and once an hour.
create function backup.look_is_due() returns boolean
language sql
stable
set search_path = ''
as $$
  select d.looked_at is null or d.looked_while is distinct from pg_catalog.pg_postmaster_start_time()
    or d.looked_at not between backup.clock_now() - interval '1 hour' and backup.clock_now() + interval '1 minute'
  from backup.drain as d
$$;
revoke all on function backup.look_is_due() from public;

-- A chain is over: a gap from its last segment on, or from the one before `missing`, with an alert. Restores to moments
-- behind the gap need a new full; one that is under way and lies in the gap is on no chain.
create function backup.end_chain(chain text, reason text, missing text default null) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.chains;
  last backup.segments;
begin
  -- a drainer locks its row before the chain's
  perform from backup.drain as d for update;
  update backup.chains as c set ended_at = backup.clock_now(), end_reason = end_chain.reason
  where c.id = end_chain.chain and c.ended_at is null
  returning c.* into ours;
  if ours.id is null then
    return;
  end if;
  select s.* into last from backup.segments as s
  where s.chain_id = ours.id
    and (end_chain.missing is null or s.end_lsn <= (select m.start_lsn from backup.segments as m where m.name = end_chain.missing))
  order by s.end_lsn desc limit 1;
  update backup.runs as r set chain_id = null
  where r.kind = 'full' and r.chain_id = ours.id and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
    and r.wal_lsn >= coalesce(last.end_lsn, ours.start_lsn);
  insert into backup.gaps (chain_id, from_lsn, from_at, reason)
  values (ours.id, coalesce(last.end_lsn, ours.start_lsn), coalesce(last.taken_at, ours.started_at), end_chain.reason);
  truncate backup.spool;
  update backup.drain as d set logs_ddl = false;
  perform backup.seal_incrementals(true);
  perform backup.resolve_alert('slot_behind', 'chain:' || ours.id);
  perform backup.resolve_alert('stream_obstacle', 'chain:' || ours.id);
  perform backup.audit('chain.ended', 'chain:' || ours.id, pg_catalog.jsonb_build_object('reason', end_chain.reason));
  perform backup.raise_alert(
    'stream_gap', 'chain:' || ours.id,
    pg_catalog.format(
      'the change stream ended (%s): moments after %s UTC can be restored again once a new full backup is there',
      end_chain.reason, pg_catalog.to_char(coalesce(last.taken_at, ours.started_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    )
  );
end
$$;
revoke all on function backup.end_chain(text, text, text) from public;

-- A full backup that cannot know whether the chain is that of its database any more.
create function backup.leave_chain(run uuid) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.runs as r set chain_id = null where r.id = leave_chain.run and r.kind = 'full'
$$;
revoke all on function backup.leave_chain(uuid) from public;

-- Segments -----------------------------------------------------------------------------------------------------------

-- A segment was put and read back. Its hour's run is made with the first one. HF413 for an old token; HF415 (run_state) for
-- a segment that does not follow the last one: replay would refuse the chain. Beside the columns it tells `definitions`, as the
-- next drain compares them, `obstacles`: [{lsn, at, what, why}], and `files`: ids of rows of storage.objects that came or changed.
create function backup.record_segment(token bigint, segment jsonb) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  given backup.segments := pg_catalog.jsonb_populate_record(null::backup.segments, segment);
  ours backup.chains;
  last backup.segments;
  hour timestamptz;
  run uuid;
begin
  perform backup.hold_drain(token, interval '90 seconds');
  select c.* into ours from backup.chains as c where c.id = given.chain_id and c.ended_at is null for update;
  if ours.id is null then
    raise exception 'chain % has ended', given.chain_id using errcode = 'HF415';
  end if;
  select s.* into last from backup.segments as s where s.chain_id = ours.id order by s.end_lsn desc, s.part desc limit 1;
  if (
    case
      when last.ends_in_transaction then
        given.start_lsn = last.start_lsn and given.end_lsn = last.end_lsn and given.part = last.part + 1
      else given.start_lsn = coalesce(last.end_lsn, ours.start_lsn) and given.part = 0
    end
  ) is not true then
    raise exception 'segment % does not follow %', given.name, coalesce(last.name, ours.start_lsn::text)
      using errcode = 'HF415';
  end if;
  perform backup.seal_incrementals(false);
  -- a clock that was moved back does not take up an hour that is over: the segments of a run follow each other
  hour := pg_catalog.date_trunc('hour', greatest(
    given.taken_at, (select max(r.consistent_at) from backup.runs as r where r.kind = 'incremental' and r.chain_id = ours.id)
  ), 'UTC');
  select r.id into run from backup.runs as r
  where r.request_key = backup.incremental_key(ours.id, hour) and r.status = 'copying';
  if run is null then
    insert into backup.runs (kind, tiers, origin, request_key, status, started_at, subject_run)
    values (
      'incremental', '{hourly}', 'schedule', backup.incremental_key(ours.id, hour), 'copying', backup.clock_now(),
      (
        select r.id from backup.runs as r
        where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = ours.id
        order by r.consistent_at desc limit 1
      )
    )
    on conflict (request_key) do update set status = 'copying', finished_at = null, complete_at = null
    returning id into run;
  end if;
  insert into backup.segments (
    chain_id, start_lsn, end_lsn, run_id, name, raw_bytes, stored_bytes, hash, stored_hash, epoch, transactions, changes,
    ddl, first_commit_at, last_commit_at, taken_at, ends_in_transaction, part, spool_position
  ) values (
    given.chain_id, given.start_lsn, given.end_lsn, run, given.name, given.raw_bytes, given.stored_bytes, given.hash,
    given.stored_hash, given.epoch, given.transactions, given.changes, given.ddl, given.first_commit_at,
    given.last_commit_at, given.taken_at, given.ends_in_transaction, given.part, given.spool_position
  );
  update backup.chains as c set definitions = coalesce(segment -> 'definitions', c.definitions) where c.id = ours.id;
  perform backup.note_obstacle(ours.id, o.lsn, o.at, o.what, o.why)
  from pg_catalog.jsonb_to_recordset(coalesce(segment -> 'obstacles', '[]'))
    as o (lsn pg_lsn, at timestamptz, what text, why text);
  perform backup.queue_files(array(
    select distinct f.id::uuid from pg_catalog.jsonb_array_elements_text(coalesce(segment -> 'files', '[]')) as f (id)
  ));
  update backup.runs as r
  set heartbeat_at = backup.clock_now(), rows = r.rows + given.changes, raw_bytes = r.raw_bytes + given.raw_bytes,
    stored_bytes = r.stored_bytes + given.stored_bytes, new_stored_bytes = r.new_stored_bytes + given.stored_bytes,
    consistent_at = greatest(r.consistent_at, given.taken_at), wal_lsn = given.end_lsn, epoch = given.epoch, chain_id = given.chain_id,
    tasks_total = r.tasks_total + 1, tasks_done = r.tasks_done + 1
  where r.id = run;
  return run;
end
$$;
revoke all on function backup.record_segment(bigint, jsonb) from public;

-- A place that no restore comes past: an alert until a full backup behind it is there, which says until when nothing is lost.
create function backup.note_obstacle(chain text, lsn pg_lsn, at timestamptz, what text, why text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  first backup.obstacles;
begin
  insert into backup.obstacles (chain_id, lsn, at, what, why)
  values (chain, note_obstacle.lsn, note_obstacle.at, note_obstacle.what, note_obstacle.why)
  on conflict do nothing;
  select o.* into first from backup.obstacles as o
  where o.chain_id = chain and not exists (
    select from backup.runs as r
    where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = chain and r.wal_lsn >= o.lsn
  )
  order by o.lsn limit 1;
  if first.chain_id is null then
    return;
  end if;
  perform backup.raise_alert(
    'stream_obstacle', 'chain:' || chain,
    pg_catalog.format(
      '%s cannot be replayed (%s): moments after %s UTC can be restored again once a new full backup is there',
      first.what, first.why, pg_catalog.to_char(first.at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    ),
    'warning'
  );
end
$$;
revoke all on function backup.note_obstacle(text, pg_lsn, timestamptz, text, text) from public;

create function backup.incremental_key(chain text, hour timestamptz) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select 'incremental:' || chain || ':' || pg_catalog.to_char(hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
$$;
revoke all on function backup.incremental_key(text, timestamptz) from public;

-- Ends the incremental runs whose hour is over; all of them with `every`. Returns how many.
create function backup.seal_incrementals("every" boolean) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  sealed integer;
begin
  update backup.runs as r
  set status = 'succeeded', finished_at = greatest(backup.clock_now(), r.started_at)
  where r.kind = 'incremental' and r.status = 'copying'
    and ("every" or pg_catalog.date_trunc('hour', backup.clock_now(), 'UTC') > pg_catalog.date_trunc('hour', r.consistent_at, 'UTC'));
  get diagnostics sealed = row_count;
  if sealed > 0 then
    perform backup.complete_incrementals();
  end if;
  return sealed;
end
$$;
revoke all on function backup.seal_incrementals(boolean) from public;
