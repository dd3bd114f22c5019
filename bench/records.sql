-- A catalogue of years: 5,000 full backups, 5,000 incrementals with ten segments each, 1,000,000 objects. Run as `postgres`.
insert into backup.chains (id, slot_name, publications, start_lsn, started_at, system_identifier, database_name)
values ('bench', 'no_slot', '{}', '0/1', now() - interval '5000 hours', 'x', 'x');

insert into backup.runs (kind, tiers, status, origin, created_at, started_at, heartbeat_at, consistent_at, finished_at, attempt, snapshot,
  wal_lsn, chain_id, manifest_name, manifest_hash, rows, raw_bytes, stored_bytes, new_stored_bytes, verified_at, complete_at)
select 'full', case when i % 7 = 0 then '{daily,weekly}'::text[] else '{daily}' end, 'succeeded', 'schedule', t.at, t.at, t.at, t.at,
  t.at + (300 + i % 40) * interval '1 second', 1, format('%s:%s:', i, i), '0/0'::pg_lsn + (5000 - i)::numeric * 1000, 'bench',
  format('v1/backups/%s-daily-%s/manifest', to_char(t.at at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"'), gen_random_uuid()), 'h',
  1000000, 100000000, 30000000, 5000000, t.at, t.at
from generate_series(1, 5000) as i, lateral (select now() - i * interval '1 hour' as at) as t;
update backup.runs set id = substring(manifest_name, '([0-9a-f-]{36})/manifest')::uuid where kind = 'full';

with hours as (
  insert into backup.runs (kind, tiers, status, origin, created_at, started_at, heartbeat_at, consistent_at, finished_at, chain_id, wal_lsn, complete_at)
  select 'incremental', '{hourly}', 'succeeded', 'schedule', t.at, t.at, t.at, t.at + interval '1 hour', t.at + interval '1 hour', 'bench',
    '0/0'::pg_lsn + (5000 - i)::numeric * 1000 + 1000, t.at
  from generate_series(1, 5000) as i, lateral (select now() - i * interval '1 hour' as at) as t
  returning id, created_at, wal_lsn
)
insert into backup.segments (chain_id, start_lsn, end_lsn, run_id, name, raw_bytes, stored_bytes, hash, stored_hash, epoch, transactions,
  changes, ddl, taken_at, ends_in_transaction)
select 'bench', s.from_lsn, s.from_lsn + 100::numeric, h.id, format('v1/changes/bench/%s-%s', lpad(to_hex((s.from_lsn - '0/0')::bigint), 16, '0'),
    lpad(to_hex((s.from_lsn - '0/0')::bigint + 100), 16, '0')), 1000, 500, 'h', 'h', 'e', 1, 10, 0, h.created_at + p * interval '6 minutes', false
from hours as h, generate_series(0, 9) as p, lateral (select h.wal_lsn - 1000::numeric + (p * 100)::numeric as from_lsn) as s;

insert into backup.objects (name, kind, raw_bytes, stored_bytes, hash, stored_hash, epoch)
select 'v1/objects/' || substr(o.hash, 1, 2) || '/' || o.hash, 'chunk', 8000000, 2500000 + i % 1000, 'h', 'h', 'e'
from generate_series(1, 1000000) as i, lateral (select md5(i::text) || md5((-i)::text) as hash) as o;

-- What sweeping has to know: the newest manifest names them all, and every manifest was opened.
insert into backup.opened_manifests (name, complete) select manifest_name, true from backup.runs where kind = 'full';
insert into backup.manifest_objects (manifest, name)
select (select manifest_name from backup.runs where kind = 'full' order by created_at desc limit 1), name from backup.objects;
update backup.drain set drained_at = now();
analyze;
