-- Retention: how long backups are kept, what the planner has to know, and the catalogue's part of removing one. What is decided is
-- src/shared/retention's; every removal is checked here once more. docs/decisions/0030-retention.md says why it is so.
-- Lock order: backup.runs → backup.tasks → backup.restores → backup.downloads → backup.segments → backup.copies → backup.removals.

alter table backup.runs add constraint prune_has_no_tier check (kind <> 'prune' or cardinality(tiers) = 0);
alter table backup.runs add constraint only_what_is_kept_is_pruned check (
  status <> 'pruned' or kind in ('full', 'incremental')
);
create unique index runs_one_active_prune on backup.runs (kind)
  where kind = 'prune' and status in ('queued', 'snapshotting', 'copying', 'finishing');

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('keep_at_least', 'integer', '3', 1, 100, 'so many of the newest backups stay, however old they are'),
  ('prune_newest_hours', 'integer', '48', 2, 2400, 'with a newest backup older than this nothing is removed'),
  ('sweep_grace_hours', 'integer', '48', 24, 720,
    'how long an object that nothing needs stays before it is removed: longer than the longest run');

-- What was ordered to go, and what went. A row outlives its object by 30 days: what is listed again was put there late.
create table backup.removals (
  name text primary key,
  kind text not null,
  backup uuid,
  reason text not null,
  run_id uuid references backup.runs (id) on delete set null,
  ordered_at timestamptz not null default backup.clock_now(),
  removed_at timestamptz,
  -- why a store kept it, and the run in which it was tried last
  refusal text,
  tried_run uuid,
  constraint kind_is_known check (kind in ('manifest', 'segment')),
  constraint manifest_says_of_which_backup check ((kind = 'manifest') = (backup is not null)),
  constraint removed_one_is_not_refused check (removed_at is null or refusal is null)
);
comment on table backup.removals is 'What retention takes out of the stores, with its reason.';
create index removals_to_make on backup.removals (kind, name) where removed_at is null;
create index removals_by_run on backup.removals (run_id);
alter table backup.removals enable row level security;
revoke all on table backup.removals from public;

-- Policies -----------------------------------------------------------------------------------------------------------

-- Looked at when the transaction ends, so that several rows can be changed together. HF421 (policy_refused).
create function backup.check_policies() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  wrong text;
begin
  with kept as (select p.tier, p.keep from backup.policies as p)
  select x.why into wrong
  from (
    select 1, pg_catalog.format('%s backups would be gone before the next ones are there: at least %s', k.tier, f.least)
    from kept as k
    join (values
      ('daily', interval '2 days'), ('weekly', interval '14 days'), ('manual', interval '1 day'), ('safety', interval '1 day'),
      ('monthly', interval '62 days'), ('yearly', interval '732 days')
    ) as f (tier, least) on f.tier = k.tier
    where k.keep < f.least
    union all
    select 2, pg_catalog.format('%s backups (%s) would outlive the rarer %s ones (%s)', a.tier, a.keep, b.tier, b.keep)
    from kept as a
    join (values ('hourly', 'daily'), ('daily', 'weekly'), ('weekly', 'monthly'), ('monthly', 'yearly')) as o (often, rare)
      on o.often = a.tier
    join kept as b on b.tier = o.rare
    where a.keep > b.keep
    union all
    select 3, pg_catalog.format('the tier %s has no policy', t.tier)
    from pg_catalog.unnest(array['hourly', 'daily', 'weekly', 'manual', 'safety']) as t (tier)
    where not exists (select from kept as k where k.tier = t.tier)
    order by 1
    limit 1
  ) as x (place, why);
  if wrong is not null then
    raise exception '%', wrong using errcode = 'HF421';
  end if;
  return null;
end
$$;
revoke all on function backup.check_policies() from public;

create constraint trigger policies_agree after insert or update or delete on backup.policies
  deferrable initially deferred for each row execute function backup.check_policies();

