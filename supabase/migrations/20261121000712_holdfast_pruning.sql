-- What the one that prunes calls under its lease: removals are ordered, made, recorded, and end. Lock order: as in 0710.

-- Whoever wants to read a backup says so in a row first; HF303 (backup_not_found) where it was removed right before.
create function backup.refuse_pruned(backup uuid) returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if exists (select from backup.runs as r where r.id = refuse_pruned.backup and r.status = 'pruned') then
    raise exception 'backup % was removed by retention', refuse_pruned.backup using errcode = 'HF303';
  end if;
end
$$;
revoke all on function backup.refuse_pruned(uuid) from public;

-- The lease of the one that prunes, renewed; `detail`: how far it is. HF413 for an old token, HF415 in a copy.
create function backup.pruning(task bigint, token bigint, detail jsonb default null) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  moment timestamptz := backup.clock_now();
begin
  if ours.kind <> 'prune' then
    raise exception 'task % prunes nothing', pruning.task using errcode = 'HF415';
  end if;
  if not backup.is_original() then
    raise exception 'this database is a copy, or may be one: it removes nothing' using errcode = 'HF415';
  end if;
  update backup.tasks as t
  set lease_until = moment + interval '180 seconds', detail = coalesce(pruning.detail, t.detail)
  where t.id = ours.id;
  update backup.runs as r set heartbeat_at = moment, status = 'copying' where r.id = ours.run_id;
  return ours.run_id;
end
$$;
revoke all on function backup.pruning(bigint, bigint, jsonb) from public;

-- Takes backups and segments out of the catalogue and orders that the stores let them go: `plan`: [{object, backup, reason}].
-- `stale`: something has changed since the plan was made, which `guard` tells; nothing was ordered. HF415 for what must never go,
-- whatever a plan says.
create function backup.order_removals(task bigint, token bigint, guard text, plan jsonb) returns text
language plpgsql
volatile
set search_path = ''
set lock_timeout = '3s'
as $$
declare
  run uuid := backup.pruning(task, token);
  moment timestamptz := backup.clock_now();
  ids constant uuid[] := array(
    select p.backup from pg_catalog.jsonb_to_recordset(order_removals.plan) as p (backup uuid) where p.backup is not null
  );
  names constant text[] := array(
    select p.object from pg_catalog.jsonb_to_recordset(order_removals.plan) as p (object text)
  );
  never text;
  emptied uuid[];
begin
  -- a hold, a verification or an acceptance is before this or sees what came of it
  perform from backup.runs as r
  where r.kind = 'full' and r.status in ('succeeded', 'quarantined') order by r.id for update;
  -- and so is a restore or a download that begins now
  lock table backup.restores, backup.downloads in share mode;
  if backup.retention_guard() <> order_removals.guard then
    return 'stale';
  end if;
  select pg_catalog.format('backup %s is on hold, in use, or the newest', r.id) into never
  from backup.runs as r
  where r.id = any (ids) and r.status in ('succeeded', 'quarantined')
    and (
      r.hold_until > moment
      or exists (select from backup.backups_needed() as n where n.backup = r.id)
      or r.id in (
        (select x.id from backup.runs as x where x.kind = 'full' and x.status = 'succeeded' order by x.consistent_at desc limit 1),
        (
          select x.id from backup.runs as x where x.kind = 'full' and x.status = 'succeeded' and x.verified_at is not null
          order by x.consistent_at desc limit 1
        )
      )
    )
  limit 1;
  if never is null then
    select pg_catalog.format('segment %s is in the middle of its chain, or its end', s.name) into never
    from backup.segments as s
    join backup.chains as c on c.id = s.chain_id
    where s.name = any (names)
      and (
        exists (
          select from backup.segments as o
          where o.chain_id = s.chain_id and (o.end_lsn, o.part) < (s.end_lsn, s.part) and o.name <> all (names)
        )
        or (
          c.ended_at is null and not exists (
            select from backup.segments as o where o.chain_id = s.chain_id and (o.end_lsn, o.part) > (s.end_lsn, s.part)
          )
        )
      )
    limit 1;
  end if;
  if never is null then
    select pg_catalog.format('list %s is of moments that are kept', l.name) into never
    from backup.file_lists as l
    where l.name = any (names) and exists (
      select from backup.segments as s where s.chain_id = l.chain_id and s.start_lsn <= l.lsn and s.name <> all (names)
    )
    limit 1;
  end if;
  if never is not null then
    raise exception '%', never using errcode = 'HF415';
  end if;
  update backup.runs as r set status = 'pruned'
  where r.id = any (ids) and r.kind = 'full' and r.status in ('succeeded', 'quarantined');
  delete from backup.tasks as t where t.run_id = any (ids);
  delete from backup.chunks as c where c.run_id = any (ids);
  delete from backup.run_tables as t where t.run_id = any (ids);
  with gone as (delete from backup.segments as s where s.name = any (names) returning s.run_id)
  select pg_catalog.array_agg(distinct g.run_id) into emptied from gone as g;
  update backup.runs as r set status = 'pruned'
  where r.id = any (emptied) and r.kind = 'incremental' and r.status = 'succeeded'
    and not exists (select from backup.segments as s where s.run_id = r.id);
  delete from backup.file_lists as l where l.name = any (names);
  delete from backup.copies as c where c.name = any (names);
  delete from backup.objects as o where o.name = any (names);
  insert into backup.removals as m (name, kind, backup, reason, run_id)
  select p.object, case when p.backup is null then 'segment' else 'manifest' end, p.backup, p.reason, run
  from pg_catalog.jsonb_to_recordset(order_removals.plan) as p (object text, backup uuid, reason text)
  on conflict (name) do update
    set reason = excluded.reason, run_id = excluded.run_id, ordered_at = backup.clock_now(), removed_at = null, refusal = null,
      tried_run = null;
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a join pg_catalog.unnest(ids) as b (id) on a.subject = 'run:' || b.id
  where a.status <> 'resolved';
  perform backup.audit('backup.pruned', 'run:' || p.backup, pg_catalog.jsonb_build_object('reason', p.reason, 'by', run))
  from pg_catalog.jsonb_to_recordset(order_removals.plan) as p (backup uuid, reason text) where p.backup is not null;
  if emptied is not null then
    perform backup.audit('segments.pruned', 'run:' || run, pg_catalog.jsonb_build_object(
      'segments', (select count(*) from pg_catalog.unnest(names) as n (name) where n.name ~ '^v1/changes/[^/]+/[0-9a-f]{16}-'),
      'last', (select max(n.name) from pg_catalog.unnest(names) as n (name) where n.name ~ '^v1/changes/[^/]+/[0-9a-f]{16}-')
    ));
  end if;
  return 'ordered';
