-- Copying into the second store: the one worker's lease, what the first store holds, and what of it comes next.
-- Lock order: as in 0690.

-- The task of kind `replicate` and the stores, once the lease was renewed. HF413 for an old token, HF415 for another kind
-- of task and where the pair of stores is not the one that the worker has.
create function backup.copying(task bigint, token bigint, second text) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
begin
  if ours.kind <> 'replicate' then
    raise exception 'task % copies nothing', copying.task using errcode = 'HF415';
  end if;
  if not exists (select from backup.second_store as s where s.label = copying.second) then
    raise exception 'the second store is another one now' using errcode = 'HF415';
  end if;
  update backup.tasks as t set lease_until = moment + interval '180 seconds' where t.id = ours.id;
  update backup.runs as r set heartbeat_at = moment, status = 'copying' where r.id = ours.run_id;
  return ours.run_id;
end
$$;
revoke all on function backup.copying(bigint, bigint, text) from public;

-- Begins to look at the first store, where this run has not yet, or somebody asked since. What the database knows is entered
-- here; `listing`: the store is to be listed as well, since the last listing is older than ten minutes.
create function backup.begin_survey(
  task bigint, token bigint, second text, out due boolean, out began timestamptz, out asked bigint, out listing boolean
)
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
  state backup.second_store;
begin
  select s.* into state from backup.second_store as s for update;
  began := backup.clock_now();
  asked := state.asked;
  due := state.surveyed_run is distinct from run or state.asked <> state.surveyed_asked;
  listing := state.listed_at is null or state.listed_at not between began - interval '10 minutes' and began;
  if not due then
    return;
  end if;
  insert into backup.copies (store, name, kind, status, first_bytes, first_hash, noticed_at)
  select begin_survey.second, g.name, 'segment', 'missing', g.stored_bytes, g.stored_hash, g.recorded_at
  from backup.segments as g
  where not exists (select from backup.copies as c where c.store = begin_survey.second and c.name = g.name)
    -- behind a gap of its chain: one before it is gone, which was told
    and not exists (select from backup.gaps as x where x.chain_id = g.chain_id and x.from_lsn < g.end_lsn)
  on conflict do nothing;
  insert into backup.copies (store, name, kind, status, noticed_at)
  select begin_survey.second, a.object_name, 'anchor', 'missing', a.anchored_at
  from backup.audit_anchors as a
  where a.store = state.first_label
    and not exists (select from backup.copies as c where c.store = begin_survey.second and c.name = a.object_name)
  on conflict do nothing;
  insert into backup.copies (store, name, kind, status, first_hash, noticed_at)
  select begin_survey.second, r.manifest_name, 'manifest', 'unopened', r.manifest_hash, r.finished_at
  from backup.runs as r
  -- one of the CLI may be in another store: the listing finds it
  where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.complete_at is null and r.origin <> 'cli'
  on conflict do nothing;
  -- what they list comes before them, as with manifests
  insert into backup.copies (store, name, kind, status, first_hash, noticed_at)
  select begin_survey.second, l.name, 'manifest', 'unopened', l.stored_hash, l.recorded_at
  from backup.file_lists as l
  where not exists (select from backup.copies as c where c.store = begin_survey.second and c.name = l.name)
    and not exists (select from backup.gaps as x where x.chain_id = l.chain_id and x.from_lsn < l.lsn)
  on conflict do nothing;
end
$$;
revoke all on function backup.begin_survey(bigint, bigint, text) from public;

