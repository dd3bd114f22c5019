-- Copying into the second store: what the one worker calls under its lease, the daily comparison, the end, and the lag.
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

-- The lock of an object that stands in the second store was renewed; with `there` false it does not stand there any more.
create function backup.record_hold(task bigint, token bigint, second text, name text, there boolean) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
begin
  perform backup.copying(task, token, second);
  update backup.copies as c
  set held_at = case when record_hold.there then moment end, status = case when record_hold.there then c.status else 'missing' end,
    noticed_at = case when record_hold.there then c.noticed_at else moment end
  where c.store = record_hold.second and c.name = record_hold.name and c.status = 'stored';
  update backup.copy_needs as n set to_hold = false
  where n.store = record_hold.second and n.name = record_hold.name and n.to_hold;
end
$$;
revoke all on function backup.record_hold(bigint, bigint, text, text, boolean) from public;

-- Bytes that may still be sent today; where there is no limit more than anybody sends.
create function backup.egress_left() returns bigint
language sql
stable
set search_path = ''
as $$
  select case backup.setting_integer('egress_mb_per_day')
    when 0 then 9223372036854775807
    else backup.setting_integer('egress_mb_per_day') * 1048576 - coalesce((
      select e.bytes from backup.copy_egress as e join backup.second_store as s on s.label = e.store
      where e.day = (backup.clock_now() at time zone 'UTC')::date
    ), 0)
  end
$$;
revoke all on function backup.egress_left() from public;

-- Before a ciphertext is sent: it is noted, and its bytes are taken from the day's egress. False where they are more than what
-- is left: nothing may be sent. What was noted counts as sent, whatever becomes of it.
create function backup.intend_copy(task bigint, token bigint, second text, name text, hash text, bytes bigint)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.copying(task, token, second);
  if intend_copy.bytes > backup.egress_left() then
    return false;
  end if;
  insert into backup.copy_egress as e (store, day, bytes)
  values (intend_copy.second, (backup.clock_now() at time zone 'UTC')::date, intend_copy.bytes)
  on conflict (store, day) do update set bytes = e.bytes + excluded.bytes;
  insert into backup.copy_intents (store, name, hash, bytes)
  values (intend_copy.second, intend_copy.name, intend_copy.hash, intend_copy.bytes)
  on conflict do nothing;
  return true;
end
$$;
revoke all on function backup.intend_copy(bigint, bigint, text, text, text, bigint) from public;