-- Sets all tiers at once: `standard` (hourly 24 h, daily 30 d, weekly 90 d), `short` (24 h, 7 d, 30 d), `gfs` (grandfather, father,
-- son: 24 h, 7 d, 35 d, the first of each month 366 d). HF003 for another name.
create function backup.set_retention(preset text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  wanted constant jsonb := (case preset
    when 'standard' then '{"hourly": "24 hours", "daily": "30 days", "weekly": "90 days", "manual": "90 days", "safety": "30 days"}'
    when 'short' then '{"hourly": "24 hours", "daily": "7 days", "weekly": "30 days", "manual": "30 days", "safety": "7 days"}'
    when 'gfs' then
      '{"hourly": "24 hours", "daily": "7 days", "weekly": "35 days", "manual": "90 days", "safety": "30 days", "monthly": "366 days"}'
  end)::jsonb;
begin
  if wanted is null then
    raise exception 'a preset is standard, short or gfs' using errcode = 'HF003';
  end if;
  delete from backup.policies as p where not wanted ? p.tier;
  insert into backup.policies as p (tier, keep, note)
  select w.key, w.value::interval, case w.key when 'monthly' then 'the first backup of each month' else '' end
  from pg_catalog.jsonb_each_text(wanted) as w
  on conflict on constraint policies_pkey do update set keep = excluded.keep, changed_at = backup.clock_now()
  where p.keep <> excluded.keep;
  perform backup.audit('retention.set', 'preset:' || preset, wanted);
end
$$;
comment on function backup.set_retention(text) is 'Sets how long backups are kept: standard, short or gfs.';
revoke all on function backup.set_retention(text) from public;

-- One tier; an empty span takes monthly and yearly away. HF003 for an unknown tier; HF421 when the transaction ends.
create function backup.set_tier(tier text, keep interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if set_tier.keep <= interval '0' and set_tier.tier in ('monthly', 'yearly') then
    delete from backup.policies as p where p.tier = set_tier.tier;
  elsif set_tier.keep < interval '1 hour' or set_tier.tier not in (
    'hourly', 'daily', 'weekly', 'manual', 'safety', 'monthly', 'yearly'
  ) then
    raise exception 'a tier is kept for an hour at least' using errcode = 'HF003';
  else
    insert into backup.policies as p (tier, keep, note) values (set_tier.tier, set_tier.keep, '')
    on conflict on constraint policies_pkey do update set keep = excluded.keep, changed_at = backup.clock_now();
  end if;
  perform backup.audit('retention.set', 'tier:' || set_tier.tier, pg_catalog.jsonb_build_object('keep', set_tier.keep));
end
$$;
revoke all on function backup.set_tier(text, interval) from public;

-- What is known ------------------------------------------------------------------------------------------------------

-- Backups that something needs now: restores, verifications, downloads, drills, copying into the second store.
create function backup.backups_needed() returns table (backup uuid, why text)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select u.backup, pg_catalog.format('restore %s', u.restore) from backup.backups_in_use() as u
    union
    select r.subject_run, pg_catalog.format('verification %s', r.id) from backup.runs as r
    where r.kind = 'verify' and r.subject_run is not null
      and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
    union
    -- an incremental's segments stand behind the full that it is restored from
    select coalesce(case when r.kind = 'incremental' then r.subject_run end, d.backup_id),
      pg_catalog.format('download %s', d.id)
    from backup.downloads as d left join backup.runs as r on r.id = d.backup_id
    where d.status = 'making'
    union
    select r.id, pg_catalog.format('copying %s', c.id)
    from backup.runs as c join backup.runs as r on r.kind = 'full' and r.complete_at is null
      and r.status in ('succeeded', 'quarantined')
    where c.kind = 'replicate' and c.status in ('queued', 'snapshotting', 'copying', 'finishing')
    union
    select d.backup_id, pg_catalog.format('drill %s', d.id)
    from backup.drills as d
    where d.finished_at is null and d.backup_id is not null;
end
$$;
revoke all on function backup.backups_needed() from public;

-- All that may not change between a plan and its order, as one word.
create function backup.retention_guard() returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return pg_catalog.md5(pg_catalog.jsonb_build_array(
    backup.is_original(), (select i.store_prefix from backup.identity as i),
    (
      select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_array(r.id, r.status, r.tiers, r.hold_until, r.verified_at, r.accepted_at, r.complete_at) order by r.id
      )
      from backup.runs as r
      where r.kind = 'full' and r.status in ('succeeded', 'quarantined', 'failed')
    ),
    (select pg_catalog.jsonb_agg(n.backup order by n.backup) from backup.backups_needed() as n),
    (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(p.tier, p.keep) order by p.tier) from backup.policies as p),
    (
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(s.name, s.value) order by s.name) from backup.settings as s
      where s.name in ('pitr_window_seconds', 'keep_at_least', 'prune_newest_hours')
    )
  )::text);
end
$$;
revoke all on function backup.retention_guard() from public;

-- Milliseconds since 1970, as the planner counts.
create function backup.milliseconds(moment timestamptz) returns bigint
language sql
stable
set search_path = ''
as $$
  select pg_catalog.floor(pg_catalog.date_part('epoch', moment) * 1000)::bigint
$$;
revoke all on function backup.milliseconds(timestamptz) from public;