end
$$;
revoke all on function backup.order_removals(bigint, bigint, text, jsonb) from public;

-- What has to leave the stores next: manifests before segments, oldest first; each is tried once in a run. Lists of files that were
-- rewritten may have to wait.
create function backup.next_removals(task bigint, token bigint, at_most integer) returns table (name text)
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.pruning(task, token);
begin
  return query
    select m.name from backup.removals as m
    where m.removed_at is null and m.tried_run is distinct from run and not (m.kind = 'segment' and backup.list_has_to_stay(m.name))
    order by m.kind, m.name
    limit at_most;
end
$$;
revoke all on function backup.next_removals(bigint, bigint, integer) from public;

-- `gone`: it was looked that no store has them any more. `kept`: [{name, why}], tried again by the next run.
create function backup.record_removals(task bigint, token bigint, gone text[], kept jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.pruning(task, token);
begin
  update backup.removals as m set removed_at = backup.clock_now(), refusal = null, tried_run = run where m.name = any (gone);
  -- one that was rewritten was still there to be copied meanwhile
  delete from backup.copies as c where c.name = any (gone);
  update backup.removals as m set refusal = pg_catalog.left(k.why, 500), tried_run = run
  from pg_catalog.jsonb_to_recordset(kept) as k (name text, why text) where m.name = k.name;
  update backup.runs as r set rows = r.rows + pg_catalog.cardinality(gone) where r.id = run;
end
$$;
revoke all on function backup.record_removals(bigint, bigint, text[], jsonb) from public;

-- The end. `result`: {refused, removed, swept, kept[{name, why}]}; refused: why nothing was removed. Says so in the run and the audit.
create function backup.end_pruning(task bigint, token bigint, result jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.pruning(task, token);
  moment timestamptz := backup.clock_now();
  stayed bigint := (select count(*) from backup.removals as m where m.removed_at is null)
    + (select count(*) from backup.condemned as c where c.refusal is not null);
begin
  perform backup.complete_task(task, token, result);
  update backup.runs as r
  set status = 'succeeded', finished_at = greatest(moment, r.started_at), complete_at = moment,
    warnings = case
      when result ->> 'refused' is not null then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
        'code', 'nothing_removed', 'message', 'nothing was removed: ' || (result ->> 'refused')
      ))
      when stayed > 0 then pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
        'code', 'removal_refused', 'message', pg_catalog.format('%s objects cannot be removed yet; they are tried again', stayed)
      ))
      else '[]'::jsonb
    end
  where r.id = run;
  delete from backup.removals as m where m.removed_at < moment - interval '30 days';
  perform backup.resolve_alert('prune_failed', 'kind:prune');
  perform backup.audit('retention.ended', 'run:' || run, result || pg_catalog.jsonb_build_object('stayed', stayed));
end
$$;
revoke all on function backup.end_pruning(bigint, bigint, jsonb) from public;
