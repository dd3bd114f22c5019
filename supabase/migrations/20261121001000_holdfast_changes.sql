-- The change stream: chains, their segments, gaps, and the log of DDL that travels in the stream itself.
-- docs/decisions/0013-change-stream.md says why it is so. Lock order: backup.drain → backup.chains → backup.segments →
-- backup.runs → backup.gaps.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('slot_limit_mb', 'integer', '0', 0, 16777216,
    'WAL in MB that the slot may hold back before it is given up; 0: a quarter of max_slot_wal_keep_size, or 1024');

-- State --------------------------------------------------------------------------------------------------------------

-- One row a slot's life. A chain that ended never goes on: what comes next is another chain, with a full of its own.
create table backup.chains (
  id text primary key,
  slot_name name not null,
  publications name[] not null,
  -- every commit past here is in the stream
  start_lsn pg_lsn not null,
  started_at timestamptz not null default backup.clock_now(),
  system_identifier text not null,
  database_name name not null,
  ended_at timestamptz,
  end_reason text,
  constraint id_is_a_short_name check (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  constraint ended_chain_says_why check ((ended_at is null) = (end_reason is null))
);
comment on table backup.chains is 'Unbroken sequences of segments, each from one replication slot.';
create unique index chains_one_open on backup.chains ((true)) where ended_at is null;

-- A row says that the segment was put and read back.
create table backup.segments (
  chain_id text not null references backup.chains (id) on delete cascade,
  start_lsn pg_lsn not null,
  end_lsn pg_lsn not null,
  -- which part of a transaction that is too large for one segment
  part integer not null default 0,
  -- the last row of the spool that is in it
  spool_position bigint,
  run_id uuid not null references backup.runs (id) on delete cascade,
  name text not null unique,
  raw_bytes bigint not null,
  stored_bytes bigint not null,
  hash text not null,
  stored_hash text not null,
  epoch text not null,
  transactions bigint not null,
  changes bigint not null,
  ddl integer not null,
  first_commit_at timestamptz,
  last_commit_at timestamptz,
  -- every commit up to end_lsn was made before this moment
  taken_at timestamptz not null,
  ends_in_transaction boolean not null,
  recorded_at timestamptz not null default backup.clock_now(),
  primary key (chain_id, start_lsn, part),
  constraint segment_goes_forward check (end_lsn > start_lsn)
);
comment on table backup.segments is 'Ranges of the change stream that are stored.';
create unique index segments_by_end on backup.segments (chain_id, end_lsn, part);
create index segments_by_run on backup.segments (run_id);

create table backup.gaps (
  id bigint generated always as identity primary key,
  chain_id text not null references backup.chains (id) on delete cascade,
  -- the last position and moment that are covered
  from_lsn pg_lsn not null,
  from_at timestamptz not null,
  -- where the next chain begins; null until there is one
  to_lsn pg_lsn,
  to_at timestamptz,
  reason text not null,
  noticed_at timestamptz not null default backup.clock_now(),
  constraint gap_goes_forward check (to_at is null or to_at >= from_at)
);
comment on table backup.gaps is 'Spans that no chain covers.';
create index gaps_by_chain on backup.gaps (chain_id);

-- One row: who drains, under a fencing token.
create table backup.drain (
  singleton boolean primary key default true,
  token bigint not null default 0,
  worker text,
  lease_until timestamptz,
  -- up to here we have moved the slot, also over what nobody needs; a slot beyond was moved by somebody else
  advanced_lsn pg_lsn,
  drained_at timestamptz,
  failed_at timestamptz,
  failure text,
  constraint there_is_one_drain check (singleton)
);
comment on table backup.drain is 'The lease of the one drainer, and when it last came to the end of the stream.';
insert into backup.drain default values;

-- A commit larger than a leg can hold, spooled once in order, drained over several legs. Lost with a crash: spooled again.
create unlogged table backup.spool (
  position bigint primary key,
  lsn pg_lsn not null,
  xid xid not null,
  data bytea not null
);
comment on table backup.spool is 'Changes that were read from the slot and are not in segments yet.';

-- What DDL did, in the transaction that did it. Its rows reach a replay through the stream, at their exact place.
create table backup.ddl_log (
  id bigint generated always as identity primary key,
  logged_at timestamptz not null default pg_catalog.clock_timestamp(),
  -- `command`, `drop`, `rewrite`, or `uncovered`: from here on changes of these tables may be missing
  what text not null,
  tag text not null,
  objects jsonb not null,
  query text not null,
  role_name name not null,
  -- of the session's start: inside a trigger function the present one cannot be seen
  search_path text not null,
  constraint what_is_known check (what in ('command', 'drop', 'rewrite', 'uncovered'))
);
comment on table backup.ddl_log is 'DDL as it happened; read by replays, not by people.';

alter table backup.chains enable row level security;
alter table backup.segments enable row level security;
alter table backup.gaps enable row level security;
alter table backup.drain enable row level security;
alter table backup.spool enable row level security;
alter table backup.ddl_log enable row level security;
revoke all on table backup.chains, backup.segments, backup.gaps, backup.drain, backup.spool, backup.ddl_log from public;

-- DDL ----------------------------------------------------------------------------------------------------------------

-- Schemas whose changes nobody needs: our own, side schemas of restores, the platform's transient ones, temporary ones.
create function backup.is_streamed_schema(schema_name text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select schema_name is null or not (
    schema_name in (
      'backup', 'holdfast', 'pg_catalog', 'information_schema', 'cron', 'net', 'vault', 'pgsodium', 'pgsodium_masks',
      'realtime', '_realtime', '_analytics', '_supavisor', 'supabase_functions', 'pgbouncer', 'graphql', 'graphql_public',
      'supabase_migrations'
    )
    or schema_name ~ '^(restore_[0-9a-f]{8}|pg_temp|pg_toast)'
  )
$$;
revoke all on function backup.is_streamed_schema(text) from public;

-- Writes one row of the log. Called by the triggers, which may run for any role that makes or drops something.
create function backup.log_ddl(what text, tag text, objects jsonb) returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.ddl_log (what, tag, objects, query, role_name, search_path)
  select log_ddl.what, log_ddl.tag, log_ddl.objects, pg_catalog.left(pg_catalog.current_query(), 1000000),
    case pg_catalog.current_setting('role') when 'none' then session_user else pg_catalog.current_setting('role')::name end,
    (select s.reset_val from pg_catalog.pg_settings as s where s.name = 'search_path')
$$;
revoke all on function backup.log_ddl(text, text, jsonb) from public;

-- What happened could not be logged: a row without objects, at which every restore to a moment behind it is refused. The
-- user's command goes on, whatever becomes of this.
create function backup.log_unlogged(tag text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.log_ddl('uncovered', log_unlogged.tag, '[]');
exception when others then
  null;
end
$$;
revoke all on function backup.log_unlogged(text) from public;

-- Adds a new table to the publications before its first row is written, where that needs no wait.
create function backup.publish_new_tables(objects jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  chain backup.chains;
  made record;
  missed jsonb := '[]'::jsonb;
  old_timeout text := pg_catalog.current_setting('lock_timeout');
begin
  select c.* into chain from backup.chains as c where c.ended_at is null;
  if chain.id is null then
    return;
  end if;
  perform pg_catalog.set_config('lock_timeout', '500ms', true);
  for made in
    select c.oid, c.oid::regclass as name
    from pg_catalog.jsonb_to_recordset(objects) as x (type text, oid oid)
    join pg_catalog.pg_class as c on c.oid = x.oid
    where x.type = 'table' and c.relkind = 'r' and c.relpersistence = 'p'
  loop
    begin
      perform backup.publish_table(made.oid, chain.publications);
    exception when others then
      -- another transaction makes a table as well, or the platform refuses: the drain adds it, the log says since when not
      missed := missed || pg_catalog.jsonb_build_object('type', 'table', 'identity', made.name::text, 'oid', made.oid::bigint);
    end;
  end loop;
  perform pg_catalog.set_config('lock_timeout', old_timeout, true);
  if missed <> '[]' then
    perform backup.log_ddl('uncovered', 'CREATE TABLE', missed);
  end if;
end
$$;
revoke all on function backup.publish_new_tables(jsonb) from public;

-- Puts a table where it belongs: its updates and deletes into the list where its rows can be known again, else out of it;
-- its inserts into the list of inserts where there is no publication of all tables.
create function backup.publish_table(table_oid oid, publications name[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  target regclass := table_oid::regclass;
  everything boolean := (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
  inserts_listed boolean;
  changes_listed boolean;
begin
  select coalesce(pg_catalog.bool_or(p.pubname = publications[1]), false),
    coalesce(pg_catalog.bool_or(p.pubname = publications[2]), false)
  into inserts_listed, changes_listed
  from pg_catalog.pg_publication_rel as l
  join pg_catalog.pg_publication as p on p.oid = l.prpubid
  where l.prrelid = table_oid;
  if not everything and not inserts_listed then
    execute pg_catalog.format('alter publication %I add table only %s', publications[1], target);
  end if;
  if backup.has_usable_identity(table_oid) and not changes_listed then
    execute pg_catalog.format('alter publication %I add table only %s', publications[2], target);
  elsif changes_listed and not backup.has_usable_identity(table_oid) then
    execute pg_catalog.format('alter publication %I drop table only %s', publications[2], target);
  end if;
end
$$;
revoke all on function backup.publish_table(oid, name[]) from public;

-- Can an update or delete of this table name the row it means? A key that is not valid or deferrable makes the user's own
-- UPDATE fail once the table is published.
create function backup.has_usable_identity(table_oid oid) returns boolean
language sql
stable
set search_path = ''
as $$
  select c.relpersistence = 'p' and (
    c.relreplident = 'f' or exists (
      select from pg_catalog.pg_index as i
      where i.indrelid = c.oid and i.indisvalid and i.indimmediate
        and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
    )
  )
  from pg_catalog.pg_class as c
  where c.oid = table_oid
$$;
revoke all on function backup.has_usable_identity(oid) from public;

-- After every command. Never raises: what goes wrong here is found by the drain, which compares the catalog.
create function backup.after_ddl() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
as $$
declare
  objects jsonb;
begin
  -- what happens before a chain begins is in the full backup that it waits for
  if not exists (select from backup.chains as c where c.ended_at is null) then
    return;
  end if;
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'type', c.object_type, 'identity', c.object_identity, 'schema', c.schema_name, 'oid', c.objid::bigint,
      'extension', c.in_extension
    ) order by c.ordinality)
  into objects
  from pg_catalog.pg_event_trigger_ddl_commands() with ordinality as c
  where backup.is_streamed_schema(c.schema_name)
    and not (c.object_type = 'schema' and not backup.is_streamed_schema(c.object_identity))
    and not (c.object_type in ('publication', 'publication relation', 'publication namespace'));
  if objects is null then
    return;
  end if;
  perform backup.log_ddl('command', tg_tag, objects);
  perform backup.publish_new_tables(objects);
  perform backup.republish_altered(objects);
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_ddl() from public;

-- An altered table may have lost the key that its updates are known by, or have got one.
create function backup.republish_altered(objects jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  chain backup.chains;
  altered record;
  old_timeout text := pg_catalog.current_setting('lock_timeout');
begin
  select c.* into chain from backup.chains as c where c.ended_at is null;
  if chain.id is null then
    return;
  end if;
  perform pg_catalog.set_config('lock_timeout', '500ms', true);
  for altered in
    select distinct coalesce(i.indrelid, c.oid) as oid
    from pg_catalog.jsonb_to_recordset(objects) as x (type text, oid oid)
    join pg_catalog.pg_class as c on c.oid = x.oid
    left join pg_catalog.pg_index as i on i.indexrelid = c.oid
    where x.type in ('table', 'index') and c.relpersistence = 'p' and c.relkind in ('r', 'i')
  loop
    begin
      perform backup.publish_table(altered.oid, chain.publications);
    exception when others then
      perform backup.log_ddl('uncovered', 'ALTER TABLE', pg_catalog.jsonb_build_array(
        pg_catalog.jsonb_build_object('type', 'table', 'identity', altered.oid::regclass::text, 'oid', altered.oid::bigint)
      ));
    end;
  end loop;
  perform pg_catalog.set_config('lock_timeout', old_timeout, true);
end
$$;
revoke all on function backup.republish_altered(jsonb) from public;

create function backup.after_drop() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
as $$
declare
  objects jsonb;
begin
  if not exists (select from backup.chains as c where c.ended_at is null) then
    return;
  end if;
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'type', d.object_type, 'identity', d.object_identity, 'schema', d.schema_name, 'oid', d.objid::bigint,
      'original', d.original
    ) order by d.ordinality)
  into objects
  from pg_catalog.pg_event_trigger_dropped_objects() with ordinality as d
  where backup.is_streamed_schema(d.schema_name) and not d.is_temporary
    and not (d.object_type = 'schema' and not backup.is_streamed_schema(d.object_identity))
    and d.object_type not in ('publication', 'publication relation', 'publication namespace');
  if objects is null then
    return;
  end if;
  perform backup.log_ddl('drop', tg_tag, objects);
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_drop() from public;

create function backup.after_rewrite() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
as $$
declare
  rewritten oid := pg_catalog.pg_event_trigger_table_rewrite_oid();
  schema_name name;
begin
  if not exists (select from backup.chains as c where c.ended_at is null) then
    return;
  end if;
  select n.nspname into schema_name
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where c.oid = rewritten and c.relpersistence <> 't';
  if schema_name is null or not backup.is_streamed_schema(schema_name) then
    return;
  end if;
  perform backup.log_ddl('rewrite', tg_tag, pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
    'type', 'table', 'identity', rewritten::regclass::text, 'oid', rewritten::bigint,
    'reason', pg_catalog.pg_event_trigger_table_rewrite_reason()
  )));
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_rewrite() from public;

-- Where only a superuser may make event triggers and we are none, DDL is not logged; the drain says so.
do $$
begin
  create event trigger holdfast_after_ddl on ddl_command_end execute function backup.after_ddl();
  create event trigger holdfast_after_drop on sql_drop execute function backup.after_drop();
  create event trigger holdfast_after_rewrite on table_rewrite execute function backup.after_rewrite();
  alter event trigger holdfast_after_ddl enable always;
  alter event trigger holdfast_after_drop enable always;
  alter event trigger holdfast_after_rewrite enable always;
exception when insufficient_privilege then
  raise notice 'event triggers cannot be made by %: point-in-time recovery will not cross changes of definitions', current_user;
end
$$;

-- Draining -----------------------------------------------------------------------------------------------------------

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
    select s.singleton from backup.drain as s where s.lease_until is null or s.lease_until < backup.clock_now()
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
  truncate backup.spool;
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

-- Gives the lease back. `covered_until`: every commit before that moment is stored; null when the end of the stream was not
-- reached. `failure`: what kept it from its end.
create function backup.release_drain(token bigint, covered_until timestamptz, failure text) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.drain as d
  set lease_until = null, worker = null,
    drained_at = coalesce(release_drain.covered_until, d.drained_at),
    failed_at = case when release_drain.failure is not null then backup.clock_now() end,
    failure = release_drain.failure
  where d.token = release_drain.token
$$;
revoke all on function backup.release_drain(bigint, timestamptz, text) from public;

-- The publications of the stream, made where they are missing: inserts and truncates of all tables where the server lets
-- us, else by list; updates and deletes by list. Returns whether inserts are of all tables.
create function backup.make_publications(publications name[]) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (select from pg_catalog.pg_publication as p where p.pubname = publications[1]) then
    begin
      execute pg_catalog.format('create publication %I for all tables with (publish = ''insert, truncate'')', publications[1]);
    exception when insufficient_privilege then
      execute pg_catalog.format('create publication %I with (publish = ''insert, truncate'')', publications[1]);
      execute pg_catalog.format('alter publication %I add table only backup.ddl_log', publications[1]);
    end;
  end if;
  if not exists (select from pg_catalog.pg_publication as p where p.pubname = publications[2]) then
    execute pg_catalog.format('create publication %I with (publish = ''update, delete'')', publications[2]);
  end if;
  return (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
end
$$;
revoke all on function backup.make_publications(name[]) from public;

-- Makes the lists agree with the catalog; one line a table whose changes the stream does not carry whole, with a reason.
-- `missed`: the table was there before and its inserts were not published until now.
create function backup.publish_tables(publications name[])
returns table (schema_name name, table_name name, missing text, reason text, just_added boolean)
language plpgsql
volatile
set search_path = ''
as $$
declare
  everything boolean := (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
  listed record;
begin
  for listed in
    select c.oid, n.nspname, c.relname, c.relpersistence, c.relreplident, backup.has_usable_identity(c.oid) as usable,
      exists (
        select from pg_catalog.pg_publication_rel as l join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = c.oid and p.pubname = publications[1]
      ) as inserts_listed,
      exists (
        select from pg_catalog.pg_publication_rel as l join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = c.oid and p.pubname = publications[2]
      ) as changes_listed
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind = 'r' and c.oid >= 16384 and c.relpersistence <> 't' and backup.is_streamed_schema(n.nspname)
      and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
      )
    order by n.nspname, c.relname
  loop
    schema_name := listed.nspname;
    table_name := listed.relname;
    just_added := false;
    if listed.relpersistence = 'u' then
      missing := 'everything';
      reason := 'it is unlogged: its changes are not in the log';
      return next;
      continue;
    end if;
    if (everything or listed.inserts_listed) and listed.changes_listed = listed.usable then
      if not listed.usable then
        missing := 'updates and deletes';
        reason := 'it has no usable replica identity';
        return next;
      end if;
      continue;
    end if;
    begin
      perform pg_catalog.set_config('lock_timeout', '2s', true);
      perform backup.publish_table(listed.oid, publications);
      if not (everything or listed.inserts_listed) or (listed.usable and not listed.changes_listed) then
        missing := case when everything or listed.inserts_listed then 'updates and deletes' else 'everything' end;
        reason := 'it was not published until now';
        just_added := true;
        return next;
      end if;
      if not listed.usable then
        missing := 'updates and deletes';
        reason := 'it has no usable replica identity';
        just_added := false;
        return next;
      end if;
    exception when others then
      missing := case when everything then 'updates and deletes' else 'everything' end;
      reason := 'it cannot be published: ' || sqlerrm;
      return next;
    end;
  end loop;
end
$$;
revoke all on function backup.publish_tables(name[]) from public;

-- The slot is made: a chain begins. An open gap ends here.
create function backup.begin_chain(token bigint, id text, slot_name name, publications name[], start_lsn pg_lsn) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.hold_drain(token, interval '90 seconds');
  insert into backup.chains (id, slot_name, publications, start_lsn, system_identifier, database_name)
  select begin_chain.id, begin_chain.slot_name, begin_chain.publications, begin_chain.start_lsn,
    c.system_identifier::text, pg_catalog.current_database()
  from pg_catalog.pg_control_system() as c;
  update backup.drain as d set advanced_lsn = begin_chain.start_lsn;
  update backup.gaps as g set to_lsn = begin_chain.start_lsn, to_at = greatest(g.from_at, backup.clock_now())
  where g.to_at is null;
  perform backup.audit('chain.begun', 'chain:' || begin_chain.id, pg_catalog.jsonb_build_object('start', start_lsn::text));
end
$$;
revoke all on function backup.begin_chain(bigint, text, name, name[], pg_lsn) from public;

-- A chain is over: a gap from its last segment on, with an alert. Restores to moments behind the gap need a new full.
create function backup.end_chain(chain text, reason text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.chains;
  last backup.segments;
begin
  update backup.chains as c set ended_at = backup.clock_now(), end_reason = end_chain.reason
  where c.id = end_chain.chain and c.ended_at is null
  returning c.* into ours;
  if ours.id is null then
    return;
  end if;
  select s.* into last from backup.segments as s where s.chain_id = ours.id order by s.end_lsn desc limit 1;
  insert into backup.gaps (chain_id, from_lsn, from_at, reason)
  values (ours.id, coalesce(last.end_lsn, ours.start_lsn), coalesce(last.taken_at, ours.started_at), end_chain.reason);
  truncate backup.spool;
  perform backup.seal_incrementals(true);
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
revoke all on function backup.end_chain(text, text) from public;

-- A segment was put and read back. Its hour's run is made with the first one. HF413 for an old token; HF415 (run_state) for
-- a segment that does not follow the last one: replay would refuse the chain.
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
  hour := pg_catalog.date_trunc('hour', given.taken_at, 'UTC');
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
    on conflict (request_key) do update set status = 'copying', finished_at = null
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
  update backup.runs as r
  set heartbeat_at = backup.clock_now(), rows = r.rows + given.changes, raw_bytes = r.raw_bytes + given.raw_bytes,
    stored_bytes = r.stored_bytes + given.stored_bytes, new_stored_bytes = r.new_stored_bytes + given.stored_bytes,
    consistent_at = given.taken_at, wal_lsn = given.end_lsn, epoch = given.epoch, chain_id = given.chain_id,
    tasks_total = r.tasks_total + 1, tasks_done = r.tasks_done + 1
  where r.id = run;
  return run;
end
$$;
revoke all on function backup.record_segment(bigint, jsonb) from public;

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
  set status = 'succeeded', finished_at = backup.clock_now()
  where r.kind = 'incremental' and r.status = 'copying'
    and ("every" or pg_catalog.date_trunc('hour', backup.clock_now(), 'UTC') > pg_catalog.date_trunc('hour', r.consistent_at, 'UTC'));
  get diagnostics sealed = row_count;
  return sealed;
end
$$;
revoke all on function backup.seal_incrementals(boolean) from public;

-- See the setting slot_limit_mb. Free disk is not visible from here.
create function backup.slot_limit_bytes() returns bigint
language sql
stable
set search_path = ''
as $$
  select case
    when backup.setting_integer('slot_limit_mb') > 0 then backup.setting_integer('slot_limit_mb') * 1048576
    when kept.megabytes > 0 then kept.megabytes * 1048576 / 4
    else 1024::bigint * 1048576
  end
  from (
    select s.setting::bigint as megabytes from pg_catalog.pg_settings as s where s.name = 'max_slot_wal_keep_size'
  ) as kept
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

-- Each minute, beside the drain: a slot that is gone or holds back too much ends its chain; the database lives.
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
    perform backup.drop_slot(slot.slot_name);
    perform backup.end_chain(slot.chain_id, 'the server gave the slot up');
    return 'lost';
  elsif slot.retained_bytes > slot.limit_bytes then
    perform backup.drop_slot(slot.slot_name);
    perform backup.end_chain(slot.chain_id, pg_catalog.format(
      'the slot held back %s MB of WAL, more than %s MB', slot.retained_bytes / 1048576, slot.limit_bytes / 1048576
    ));
    return 'over the limit';
  elsif slot.retained_bytes > slot.limit_bytes / 2 then
    perform backup.raise_alert(
      'slot_behind', 'chain:' || slot.chain_id,
      pg_catalog.format(
        'the slot holds back %s MB of WAL; at %s MB it is given up%s', slot.retained_bytes / 1048576,
        slot.limit_bytes / 1048576, coalesce('; ' || backup.oldest_transaction(), '')
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

-- What keeps the slot from moving although it is drained: the oldest transaction of any database.
create function backup.oldest_transaction() returns text
language sql
stable
set search_path = ''
as $$
  select pg_catalog.format(
    'the oldest transaction is that of process %s in database %s, since %s UTC', a.pid, a.datname,
    pg_catalog.to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
  )
  from pg_catalog.pg_stat_activity as a
  where a.xact_start is not null and a.backend_xid is not null
  order by a.xact_start
  limit 1
$$;
revoke all on function backup.oldest_transaction() from public;

-- What the cron job `holdfast-changes` calls: the guard, then a drain by the function. Where no function can be called the
-- stream is left to `holdfast follow` and `holdfast incremental`.
create function backup.call_drain() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.guard_slot();
  perform backup.seal_incrementals(false);
  return backup.invoke('backup', '{"action": "drain"}');
exception when sqlstate 'HF002' then
  return null;
end
$$;
revoke all on function backup.call_drain() from public;

-- Is there an open chain and no full backup on it, nor one under way that might be? One that began before the chain is
-- waited for: it would be joined.
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
      )
      and not exists (
        select from backup.runs as r
        where r.kind = 'full' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
      )
  )
$$;
revoke all on function backup.chain_lacks_full() from public;

-- A drain by a function is over. `drain`: {outcome, begun, chain}; `failure`: {code, message}. What is left is drained at
-- once by another isolate. A chain without a full backup gets one, asked for once an hour: nothing of it can be restored
-- without.
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
  else
    perform backup.resolve_alert(a.kind, a.subject)
    from backup.alerts as a
    where a.kind = 'stream_gap' and a.status <> 'resolved'
      and exists (
        select from backup.runs as r join backup.chains as c on c.id = r.chain_id and c.ended_at is null
        where r.kind = 'full' and r.status = 'succeeded'
      );
  end if;
  if drain ->> 'outcome' = 'work_left' then
    perform backup.invoke('backup', '{"action": "drain"}');
  end if;
end
$$;
revoke all on function backup.end_drain(text, jsonb, jsonb) from public;
