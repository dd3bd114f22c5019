-- The chain of the audit log: each row's hash covers the row and all before it, so that nothing can be changed, taken out or
-- moved without every later hash being another one. The head of the chain is kept in the stores too (anchors), where whoever
-- rewrites the database does not reach. One chainer at a time, outside of the acts' transactions: in them it would be a queue.
-- Rows after the last anchor are not protected from the owner of the database yet.

create table backup.audit_chain (
  place bigint primary key,
  entry_id bigint not null unique,
  hash bytea not null,
  constraint positions_begin_at_one check (place >= 1),
  constraint hash_is_sha256 check (length(hash) = 32)
);
comment on table backup.audit_chain is 'Hashes of the rows of the audit log, in the order in which they were chained.';
alter table backup.audit_chain enable row level security;
revoke all on table backup.audit_chain from public;

create trigger audit_chain_only_grows
  before update or delete or truncate on backup.audit_chain
  for each statement execute function backup.refuse_audit_change();
alter table backup.audit_chain enable always trigger audit_chain_only_grows;

-- SHA-256 of the hash before (none for the first) and the row. What is hashed is JSON text, an array of format version,
-- place, id, microseconds since 1970, actor, action, subject and detail: whoever has the rows can compute it elsewhere.
create function backup.audit_hash(
  before bytea, place bigint, id bigint, recorded_at timestamptz, actor text, action text, subject text, detail jsonb
) returns bytea
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.sha256(coalesce(before, '') || pg_catalog.convert_to(
    pg_catalog.jsonb_build_array(
      1, place, id, pg_catalog.trunc(extract(epoch from recorded_at) * 1000000)::bigint, actor, action, subject, detail
    )::text, 'UTF8'
  ))
$$;
revoke all on function backup.audit_hash(bytea, bigint, bigint, timestamptz, text, text, text, jsonb) from public;

-- Which life of the database this is: another one after every managed restore, promotion or move to another server.
create function backup.server_life() returns text
language sql
stable
set search_path = ''
as $$
  select s.system_identifier::text || '/' || c.timeline_id::text
  from pg_catalog.pg_control_system() as s, pg_catalog.pg_control_checkpoint() as c
$$;
revoke all on function backup.server_life() from public;

-- How far the chainer has looked: rows of transactions below `done_before` are chained. `rows_after`, the newest row that was
-- chained until then, is null while the beginning of a life is not over. Transactions are
-- numbered anew in another life, so that all rows are looked at there until every transaction of its beginning has ended.
create table backup.audit_chainer (
  singleton boolean primary key default true,
  life text not null default '',
  began_before xid8 not null default '0',
  rows_after bigint,
  done_before xid8 not null default '0',
  constraint there_is_one_chainer check (singleton)
);
comment on table backup.audit_chainer is 'How far the chain of the audit log has come.';
alter table backup.audit_chainer enable row level security;
revoke all on table backup.audit_chainer from public;
insert into backup.audit_chainer default values;
create index audit_log_by_transaction on backup.audit_log (transaction_id);

-- Chains rows whose transactions have ended, at most `at_most`; returns how many. A second chainer does nothing: 0.
create function backup.chain_audit(at_most integer) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  snapshot constant pg_snapshot := pg_catalog.pg_current_snapshot();
  life constant text := backup.server_life();
  state backup.audit_chainer;
  head bytea;
  next_place bigint;
  entry record;
  chained integer := 0;