-- What the planner has to know of the place where this database writes now; the form is src/shared/retention/read_facts.ts.
create function backup.retention_facts() returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  prefix text := (select i.store_prefix from backup.identity as i);
begin
  return pg_catalog.jsonb_build_object(
    'guard', backup.retention_guard(),
    'now', backup.milliseconds(moment),
    'isOriginal', backup.is_original(),
    'latestRecorded', backup.milliseconds(greatest(
      (select max(greatest(r.created_at, r.finished_at, r.consistent_at, r.heartbeat_at)) from backup.runs as r),
      (select max(greatest(s.taken_at, s.recorded_at)) from backup.segments as s),
      (select max(m.ordered_at) from backup.removals as m), timestamptz '1970-01-01 00:00+00'
    )),
    'newestEnd', (
      select r.status from backup.runs as r
      where r.kind = 'full' and r.status in ('succeeded', 'quarantined', 'failed')
      order by r.created_at desc limit 1
    ),
    'backups', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', r.id, 'manifest', r.manifest_name, 'tiers', r.tiers, 'consistentAt', backup.milliseconds(r.consistent_at),
        'status', r.status, 'wasQuarantined', r.quarantine_reason is not null, 'isVerified', r.verified_at is not null,
        'holdUntil', backup.milliseconds(r.hold_until), 'mayBeElsewhere', r.origin = 'cli', 'chain', r.chain_id,
        'lsn', (r.wal_lsn - '0/0'::pg_lsn)::text, 'xmin', pg_catalog.pg_snapshot_xmin(r.snapshot::pg_snapshot)::text,
        'xmax', pg_catalog.pg_snapshot_xmax(r.snapshot::pg_snapshot)::text
      ))
      from backup.runs as r
      where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.store_prefix = prefix
    ), '[]'),
    'chains', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', c.id, 'isOpen', c.ended_at is null, 'segments', (
          select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
            (s.start_lsn - '0/0'::pg_lsn)::text, (s.end_lsn - '0/0'::pg_lsn)::text, s.part, backup.milliseconds(s.taken_at)
          ) order by s.end_lsn, s.part), '[]')
          from backup.segments as s where s.chain_id = c.id
        ), 'former', (
          select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
            (r.wal_lsn - '0/0'::pg_lsn)::text, pg_catalog.pg_snapshot_xmin(r.snapshot::pg_snapshot)::text,
            pg_catalog.pg_snapshot_xmax(r.snapshot::pg_snapshot)::text
          )), '[]')
          from backup.runs as r where r.chain_id = c.id and r.kind = 'full' and r.status = 'pruned' and r.snapshot is not null
        )
      ))
      from backup.chains as c where c.store_prefix = prefix
    ), '[]'),
    'uses', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('backup', n.backup, 'why', n.why)) from backup.backups_needed() as n
    ), '[]'),
    'removed', coalesce((select pg_catalog.jsonb_agg(m.name) from backup.removals as m where m.kind = 'manifest'), '[]'),
    'waiting', coalesce((
      select pg_catalog.jsonb_agg(m.name) from backup.removals as m where m.removed_at is null
    ), '[]'),
    'copied', coalesce((
      select pg_catalog.jsonb_agg(c.name) from backup.second_store as s join backup.copies as c on c.store = s.label
      where c.kind in ('manifest', 'segment') and c.status = 'stored'
    ), '[]'),
    'policies', (
      select pg_catalog.jsonb_object_agg(p.tier, backup.milliseconds(moment + p.keep) - backup.milliseconds(moment))
      from backup.policies as p
    ),
    'windowSeconds', backup.setting_integer('pitr_window_seconds'),
    'atLeast', backup.setting_integer('keep_at_least'),
    'newestHours', backup.setting_integer('prune_newest_hours')
  );
end
$$;
revoke all on function backup.retention_facts() from public;

-- Removing -----------------------------------------------------------------------------------------------------------

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
      'segments', (select count(*) from pg_catalog.unnest(names) as n (name) where n.name like 'v1/changes/%'),
      'last', (select max(n.name) from pg_catalog.unnest(names) as n (name) where n.name like 'v1/changes/%')
    ));
  end if;
  return 'ordered';
end
$$;
revoke all on function backup.order_removals(bigint, bigint, text, jsonb) from public;

-- What has to leave the stores next: manifests before segments, oldest first; each is tried once in a run.
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
    where m.removed_at is null and m.tried_run is distinct from run
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

-- Asking -------------------------------------------------------------------------------------------------------------

-- A run that prunes, or the one that is under way. No run in a copy.
create function backup.request_prune(origin text, out run uuid, out joined boolean)
language plpgsql
volatile
set search_path = ''
as $$
begin
  joined := false;
  if not backup.is_original() then
    return;
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:prune', 0));
  select r.id into run from backup.runs as r
  where r.kind = 'prune' and r.status in ('queued', 'snapshotting', 'copying', 'finishing');
  joined := run is not null;
  if joined then
    return;
  end if;
  insert into backup.runs as r (kind, origin, concurrency) values ('prune', request_prune.origin, 1) returning r.id into run;
  insert into backup.tasks (run_id, kind) values (run, 'prune');
  perform backup.audit(
    'run.requested', 'run:' || run, pg_catalog.jsonb_build_object('kind', 'prune', 'origin', request_prune.origin)
  );
