-- Rewriting of what is kept: backups and segments from before an erasure are sealed again without what was erased. Here stands what was
-- rewritten, what has to leave the stores for it, and the certificate. The CLI does it (`holdfast erase rewrite`); what nothing names any
-- more goes with the sweep of retention. docs/decisions/0040-rewriting.md. Lock order: the advisory lock holdfast:rewriting, then
-- backup.runs → backup.segments → backup.rewritten → backup.remains → backup.erasures.

-- What the next manifest or segment names as the one before: the bytes that were there first. Null: they still are.
alter table backup.runs add column link_hash text, add column rewritten_through integer not null default 0;
alter table backup.segments add column link_hash text, add column rewritten_through integer not null default 0;
-- `replaces`: the list whose files it holds, but for those that were erased.
alter table backup.file_lists add column rewritten_through integer not null default 0, add column replaces text;
create index file_lists_by_replaced on backup.file_lists (replaces) where replaces is not null;

alter table backup.erasures
  -- nothing of the person was in the live project any more; every backup and segment from before may hold them
  add column searched_at timestamptz,
  add column passed_lsn pg_lsn,
  -- every backup and segment was rewritten, or holds nothing of them
  add column rewritten_at timestamptz,
  -- and what was there before is gone from every store
  add column clean_at timestamptz,
  add column certificate jsonb,
  add constraint clean_erasure_was_rewritten check (clean_at is null or rewritten_at is not null),
  add constraint certified_erasure_is_clean check (certificate is null or clean_at is not null);

-- Manifests and segments that stand in the place of others of their names, until the ledger lists them.
create table backup.rewritten (
  name text primary key,
  revision integer not null,
  hash text not null,
  listed_at timestamptz,
  rewritten_at timestamptz not null default backup.clock_now()
);
comment on table backup.rewritten is 'Manifests and segments that lawful erasures have replaced.';
alter table backup.rewritten enable row level security;
revoke all on table backup.rewritten from public;

-- What has to be gone from a store: `object`: the name itself; `earlier`: what the name held before, where a store keeps versions.
create table backup.remains (
  store text not null,
  name text not null,
  what text not null,
  -- entries of the ledger after the one and up to the other made it go
  after integer not null,
  through integer not null,
  -- locked until then, as the store told it
  locked_until timestamptz,
  -- why it stayed when it was last looked at
  why text,
  noticed_at timestamptz not null default backup.clock_now(),
  gone_at timestamptz,
  primary key (store, name, what, through),
  constraint what_is_known check (what in ('object', 'earlier')),
  constraint entries_go_forward check (through > after)
);
comment on table backup.remains is 'Objects from before an erasure that have to leave the stores.';
create index remains_to_go on backup.remains (store, name) where gone_at is null;
alter table backup.remains enable row level security;
revoke all on table backup.remains from public;

-- One row while a rewriting is not over: what it found to go beside what the ledger names, as keyed hashes, how far it is in each chain, and
-- up to which entry of the ledger it applies. What was rewritten tells it no more, and the rest has to be rewritten by the same; the next one
-- ends it first. Its form is src/shared/erase/rewrite/progress.ts.
create table backup.rewriting (
  singleton boolean primary key default true,
  state jsonb not null,
  noted_at timestamptz not null default backup.clock_now(),
  constraint there_is_one_rewriting check (singleton)
);
comment on table backup.rewriting is 'What a rewriting that is not over has found: keyed hashes.';
alter table backup.rewriting enable row level security;
revoke all on table backup.rewriting from public;

-- `state` null: it is over.
create function backup.note_rewriting(state jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if note_rewriting.state is null then
    delete from backup.rewriting as w where w.singleton;
  else
    insert into backup.rewriting as w (state) values (note_rewriting.state)
    on conflict on constraint rewriting_pkey do update set state = excluded.state, noted_at = backup.clock_now();
  end if;
end
$$;
revoke all on function backup.note_rewriting(jsonb) from public;

-- Held while a session rewrites. HF415 (run_state) where another one does.
create function backup.lock_rewriting() returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('holdfast:rewriting', 0)) then
    raise exception 'backups are being rewritten already' using errcode = 'HF415', hint = 'Wait for its end; it can be watched there.';
  end if;
end
$$;
revoke all on function backup.lock_rewriting() from public;

