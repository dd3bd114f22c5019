-- What the planner of retention has to know: backups, chains, policies, uses; and what may not change before its order.

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
