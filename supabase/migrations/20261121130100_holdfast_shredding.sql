-- What the catalogue says of an epoch that is to become unreadable for ever, and what it forgets then. The store is the CLI's
-- part (src/shared/crypto/shred_epoch.ts). Lock order: as of chains, then as in 0400.

-- What stands in the way, or loses something: `hold` (a backup that somebody keeps), `restore` (one that a restore needs now),
-- `run` (a backup that is under way may still seal with it, a replication copy its key file): these are never overruled.
-- `moments`: a backup of another epoch whose later moments need segments of this one: those behind its position, and three
-- before it, which a replay reads as well (src/shared/changes/segments/chain_reader.ts). `id`: of the backup or run.
create function backup.epoch_needs(epoch text, segments text[]) returns table (what text, id uuid)
language sql
stable
set search_path = ''
as $$
  select 'hold', r.id from backup.runs as r
  where r.kind = 'full' and r.epoch = epoch_needs.epoch and r.hold_until > backup.clock_now()
  union
  select 'restore', u.backup from backup.backups_in_use() as u join backup.runs as r on r.id = u.backup
  where r.epoch = epoch_needs.epoch
  union
  select 'run', r.id from backup.runs as r
  where r.kind in ('full', 'replicate') and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
  union
  select 'moments', r.id
  from backup.segments as s
  join backup.runs as r on r.chain_id = s.chain_id and r.kind = 'full' and r.status in ('succeeded', 'quarantined')
  where s.name = any (epoch_needs.segments) and r.epoch <> epoch_needs.epoch
    and (
      s.end_lsn > r.wal_lsn
      or 3 > (
        select count(*) from backup.segments as between_them
        where between_them.chain_id = s.chain_id and between_them.end_lsn > s.end_lsn and between_them.end_lsn <= r.wal_lsn
      )
    )
$$;
revoke all on function backup.epoch_needs(text, text[]) from public;

-- Was it ordered, and has its end not been told?
create function backup.is_being_shredded(epoch text) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from backup.audit_log as l where l.subject = 'epoch:' || epoch and l.action = 'key.shredding'
      and not exists (select from backup.audit_log as d where d.subject = l.subject and d.action = 'key.shredded' and d.id > l.id)
  )
$$;
revoke all on function backup.is_being_shredded(text) from public;

-- Before anything is removed: the order stands in the audit, with all that becomes unreadable. `facts`: {backups: [id],
-- segments: [name], anchors: [name]}. Safe to repeat. HF415 (run_state) where something is in the way.
create function backup.begin_shredding(epoch text, facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  segment_names constant text[] := array(select pg_catalog.jsonb_array_elements_text(facts -> 'segments'));
  hindrance record;
begin
  select n.what, n.id into hindrance from backup.epoch_needs(epoch, segment_names) as n where n.what <> 'moments' order by n.what limit 1;
  if found then
    raise exception '%', case hindrance.what
      when 'hold' then pg_catalog.format('backup %s is on hold', hindrance.id)
      when 'restore' then pg_catalog.format('a restore needs backup %s', hindrance.id)
      else pg_catalog.format('run %s is under way', hindrance.id)
    end using errcode = 'HF415', hint = 'Wait for its end, or end the hold, then run the same command again.';
  end if;
  perform backup.audit('key.shredding', 'epoch:' || epoch, pg_catalog.jsonb_build_object(
    'backups', facts -> 'backups', 'segments', pg_catalog.cardinality(segment_names),
    'anchors', pg_catalog.jsonb_array_length(facts -> 'anchors')
  ));
end
$$;
revoke all on function backup.begin_shredding(text, jsonb) from public;

-- Right before the store's objects go: the catalogue forgets them, so that nothing is offered that cannot be opened, and no
-- drain misses a segment. Nothing without an order that is under way: HF415 (run_state).
create function backup.forget_epoch(epoch text, facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  segment_names constant text[] := array(select pg_catalog.jsonb_array_elements_text(facts -> 'segments'));
  anchor_names constant text[] := array(select pg_catalog.jsonb_array_elements_text(facts -> 'anchors'));
  backup_ids constant uuid[] := array(select b.id::uuid from pg_catalog.jsonb_array_elements_text(facts -> 'backups') as b (id));
  emptied uuid[];
begin
  if not backup.is_being_shredded(epoch) then
    raise exception 'nobody has ordered that epoch % be shredded', epoch using errcode = 'HF415';
  end if;
  with gone as (delete from backup.segments as s where s.name = any (segment_names) returning s.run_id)
  select pg_catalog.array_agg(distinct g.run_id) into emptied from gone as g;
  delete from backup.runs as r
  where r.id = any (emptied) and r.kind = 'incremental' and r.finished_at is not null
    and not exists (select from backup.segments as s where s.run_id = r.id);
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a join pg_catalog.unnest(backup_ids) as b (id) on a.subject = 'run:' || b.id
  where a.status <> 'resolved';
  delete from backup.runs as r where r.subject_run = any (backup_ids);
  delete from backup.runs as r where r.id = any (backup_ids);
  delete from backup.copied_files as c where c.epoch = forget_epoch.epoch;
  delete from backup.file_lists as l where l.epoch = forget_epoch.epoch;
  delete from backup.objects as o where o.epoch = forget_epoch.epoch;
  delete from backup.audit_anchors as a where a.object_name = any (anchor_names);
  delete from backup.copies as c
  where c.name = any (segment_names || anchor_names || array['v1/keys/' || epoch || '.jwe.json'])
    or c.kind = 'manifest' and exists (
      select from pg_catalog.unnest(backup_ids) as b (id) where c.name like 'v1/backups/%-' || b.id || '/manifest'
    );
end
$$;
revoke all on function backup.forget_epoch(text, jsonb) from public;

-- The key file is gone from every store, and that was looked at. Returns false where it stands in the audit already.
create function backup.end_shredding(epoch text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not backup.is_being_shredded(epoch) then
    return false;
  end if;
  perform backup.audit('key.shredded', 'epoch:' || epoch, '{}');
  return true;
end
$$;
revoke all on function backup.end_shredding(text) from public;