end
$$;
revoke all on function backup.request_prune(text) from public;

-- What the cron job calls each hour: prunes once a day (UTC), not beside a backup, and behind a verification of the newest one, which
-- it orders. Without address and secret in Vault nothing is called; `holdfast prune` does it then.
create function backup.call_retention() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  newest backup.runs;
begin
  if not backup.is_original() or exists (
    select from backup.runs as r
    where (r.kind in ('full', 'prune') and r.status in ('queued', 'snapshotting', 'copying', 'finishing'))
      or (
        r.kind = 'prune' and r.status = 'succeeded' and not r.warnings @> '[{"code": "nothing_removed"}]'
        and r.finished_at between pg_catalog.date_trunc('day', moment, 'UTC') and moment
      )
  ) then
    return null;
  end if;
  select r.* into newest from backup.runs as r
  where r.kind = 'full' and r.status = 'succeeded' order by r.consistent_at desc limit 1;
  if newest.id is null then
    return null;
  end if;
  if newest.verified_at is null then
    perform backup.verify_newest();
    return null;
  end if;
  return backup.invoke('retention', '{"action": "start"}');
exception
  when sqlstate 'HF002' then
    return null;
end
$$;
revoke all on function backup.call_retention() from public;

-- Backups that their tiers do not keep any more, nor the window, nor a hold, and that are there three days later: a prune comes each
-- day, and may be refused for two. One that is kept for another reason, such as being among the newest three, counts as well: where
-- nobody has made one for so long, that is what is wrong.
create function backup.overdue_backups() returns table (backup uuid, tiers text[])
language plpgsql
stable
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now() - interval '3 days';
begin
  return query
    select r.id, r.tiers
    from backup.runs as r
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined')
      and coalesce(r.hold_until, '-infinity') <= backup.clock_now()
      and r.consistent_at + (select max(p.keep) from backup.policies as p where p.tier = any (r.tiers)) < moment
      and r.consistent_at + backup.setting_integer('pitr_window_seconds') * interval '1 second' < moment
      -- the first of its month, or year, where these are kept
      and not exists (
        select from backup.policies as p
        where p.tier in ('monthly', 'yearly') and r.status = 'succeeded' and r.consistent_at + p.keep >= moment
          and not exists (
            select from backup.runs as older
            where older.kind = 'full' and older.status = 'succeeded' and older.consistent_at < r.consistent_at
              and older.consistent_at >= pg_catalog.date_trunc(case p.tier when 'monthly' then 'month' else 'year' end, r.consistent_at, 'UTC')
          )
      );
end
$$;
revoke all on function backup.overdue_backups() from public;

-- The watchdog's step: an alert where backups that their tiers do not keep any more are still there, and nobody has pruned for
-- three days; and where a store refuses for a month. Returns how many are raised.
create function backup.watch_retention() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  overdue bigint;
  said text;
  refused bigint := (
    select count(*) from backup.removals as m where m.removed_at is null and m.ordered_at < moment - interval '30 days'
  );
begin
  if not backup.is_original() or exists (
    select from backup.runs as r
    where r.kind = 'prune' and r.status = 'succeeded' and not r.warnings @> '[{"code": "nothing_removed"}]'
      and r.finished_at between moment - interval '3 days' and moment
  ) then
    overdue := 0;
  else
    select count(*) into overdue from backup.overdue_backups();
  end if;
  if overdue > 0 then
    said := coalesce((
      select r.warnings #>> '{0,message}' from backup.runs as r
      where r.kind = 'prune' and r.status = 'succeeded' order by r.finished_at desc limit 1
    ), 'nobody prunes');
    perform backup.raise_alert(
      'retention_not_followed', 'retention',
      pg_catalog.format('%s backups are older than their tiers keep them; %s', overdue, said), 'warning'
    );
  else
    perform backup.resolve_alert('retention_not_followed', 'retention');
  end if;
  if refused > 0 then
    perform backup.raise_alert(
      'retention_not_followed', 'stores',
      pg_catalog.format('a store has kept %s objects for a month after they were to go', refused), 'warning'
    );
  else
    perform backup.resolve_alert('retention_not_followed', 'stores');
  end if;
  return (overdue > 0)::integer + (refused > 0)::integer;
end
$$;
revoke all on function backup.watch_retention() from public;