begin
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:chain', 0)) then
    return 0;
  end if;
  select c.* into state from backup.audit_chainer as c;
  if state.life <> life then
    state := (true, life, pg_catalog.pg_snapshot_xmax(snapshot), null, '0');
  end if;
  select c.place, c.hash into next_place, head from backup.audit_chain as c order by c.place desc limit 1;
  next_place := coalesce(next_place, 0);
  for entry in
    select l.id, l.recorded_at, l.actor, l.action, l.subject, l.detail
    from backup.audit_log as l
    where (
        state.rows_after is null
        or (
          l.transaction_id >= state.done_before
          and l.transaction_id < pg_catalog.pg_snapshot_xmin(snapshot)
        )
      )
      and not exists (select from backup.audit_chain as c where c.entry_id = l.id)
    order by l.id
    limit at_most
  loop
    next_place := next_place + 1;
    head := backup.audit_hash(
      head, next_place, entry.id, entry.recorded_at, entry.actor, entry.action, entry.subject, entry.detail
    );
    insert into backup.audit_chain (place, entry_id, hash) values (next_place, entry.id, head);
    chained := chained + 1;
  end loop;
  if chained < at_most then
    if state.rows_after is null and pg_catalog.pg_snapshot_xmin(snapshot) >= state.began_before then
      state.rows_after := coalesce((select max(c.entry_id) from backup.audit_chain as c), 0);
    end if;
    if state.rows_after is not null then
      state.done_before := pg_catalog.pg_snapshot_xmin(snapshot);
    end if;
  end if;
  update backup.audit_chainer as c
  set life = state.life, began_before = state.began_before, rows_after = state.rows_after, done_before = state.done_before
  where (c.life, c.began_before, c.done_before) is distinct from (state.life, state.began_before, state.done_before)
    or c.rows_after is distinct from state.rows_after;
  return chained;
end
$$;
revoke all on function backup.chain_audit(integer) from public;

-- The watchdog's step.
create function backup.chain_audit() returns integer
language sql
volatile
set search_path = ''
as $$
  select backup.chain_audit(10000)
$$;
revoke all on function backup.chain_audit() from public;

-- Anchors that stand in a store, each written after its object was read back. The objects are what counts.
create table backup.audit_anchors (
  object_name text not null,
  store text not null,
  place bigint not null,
  hash bytea not null,
  life text not null,
  anchored_at timestamptz not null default backup.clock_now(),
  primary key (object_name, store)
);
comment on table backup.audit_anchors is 'Heads of the audit''s chain that were put into a store.';
alter table backup.audit_anchors enable row level security;
revoke all on table backup.audit_anchors from public;

-- Where the chain breaks, from the first row on: the hash does not follow from the row and the hash before, the row is gone, a
-- place is missing, or a row is there that the chainer has passed over (it was put there behind its back). At most 100.
create function backup.audit_breaks() returns table (break_at bigint, entry_id bigint, what text)
language sql
stable
set search_path = ''
as $$
  select breaks.break_at, breaks.entry_id, breaks.what from (
    select c.place, c.entry_id,
      case
        when l.id is null then 'the row is gone'
        when c.place <> coalesce(c.place_prior, 0) + 1 then 'positions before it are missing'
        else 'the row or the chain was changed'
      end
    from (
      select h.*, lag(h.place) over steps as place_prior, lag(h.hash) over steps as hash_before
      from backup.audit_chain as h window steps as (order by h.place)
    ) as c
    left join backup.audit_log as l on l.id = c.entry_id
    where l.id is null
      or c.place <> coalesce(c.place_prior, 0) + 1
      or c.hash <> backup.audit_hash(
        c.hash_before, c.place, l.id, l.recorded_at, l.actor, l.action, l.subject, l.detail
      )
    union all
    select null, l.id, 'the row is not in the chain'
    from backup.audit_log as l, backup.audit_chainer as state
    where not exists (select from backup.audit_chain as c where c.entry_id = l.id)
      and state.life = backup.server_life()
      and state.rows_after is not null
      and (
        l.transaction_id < state.done_before
        -- of no transaction that can have written it
        or l.transaction_id >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
          and l.transaction_id is distinct from pg_catalog.pg_current_xact_id_if_assigned()
      )
  ) as breaks (break_at, entry_id, what)
  order by breaks.break_at nulls last, breaks.entry_id
  limit 100
$$;
revoke all on function backup.audit_breaks() from public;

-- What the cron job calls each hour: the function puts the chain's head into the stores. Without address and secret in Vault
-- nothing is called; anchors then come with the backups that the CLI takes.
create function backup.call_anchor() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return backup.invoke('backup', '{"action": "anchor"}');
exception
  when sqlstate 'HF002' then
    return null;
end
$$;
revoke all on function backup.call_anchor() from public;