-- Why nothing may be rewritten now: HF471 (erasure_held) for a hold on somebody who was erased; HF480 (rewriting_waits) while what is to be
-- rewritten still grows, or is read: a backup that began before the erasure, changes that were not drained, a restore.
create function backup.refuse_rewriting() returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  reason text;
begin
  select h.reason into reason
  from backup.erasure_holds as h
  join backup.erasures as e on e.person = backup.person_hash(h.user_id::text)
  where e.clean_at is null
  limit 1;
  if reason is not null then
    raise exception 'a legal hold keeps what backups hold of a person who was erased: %', reason using errcode = 'HF471';
  end if;
  select pg_catalog.format('erasure %s is not over in the live project', e.id) into reason
  from backup.erasures as e where e.status in ('recorded', 'emptied') limit 1;
  if reason is null then
    select pg_catalog.format('backup %s began before the erasure and is under way', r.id) into reason
    from backup.runs as r
    where r.kind = 'full' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
      and r.created_at <= (select max(e.searched_at) from backup.erasures as e where e.rewritten_at is null)
    limit 1;
  end if;
  if reason is null then
    select pg_catalog.format('restore %s reads what is kept', r.id) into reason
    from backup.restores as r where r.status in ('planned', 'loading', 'applying') limit 1;
  end if;
  if reason is null then
    select pg_catalog.format('the change stream is drained up to %s, the erasure ends at %s', reached.lsn, e.passed_lsn) into reason
    from backup.chains as c
    cross join lateral (
      select coalesce(max(s.end_lsn), c.start_lsn) as lsn from backup.segments as s where s.chain_id = c.id
    ) as reached
    join backup.erasures as e on e.rewritten_at is null and e.passed_lsn > reached.lsn
    where c.ended_at is null
    limit 1;
  end if;
  if reason is not null then
    raise exception '%', reason using errcode = 'HF480';
  end if;
end
$$;
revoke all on function backup.refuse_rewriting() from public;

