-- Files of people who were erased, as the change stream told of them: those that wait to be listed, and the lists beside segments, which
-- are sealed again under another name without them. docs/decisions/0040-rewriting.md. Lock order: as in 152010, then backup.file_lists →
-- backup.run_files → backup.copies → backup.removals.

-- Before the erasure's end is noted: what is listed from then on holds nobody's file who was erased. What was copied already, and is in no
-- list, has to leave the store like what lists hold.
create function backup.forget_queued_files(erasure uuid, user_id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  with theirs as (
    delete from backup.run_files as f
    where f.run_id = backup.queue_id()
      and forget_queued_files.user_id::text in (f.file ->> 'owner_id', f.file ->> 'owner')
    returning f.object_id
  )
  insert into backup.remains (store, name, what, after, through)
  select distinct e.store, p.object, 'object', n.newest - 1, n.newest
  from backup.erasures as e
  cross join lateral (
    select max(pg_catalog.split_part(x.name, '/', 3)::integer) as newest from pg_catalog.unnest(e.entries) as x (name)
  ) as n
  cross join theirs as t
  join backup.copied_files as c on c.object_id = t.object_id
  join backup.file_parts as p on p.copy = c.id
  where e.id = forget_queued_files.erasure
  on conflict on constraint remains_pkey do nothing;
end
$$;
revoke all on function backup.forget_queued_files(uuid, uuid) from public;

-- The list's row, locked until the caller's transaction ends: `held`, or `gone`: it is on its way out of the stores.
create function backup.hold_list(name text) returns text
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform from backup.file_lists as l where l.name = hold_list.name for update;
  return case when exists (select from backup.removals as m where m.name = hold_list.name) then 'gone' else 'held' end;
end
$$;
revoke all on function backup.hold_list(text) from public;

-- What is left of a list was put and read back: {before, chain_id, lsn, epoch, through, left: [{name, files, stored_bytes, stored_hash}], of
-- which there is one or none}. Retention takes the one before out of the stores.
create function backup.record_rewritten_list(facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  before constant text := facts ->> 'before';
begin
  insert into backup.file_lists as l (name, chain_id, lsn, files, stored_bytes, stored_hash, epoch, rewritten_through, replaces)
  select n.name, facts ->> 'chain_id', (facts ->> 'lsn')::pg_lsn, n.files, n.stored_bytes, n.stored_hash, facts ->> 'epoch',
    (facts ->> 'through')::integer, before
  from pg_catalog.jsonb_to_recordset(facts -> 'left') as n (name text, files integer, stored_bytes bigint, stored_hash text)
  where exists (select from backup.chains as c where c.id = facts ->> 'chain_id')
  on conflict on constraint file_lists_pkey do update
    set rewritten_through = excluded.rewritten_through, replaces = excluded.replaces;
  delete from backup.file_lists as l where l.name = before;
  delete from backup.copies as c where c.name = before and c.status <> 'stored';
  insert into backup.removals as m (name, kind, reason) values (before, 'segment', 'it was rewritten after an erasure')
  on conflict (name) do update
    set reason = excluded.reason, ordered_at = backup.clock_now(), removed_at = null, refusal = null, tried_run = null;
  perform backup.ask_for_copies();
end
$$;
revoke all on function backup.record_rewritten_list(jsonb) from public;

-- A list that was rewritten stays while somebody reads backups, who may have seen it, and until the second store has what stands for it.
create function backup.list_has_to_stay(name text) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
      select from backup.remains as m where m.name = list_has_to_stay.name and m.what = 'object' and m.gone_at is null
    )
    and (
      exists (select from backup.backups_needed())
      or exists (
        select from backup.file_lists as l
        where l.replaces = list_has_to_stay.name and backup.has_second_store() and not backup.is_copied(l.name)
      )
    )
$$;
revoke all on function backup.list_has_to_stay(text) from public;