-- It stands in the second store and was read back. `copied`: {name, first_bytes, first_hash, second_bytes, second_hash}. A manifest
-- makes its backup complete; HF415 (run_state) while one of its objects is missing there.
create function backup.record_copy(task bigint, token bigint, second text, copied jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
  moment timestamptz := backup.clock_now();
  ours backup.copies;
  completed uuid;
begin
  select c.* into ours from backup.copies as c
  where c.store = record_copy.second and c.name = copied ->> 'name' and c.status <> 'stored'
  for update;
  if ours.name is null then
    raise exception '% is not to be copied', copied ->> 'name' using errcode = 'HF415';
  end if;
  if ours.kind = 'manifest' and (
    ours.status = 'unopened' or exists (
      select from backup.copy_needs as n
      left join backup.copies as c on c.store = n.store and c.name = n.name
      where n.store = ours.store and n.manifest = ours.name and (c.status is distinct from 'stored' or n.to_hold)
    )
  ) then
    raise exception 'objects of % are not in the second store, or not held there', ours.name using errcode = 'HF415';
  end if;
  update backup.copies as c
  set status = 'stored', copied_at = moment, held_at = moment, run_id = run, failed_run = null, failure = null,
    first_bytes = (copied ->> 'first_bytes')::bigint, first_hash = copied ->> 'first_hash',
    second_bytes = (copied ->> 'second_bytes')::bigint, second_hash = copied ->> 'second_hash'
  where c.store = ours.store and c.name = ours.name;
  delete from backup.copy_intents as i where i.store = ours.store and i.name = ours.name;
  update backup.copy_needs as n set to_hold = false
  where n.store = ours.store and n.name = ours.name and n.to_hold;
  update backup.runs as r
  set raw_bytes = r.raw_bytes + (copied ->> 'first_bytes')::bigint,
    stored_bytes = r.stored_bytes + (copied ->> 'second_bytes')::bigint, rows = r.rows + 1
  where r.id = run;
  if ours.kind = 'anchor' then
    insert into backup.audit_anchors (object_name, store, place, hash, life)
    select a.object_name, ours.store, a.place, a.hash, a.life
    from backup.audit_anchors as a where a.object_name = ours.name
    limit 1
    on conflict do nothing;
  elsif ours.kind = 'manifest' then
    delete from backup.copy_needs as n where n.store = ours.store and n.manifest = ours.name;
    update backup.runs as r set complete_at = moment
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.manifest_name = ours.name
      and r.complete_at is null
    returning r.id into completed;
    if completed is not null then
      perform backup.audit(
        'backup.completed', 'run:' || completed, pg_catalog.jsonb_build_object('store', ours.store)
      );
    end if;
  end if;
end
$$;
revoke all on function backup.record_copy(bigint, bigint, text, jsonb) from public;

-- It cannot be copied, for a reason that is its own: {code, message, hint}. The run goes on with others and ends as failed.
create function backup.fail_copy(task bigint, token bigint, second text, name text, failure jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
begin
  update backup.copies as c set failed_run = run, failure = fail_copy.failure
  where c.store = fail_copy.second and c.name = fail_copy.name and c.status <> 'stored';
end
$$;
revoke all on function backup.fail_copy(bigint, bigint, text, text, jsonb) from public;

-- Looking ------------------------------------------------------------------------------------------------------------

-- Where the second store is to be listed next, to compare it with what is recorded; null: it was, within the last day.
create function backup.next_look(task bigint, token bigint, second text, first_prefix text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  state backup.second_store;
begin
  perform backup.copying(task, token, second);
  select s.* into state from backup.second_store as s;
  if state.look_from is not null then
    return state.look_from;
  end if;
  return case
    when state.looked_at is null or state.looked_at not between backup.clock_now() - interval '1 day' and backup.clock_now()
      then first_prefix
  end;
end
$$;
revoke all on function backup.next_look(bigint, bigint, text, text) from public;

-- What stood in the second store is not there any more, or is another object: it is missing again, and every manifest is opened again,
-- since which of them named it is not kept. What was put there stays known by its hash, so that it is known as ours when it is
-- copied anew. Returns how many were lost.
create function backup.lose_copies(second text, names text[]) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  lost integer;
begin
  insert into backup.copy_intents (store, name, hash, bytes)
  select c.store, c.name, c.second_hash, c.second_bytes
  from backup.copies as c where c.store = lose_copies.second and c.name = any (names) and c.status = 'stored'
  on conflict do nothing;
  update backup.copies as c
  set status = 'missing', noticed_at = backup.clock_now()
  where c.store = lose_copies.second and c.name = any (names) and c.status = 'stored';
  get diagnostics lost = row_count;
  if lost > 0 then
    update backup.copies as c set status = 'unopened', noticed_at = backup.clock_now()
    where c.store = lose_copies.second and c.kind = 'manifest' and c.status in ('stored', 'missing');
    update backup.runs as r set complete_at = null
    where r.kind = 'full' and r.complete_at is not null
      and exists (
        select from backup.copies as c
        where c.store = lose_copies.second and c.name = r.manifest_name and c.status <> 'stored'
      );
    update backup.runs as r set complete_at = null
    where r.kind = 'incremental' and r.complete_at is not null
      and not backup.segments_are_copied(r.id, lose_copies.second);
    perform backup.raise_alert(
      'copies_lost', 'store:second',
      pg_catalog.format('%s objects that were copied to %s are not there any more, or are other ones', lost, second)
    );
  end if;
  return lost;
end
$$;
revoke all on function backup.lose_copies(text, text[]) from public;

-- What the second store holds under a prefix, complete: [{name, bytes, hash}], `hash` only where the content was read, and the
-- prefix that comes next, null after the last. What is recorded and not there, or of another size or content, is missing again,
-- and every manifest is opened again, since which of them named it is not kept. Returns how many are missing again.
create function backup.record_look(
  task bigint, token bigint, second text, prefix text, listed jsonb, next_prefix text
) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  lost integer;
begin
  perform backup.copying(task, token, second);
  lost := backup.lose_copies(second, array(
    select c.name from backup.copies as c
    left join pg_catalog.jsonb_to_recordset(record_look.listed) as t (name text, bytes bigint, hash text) on t.name = c.name
    where c.store = record_look.second and c.status = 'stored' and pg_catalog.starts_with(c.name, record_look.prefix)
      and (c.second_bytes is distinct from t.bytes or c.second_hash is distinct from coalesce(t.hash, c.second_hash))
  ));
  update backup.second_store as s
  set look_from = next_prefix, looked_at = case when next_prefix is null then backup.clock_now() else s.looked_at end;
  return lost;
end
$$;
revoke all on function backup.record_look(bigint, bigint, text, text, jsonb, text) from public;

-- The end ------------------------------------------------------------------------------------------------------------

-- Nothing more can be copied now. `again`: something is new since this run looked; `failed`: some could not be copied;
-- else `succeeded`. `needed`: bytes of what the day's egress has no room for, null where there was room for all.
create function backup.end_copies(task bigint, token bigint, second text, needed bigint) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
  moment timestamptz := backup.clock_now();
  state backup.second_store;
  failed record;
begin
  select s.* into state from backup.second_store as s for update;
  if needed is null and (state.surveyed_run is distinct from run or state.asked <> state.surveyed_asked) then
    return 'again';
  end if;
  perform backup.complete_incrementals();
  select count(*) as copies, (pg_catalog.array_agg(c.failure order by c.name))[1] as first into failed
  from backup.copies as c where c.store = end_copies.second and c.failed_run = run and c.status <> 'stored';
  if failed.copies > 0 then
    perform backup.return_task(task, token, failed.first || pg_catalog.jsonb_build_object(
      'retry', 'never',
      'message', pg_catalog.format('%s objects could not be copied, the first: %s', failed.copies, failed.first ->> 'message')
    ));
    return 'failed';
  end if;
  perform backup.complete_task(task, token, '{}');
  update backup.runs as r
  set status = 'succeeded', finished_at = greatest(moment, r.started_at), complete_at = moment,
    warnings = case when needed is null then '[]'::jsonb else pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
      'code', 'egress_spent',
      'message', pg_catalog.format(
        'the egress of the day is spent (%s MB); the next object has %s bytes',
        backup.setting_integer('egress_mb_per_day'), needed
      )
    )) end
  where r.id = run;
  update backup.second_store as s set caught_up_at = moment where needed is null;
  perform backup.resolve_alert('copies_failed', 'kind:replicate');
  if needed is null then
    perform backup.resolve_alert('copies_late', 'store:second');
    perform backup.resolve_alert('copies_lost', 'store:second');
  end if;
  return 'succeeded';
end
$$;
revoke all on function backup.end_copies(bigint, bigint, text, bigint) from public;

-- What the second store lacks, as far as is known: one row, or none where there is no second store.
create function backup.copy_lag(
  out store text, out first_store text, out objects bigint, out bytes bigint, out oldest_at timestamptz,
  out caught_up_at timestamptz
) returns setof record
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select s.label, s.first_label, l.objects, l.bytes, l.oldest, s.caught_up_at
    from backup.second_store as s
    cross join lateral (
      select count(*) as objects, coalesce(pg_catalog.sum(x.bytes), 0)::bigint as bytes, min(x.since) as oldest
      from (
        select c.first_bytes as bytes, c.noticed_at as since
        from backup.copies as c where c.store = s.label and c.status <> 'stored'
        union all
        select g.stored_bytes, g.recorded_at
        from backup.segments as g
        where not exists (select from backup.copies as c where c.store = s.label and c.name = g.name)
          and not exists (select from backup.gaps as x where x.chain_id = g.chain_id and x.from_lsn < g.end_lsn)
        union all
        select null, a.anchored_at
        from backup.audit_anchors as a
        where a.store = s.first_label
          and not exists (select from backup.copies as c where c.store = s.label and c.name = a.object_name)
        union all
        select null, r.finished_at
        from backup.runs as r
        where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.complete_at is null and r.origin <> 'cli'
          and not exists (select from backup.copies as c where c.store = s.label and c.name = r.manifest_name)
      ) as x
    ) as l
    where s.label is not null;
end
$$;
revoke all on function backup.copy_lag() from public;

-- The watchdog's step: an alert where what the second store lacks became too old. Returns how many are raised.
create function backup.watch_copies() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  lag record;
begin
  select l.* into lag from backup.copy_lag() as l;
  if lag.store is null or lag.oldest_at is null
    or lag.oldest_at > backup.clock_now() - backup.setting_integer('copies_late_hours') * interval '1 hour'
  then
    perform backup.resolve_alert('copies_late', 'store:second');
    return 0;
  end if;
  perform backup.raise_alert(
    'copies_late', 'store:second',
    pg_catalog.format(
      '%s lacks %s objects (%s bytes), the oldest since %s UTC%s', lag.store, lag.objects, lag.bytes,
      pg_catalog.to_char(lag.oldest_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
      case when backup.egress_left() <= 0 then '; the egress of the day is spent' else '' end
    )
  );
  return 1;
end
$$;
revoke all on function backup.watch_copies() from public;