-- The backup's manifest, locked until the caller's transaction ends: `held`; `gone`: retention has taken it; `in use`: somebody reads it now,
-- and must not find another one at the next step.
create function backup.hold_manifest(name text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.runs;
begin
  select r.* into ours from backup.runs as r
  where r.kind = 'full' and r.manifest_name = hold_manifest.name for update;
  return case
    when ours.status not in ('succeeded', 'quarantined')
      or exists (select from backup.removals as m where m.name = hold_manifest.name)
    then 'gone'
    when exists (select from backup.backups_needed() as n where n.backup = ours.id) then 'in use'
    else 'held'
  end;
end
$$;
revoke all on function backup.hold_manifest(text) from public;

create function backup.hold_segment(name text) returns text
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform from backup.segments as s where s.name = hold_segment.name for update;
  return case when exists (select from backup.removals as m where m.name = hold_segment.name) then 'gone' else 'held' end;
end
$$;
revoke all on function backup.hold_segment(text) from public;

-- One that stands in the place of another: noted for the ledger, and copied again. `facts`: {name, revision, hash, original, through,
-- bytes, stored_bytes}.
create function backup.note_rewritten(facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into backup.rewritten as w (name, revision, hash)
  values (facts ->> 'name', (facts ->> 'revision')::integer, facts ->> 'hash')
  on conflict on constraint rewritten_pkey do update
    set revision = excluded.revision, hash = excluded.hash, listed_at = null, rewritten_at = backup.clock_now();
  update backup.copies as c
  set status = case c.kind when 'manifest' then 'unopened' else 'missing' end, noticed_at = backup.clock_now(),
    first_hash = facts ->> 'hash', first_bytes = (facts ->> 'stored_bytes')::bigint
  where c.name = facts ->> 'name';
  update backup.objects as o
  set stored_hash = facts ->> 'hash', stored_bytes = (facts ->> 'stored_bytes')::bigint, recorded_at = backup.clock_now()
  where o.name = facts ->> 'name';
end
$$;
revoke all on function backup.note_rewritten(jsonb) from public;

-- The manifest stands in the store and was read back. `facts` as note_rewritten has them, with {rows, raw_bytes, total_bytes, chunks: those
-- that differ from what is known: [{table_oid, from_block, from_item, object, rows, raw_bytes, stored_bytes, hash, stored_hash}], lists: [{before,
-- list}], objects: as record_objects has them}. A chunk without rows is none any more. Ranges that were rewritten are read again by the
-- next backup.
create function backup.record_rewritten_backup(facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.runs;
begin
  select r.* into ours from backup.runs as r
  where r.kind = 'full' and r.manifest_name = facts ->> 'name' and r.status in ('succeeded', 'quarantined') for update;
  perform backup.rescue_objects(array(
    select o.name from pg_catalog.jsonb_to_recordset(facts -> 'objects') as o (name text)
  ));
  perform backup.record_objects(ours.id, facts -> 'objects');
  perform backup.note_rewritten(facts);
  delete from backup.opened_manifests as o where o.name = facts ->> 'name';
  if ours.id is null then
    return;
  end if;
  delete from backup.chunks as c
  using pg_catalog.jsonb_to_recordset(facts -> 'chunks') as n (table_oid oid, from_block bigint, from_item integer, rows bigint)
  where c.run_id = ours.id and c.attempt = ours.attempt and c.table_oid = n.table_oid and c.from_block = n.from_block
    and c.from_item = n.from_item and n.rows = 0;
  update backup.chunks as c
  set object = n.object, rows = n.rows, raw_bytes = n.raw_bytes, stored_bytes = n.stored_bytes, hash = n.hash,
    stored_hash = n.stored_hash, taken_from = null, fingerprint = 'rewritten'
  from pg_catalog.jsonb_to_recordset(facts -> 'chunks') as n (
    table_oid oid, from_block bigint, from_item integer, object text, rows bigint, raw_bytes bigint, stored_bytes bigint, hash text,
    stored_hash text
  )
  where c.run_id = ours.id and c.attempt = ours.attempt and c.table_oid = n.table_oid and c.from_block = n.from_block
    and c.from_item = n.from_item and n.rows > 0;
  update backup.tasks as t
  set result = pg_catalog.jsonb_set(t.result, '{list}', n.list)
  from pg_catalog.jsonb_to_recordset(facts -> 'lists') as n (before text, list jsonb)
  where t.run_id = ours.id and t.kind = 'files' and t.result #>> '{list,object}' = n.before;
  update backup.runs as r
  set manifest_hash = facts ->> 'hash', link_hash = facts ->> 'original', rewritten_through = (facts ->> 'through')::integer,
    rows = (facts ->> 'rows')::bigint, raw_bytes = (facts ->> 'raw_bytes')::bigint, stored_bytes = (facts ->> 'total_bytes')::bigint,
    complete_at = case when backup.has_second_store() then null else r.complete_at end
  where r.id = ours.id;
  perform backup.audit('backup.rewritten', 'run:' || ours.id, pg_catalog.jsonb_build_object(
    'revision', facts -> 'revision', 'through', facts -> 'through', 'rows', (facts ->> 'rows')::bigint
  ));
end
$$;
revoke all on function backup.record_rewritten_backup(jsonb) from public;

-- `facts` as note_rewritten has them, with {raw_bytes, plain_hash, changes}.
create function backup.record_rewritten_segment(facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.segments as s
  set raw_bytes = (facts ->> 'raw_bytes')::bigint, stored_bytes = (facts ->> 'stored_bytes')::bigint, hash = facts ->> 'plain_hash',
    stored_hash = facts ->> 'hash', link_hash = facts ->> 'original', changes = (facts ->> 'changes')::bigint,
    rewritten_through = (facts ->> 'through')::integer
  where s.name = facts ->> 'name';
  perform backup.note_rewritten(facts);
end
$$;
revoke all on function backup.record_rewritten_segment(jsonb) from public;

-- These hold nothing of anybody up to that entry of the ledger.
create function backup.note_clean(names text[], through integer) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.runs as r set rewritten_through = greatest(r.rewritten_through, note_clean.through)
  where r.kind = 'full' and r.manifest_name = any (names);
  update backup.segments as s set rewritten_through = greatest(s.rewritten_through, note_clean.through)
  where s.name = any (names);
  update backup.file_lists as l set rewritten_through = greatest(l.rewritten_through, note_clean.through)
  where l.name = any (names);
$$;
revoke all on function backup.note_clean(text[], integer) from public;

-- [{store, name, what, after, through, locked_until}].
create function backup.note_remains(remains jsonb) returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.remains (store, name, what, after, through, locked_until)
  select n.store, n.name, n.what, n.after, n.through, n.locked_until
  from pg_catalog.jsonb_to_recordset(note_remains.remains) as n (
    store text, name text, what text, after integer, through integer, locked_until timestamptz
  )
  on conflict on constraint remains_pkey do nothing;
$$;
revoke all on function backup.note_remains(jsonb) from public;

-- [{store, name, what, gone, locked_until, why}], as it was looked.
create function backup.settle_remains(looked jsonb) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.remains as m
  set gone_at = case when l.gone then backup.clock_now() end, locked_until = coalesce(l.locked_until, m.locked_until),
    why = case when l.gone then null else pg_catalog.left(l.why, 300) end
  from pg_catalog.jsonb_to_recordset(looked) as l (store text, name text, what text, gone boolean, locked_until timestamptz, why text)
  where m.store = l.store and m.name = l.name and m.what = l.what and m.gone_at is null;
$$;
revoke all on function backup.settle_remains(jsonb) from public;

-- The ledger lists them from now on.
create function backup.list_rewritten(names text[]) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.rewritten as w set listed_at = backup.clock_now() where w.name = any (names);
$$;
revoke all on function backup.list_rewritten(text[]) from public;

-- How far erasures are: `done`: those of which nothing is left to be rewritten. An erasure is clean once what had to go is gone, and what was
-- rewritten is listed. Returns how many became clean.
create function backup.settle_erasures(done uuid[]) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours record;
  cleaned integer := 0;
begin
  update backup.erasures as e set rewritten_at = backup.clock_now()
  where e.id = any (done) and e.rewritten_at is null and e.status in ('searched', 'done');
  if exists (select from backup.rewritten as w where w.listed_at is null) then
    return 0;
  end if;
  for ours in
    update backup.erasures as e set clean_at = backup.clock_now()
    where e.status = 'done' and e.rewritten_at is not null and e.clean_at is null and not exists (
      select from backup.remains as m, pg_catalog.unnest(e.entries) as n (name)
      where m.gone_at is null and pg_catalog.split_part(n.name, '/', 3)::bigint > m.after
        and pg_catalog.split_part(n.name, '/', 3)::bigint <= m.through
    )
    returning e.id
  loop
    cleaned := cleaned + 1;
    perform backup.audit('erasure.clean', 'erasure:' || ours.id, '{}');
    perform backup.resolve_alert('erasure_overdue', 'erasure:' || ours.id);
    perform backup.send_notice(
      'person_forgotten', 'erasure:' || ours.id,
      pg_catalog.format('erasure %s: no backup holds the person any more; `holdfast erase certificate %s` proves it', ours.id, ours.id)
    );
  end loop;
  return cleaned;
end
$$;
revoke all on function backup.settle_erasures(uuid[]) from public;

-- Once. HF415 (run_state) while something is left.
create function backup.certify_erasure(id uuid, certificate jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  update backup.erasures as e set certificate = certify_erasure.certificate
  where e.id = certify_erasure.id and e.clean_at is not null and e.certificate is null;
  if not found then
    raise exception 'erasure % is not clean, or has its certificate', certify_erasure.id using errcode = 'HF415';
  end if;
  perform backup.audit('erasure.certified', 'erasure:' || certify_erasure.id, pg_catalog.jsonb_build_object(
    'signature', certificate #>> '{signature,value}'
  ));
end
$$;
revoke all on function backup.certify_erasure(uuid, jsonb) from public;

-- Each minute: an alert a week before the thirty days are over, and from then on. Returns how many are late.
create function backup.watch_rewriting() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours record;
  late integer := 0;
begin
  for ours in
    select e.id, e.emptied_at + interval '30 days' as due, e.rewritten_at,
      (
        select pg_catalog.string_agg(pg_catalog.format('%s until %s', x.n, x.day), ', ')
        from (
          select m.locked_until::date as day, count(*) as n from backup.remains as m
          where m.gone_at is null and m.locked_until > backup.clock_now() group by 1 order by 1
        ) as x
      ) as locked
    from backup.erasures as e
    where e.emptied_at < backup.clock_now() - interval '23 days' and e.clean_at is null
  loop
    late := late + 1;
    perform backup.raise_alert(
      'erasure_overdue', 'erasure:' || ours.id,
      pg_catalog.format(
        'backups still hold the person of erasure %s, who has to be out of them by %s: %s', ours.id,
        pg_catalog.to_char(ours.due at time zone 'UTC', 'YYYY-MM-DD'),
        case
          when ours.rewritten_at is null then 'run `holdfast erase rewrite`'
          when ours.locked is not null then 'objects that are locked wait: ' || ours.locked
          else 'what nothing names has to be swept: run `holdfast prune`, then `holdfast erase rewrite`'
        end
      ),
      case when ours.due <= backup.clock_now() then 'critical' else 'warning' end
    );
  end loop;
  return late;
end
$$;
revoke all on function backup.watch_rewriting() from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_erasures with (security_invoker = true) as
select e.id, e.person, e.status, e.entries, e.rows, e.files, e.mentions, e.requested_by, e.begun_at, e.emptied_at, e.finished_at,
  e.rewritten_at, e.clean_at, e.certificate
from backup.erasures as e;
comment on view public.backup_erasures is 'Holdfast: people who were erased. Administrators with a second factor only.';
revoke all on table public.backup_erasures from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_erasures from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_erasures on backup.erasures
    for select to authenticated using ((select backup.is_admin()));
  grant select (id, person, status, entries, rows, files, mentions, requested_by, begun_at, emptied_at, finished_at,
    rewritten_at, clean_at, certificate)
    on backup.erasures to authenticated;
  grant select on table public.backup_erasures to authenticated;
end
$$;