-- Names of the first store: [{name, kind, bytes, hash}], `hash` only where the content was read. A key file that was rewritten
-- since it was copied is missing again.
create function backup.enter_copies(task bigint, token bigint, second text, names jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.copying(task, token, second);
  insert into backup.copies as c (store, name, kind, status, first_bytes, first_hash, noticed_at)
  select enter_copies.second, n.name, n.kind, case n.kind when 'manifest' then 'unopened' else 'missing' end, n.bytes,
    coalesce(n.hash, g.stored_hash, r.manifest_hash), coalesce(g.recorded_at, r.finished_at, backup.clock_now())
  from pg_catalog.jsonb_to_recordset(enter_copies.names) as n (name text, kind text, bytes bigint, hash text)
  left join backup.segments as g on n.kind = 'segment' and g.name = n.name
  left join backup.runs as r on n.kind = 'manifest' and r.kind = 'full' and r.manifest_name = n.name
  -- a list of files that was rewritten, on its way out of the stores
  where not exists (select from backup.removals as m where m.name = n.name and m.removed_at is null)
  on conflict (store, name) do update
    set status = 'missing', first_hash = excluded.first_hash, noticed_at = backup.clock_now()
    where c.kind = 'key' and excluded.first_hash is not null and c.first_hash is distinct from excluded.first_hash;
end
$$;
revoke all on function backup.enter_copies(bigint, bigint, text, jsonb) from public;

-- The first store was looked at as of `began` and for what was `asked` until then. `listed`: every name under these prefixes, complete; null where nothing was listed.
-- What is gone from there, and was never copied, is missing no more, unless the database knows that it was written: that is lost, and
-- fails by its name.
create function backup.end_survey(
  task bigint, token bigint, second text, began timestamptz, asked bigint, prefixes text[], listed text[]
) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
begin
  if listed is not null then
    delete from backup.copies as c
    where c.store = end_survey.second and c.status <> 'stored' and c.noticed_at < end_survey.began
      and exists (select from pg_catalog.unnest(prefixes) as p (prefix) where pg_catalog.starts_with(c.name, p.prefix))
      and not exists (select from pg_catalog.unnest(listed) as l (name) where l.name = c.name)
      and not exists (
        select from backup.segments as g
        where g.name = c.name
          and not exists (select from backup.gaps as x where x.chain_id = g.chain_id and x.from_lsn < g.end_lsn)
      )
      and not exists (
        select from backup.audit_anchors as a join backup.second_store as s on s.first_label = a.store
        where a.object_name = c.name
      )
      and not exists (
        select from backup.runs as r
        where r.kind = 'full' and r.manifest_name = c.name and r.status in ('succeeded', 'quarantined') and r.origin <> 'cli'
      );
    delete from backup.copies as c
    where c.store = end_survey.second and c.status = 'missing' and c.kind = 'object'
      and not exists (select from backup.copy_needs as n where n.store = c.store and n.name = c.name);
  end if;
  update backup.second_store as s
  set surveyed_asked = end_survey.asked, surveyed_run = run,
    listed_at = case when listed is null then s.listed_at else end_survey.began end;
end
$$;
revoke all on function backup.end_survey(bigint, bigint, text, timestamptz, bigint, text[], text[]) from public;

-- What comes next, at most so many: the repository, keys, the erasure ledger, segments in the order of their chains, anchors; then of the newest
-- manifest what it waits for, and itself. What failed in this run is left out, and so is what stands behind it: the segments
-- after it in its chain, the manifest that needs it. `status` unopened: enter_needs comes first; stored: its lock is to be renewed.
create function backup.next_copies(task bigint, token bigint, second text, at_most integer)
returns table (name text, kind text, status text, first_bytes bigint, first_hash text, intended text[])
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  run uuid := backup.copying(task, token, second);
  manifest backup.copies;
begin
  return query
    select c.name, c.kind, c.status, c.first_bytes, c.first_hash,
      array(select i.hash from backup.copy_intents as i where i.store = c.store and i.name = c.name)
    from backup.copies as c
    where c.store = next_copies.second and c.status = 'missing' and c.kind in ('repository', 'key', 'erasure', 'segment', 'anchor')
      and c.failed_run is distinct from run
      and not (
        c.kind = 'segment' and exists (
          select from backup.copies as before
          where before.store = c.store and before.kind = 'segment' and before.failed_run = run and before.name < c.name
            and pg_catalog.split_part(before.name, '/', 3) = pg_catalog.split_part(c.name, '/', 3)
        )
      )
    order by pg_catalog.array_position(array['repository', 'key', 'erasure', 'segment', 'anchor'], c.kind), c.name
    limit at_most;
  if found then
    return;
  end if;
  select c.* into manifest
  from backup.copies as c
  where c.store = next_copies.second and c.kind = 'manifest' and c.status <> 'stored' and c.failed_run is distinct from run
    and not exists (
      select from backup.copy_needs as n
      join backup.copies as o on o.store = n.store and o.name = n.name
      where n.store = c.store and n.manifest = c.name and o.failed_run = run
    )
  order by c.name desc
  limit 1;
  if manifest.name is null then
    return;
  end if;
  if manifest.status = 'missing' then
    return query
      select c.name, c.kind, c.status, c.first_bytes, c.first_hash,
        array(select i.hash from backup.copy_intents as i where i.store = c.store and i.name = c.name)
      from backup.copy_needs as n
      join backup.copies as c on c.store = n.store and c.name = n.name
      where n.store = manifest.store and n.manifest = manifest.name and (c.status <> 'stored' or n.to_hold)
      order by c.name
      limit at_most;
    if found then
      return;
    end if;
  end if;
  return query
    select manifest.name, manifest.kind, manifest.status, manifest.first_bytes, manifest.first_hash,
      array(select i.hash from backup.copy_intents as i where i.store = manifest.store and i.name = manifest.name);
end
$$;
revoke all on function backup.next_copies(bigint, bigint, text, integer) from public;

-- Objects that a manifest names, and the key file of its epoch: [{name, bytes, hash}]. With `complete` these were the last of them.
-- `renew_after`: how old a lock there has to be to be renewed; null where the second store locks nothing. Keys are never locked.
create function backup.enter_needs(
  task bigint, token bigint, second text, manifest text, objects jsonb, complete boolean, renew_after interval
) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.copying(task, token, second);
  insert into backup.copies as c (store, name, kind, status, first_bytes, first_hash)
  select enter_needs.second, o.name, case when pg_catalog.starts_with(o.name, 'v1/keys/') then 'key' else 'object' end, 'missing',
    o.bytes, o.hash
  from pg_catalog.jsonb_to_recordset(enter_needs.objects) as o (name text, bytes bigint, hash text)
  on conflict (store, name) do update
    -- put again after its sweep, with another seal
    set status = 'missing', first_bytes = excluded.first_bytes, first_hash = excluded.first_hash,
      noticed_at = backup.clock_now()
    where excluded.first_hash is not null and c.first_hash is distinct from excluded.first_hash;
  insert into backup.copy_needs (store, manifest, name, to_hold)
  select c.store, enter_needs.manifest, c.name, c.status = 'stored'
  from pg_catalog.jsonb_to_recordset(enter_needs.objects) as o (name text)
  join backup.copies as c on c.store = enter_needs.second and c.name = o.name
  where c.status <> 'stored'
    or (c.kind = 'object' and coalesce(c.held_at, '-infinity') <= backup.clock_now() - enter_needs.renew_after)
  on conflict do nothing;
  if complete then
    update backup.copies as c set status = 'missing'
    where c.store = enter_needs.second and c.name = enter_needs.manifest and c.status = 'unopened';
  end if;
end
$$;
revoke all on function backup.enter_needs(bigint, bigint, text, text, jsonb, boolean, interval) from public;
