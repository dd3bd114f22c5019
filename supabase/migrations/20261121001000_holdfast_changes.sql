-- The change stream, first its tables: chains, their segments, gaps, and the log of DDL that travels in the stream itself.
-- What works on them is in the files behind: publications, ddl, drain, guard. docs/decisions/0013-change-stream.md says why
-- it is so. Lock order: backup.drain → backup.chains → backup.segments → backup.runs → backup.gaps.

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
  -- of the log: another one after a restore from an archive, or a failover
  log_timeline text not null default pg_catalog.substr(
    pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8
  ),
  -- as the last segment tells them
  definitions jsonb,
  -- where its segments are in the stores; '' is their top
  store_prefix text not null default '',
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

-- What no replay can do, so that moments from there on need a full backup taken behind it.
create table backup.obstacles (
  chain_id text not null references backup.chains (id) on delete cascade,
  -- a full backup at or behind it holds what was done there
  lsn pg_lsn not null,
  -- moments before can be restored
  at timestamptz not null,
  what text not null,
  why text not null,
  primary key (chain_id, lsn)
);
comment on table backup.obstacles is 'Places of the change stream that no restore to a moment comes past.';

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
  -- definitions are logged: since before the slot was made, so that none is missed of what its stream holds
  logs_ddl boolean not null default false,
  -- when the store was last compared with what is recorded here, and since when the server ran then
  looked_at timestamptz,
  looked_while timestamptz,
  drained_at timestamptz,
  -- when the chain's drains have last looked whose everything is
  owners_read_at timestamptz,
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

-- What the server had counted of a table when its updates and deletes were published no more: so much of it is in the stream.
create table backup.unlisted_tables (
  table_oid oid primary key,
  updated bigint not null,
  deleted bigint not null,
  -- as backup.counting_since() said
  counting_since text not null
);
comment on table backup.unlisted_tables is 'Tables that left the list of published updates, with the counters of that moment.';

-- What DDL did, in the transaction that did it. Its rows reach a replay through the stream, at their exact place.
create table backup.ddl_log (
  id bigint generated always as identity primary key,
  logged_at timestamptz not null default pg_catalog.clock_timestamp(),
  -- `command`, `drop`, `rewrite`; `uncovered`: changes of these tables are missing, or will be; `doubted`: they got an
  -- identity, and what other sessions did to them right before may be missing
  what text not null,
  tag text not null,
  objects jsonb not null,
  query text not null,
  role_name name not null,
  -- of the session's start: inside a trigger function the present one cannot be seen
  search_path text not null,
  -- what else a text means depends on, in the words of SET: `search_path`, `timezone`, `datestyle`, `intervalstyle`
  settings jsonb not null default '{}',
  constraint what_is_known check (what in ('command', 'drop', 'rewrite', 'uncovered', 'doubted'))
);
comment on table backup.ddl_log is 'DDL as it happened; read by replays, not by people.';

alter table backup.chains enable row level security;
alter table backup.segments enable row level security;
alter table backup.obstacles enable row level security;
alter table backup.gaps enable row level security;
alter table backup.drain enable row level security;
alter table backup.spool enable row level security;
alter table backup.unlisted_tables enable row level security;
alter table backup.ddl_log enable row level security;
revoke all on table backup.chains, backup.segments, backup.obstacles, backup.gaps, backup.drain, backup.spool,
  backup.unlisted_tables, backup.ddl_log from public;

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
    or schema_name ~ '^(restore_[0-9a-f]{8}$|pg_temp|pg_toast)'
  )
$$;
revoke all on function backup.is_streamed_schema(text) from public;
