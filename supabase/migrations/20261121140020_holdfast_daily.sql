-- The daily checks that are in SQL, and the registry of all daily ones in their order. Each returns its outcome, a sentence, and what it
-- measured; nothing is changed here. Times in evidence are UTC.

-- Was something recorded that is newer than now? Ages mean nothing then.
create function backup.prove_clock() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  latest timestamptz := greatest(
    (select max(greatest(r.created_at, r.finished_at, r.consistent_at, r.heartbeat_at)) from backup.runs as r),
    (select max(greatest(s.taken_at, s.recorded_at)) from backup.segments as s),
    (select max(o.checked_at) from backup.check_results as o)
  );
begin
  evidence := pg_catalog.jsonb_build_object('now', backup.moment_text(moment), 'latestRecorded', backup.moment_text(latest));
  if latest > moment + interval '5 minutes' then
    outcome := 'failed';
    message := pg_catalog.format('something was recorded at %s, and it is %s: the clock was moved back', backup.moment_text(latest), backup.moment_text(moment));
  else
    outcome := 'passed';
    message := 'nothing on record is newer than now';
  end if;
  return next;
end
$$;
revoke all on function backup.prove_clock() from public;

-- Is there a backup for the last time that each schedule was due, and when did it end? Six hours are left to a run.
create function backup.prove_newest_backup() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  newest backup.runs;
  hours bigint := backup.setting_integer('prune_newest_hours');
  watched jsonb;
  missing text;
begin
  select r.* into newest from backup.runs as r
  where r.kind = 'full' and r.status = 'succeeded' order by r.consistent_at desc limit 1;
  select
    coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'schedule', d.name, 'dueAt', backup.moment_text(d.due_at), 'backup', d.backup, 'finishedAt', backup.moment_text(d.finished_at)
    ) order by d.name), '[]'),
    pg_catalog.string_agg(pg_catalog.format('the %s one of %s', d.name, backup.moment_text(d.due_at)), ', ' order by d.name) filter (where d.backup is null)
  into watched, missing
  from (
    select s.name, s.due_at, r.id as backup, r.finished_at
    from (
      select x.name, x.tier, x.enabled_since, backup.last_due(x.cron, moment - interval '6 hours') as due_at
      from backup.schedules as x where x.kind = 'full' and x.enabled
    ) as s
    left join lateral (
      select b.id, b.finished_at from backup.runs as b
      where b.kind = 'full' and b.status = 'succeeded' and b.tiers @> array[s.tier] and b.finished_at >= s.due_at
      order by b.consistent_at desc limit 1
    ) as r on true
    where s.due_at >= s.enabled_since
  ) as d;
  evidence := pg_catalog.jsonb_build_object(
    'backup', newest.id, 'tiers', newest.tiers, 'startedAt', backup.moment_text(newest.started_at), 'finishedAt', backup.moment_text(newest.finished_at),
    'completeAt', backup.moment_text(newest.complete_at), 'consistentAt', backup.moment_text(newest.consistent_at),
    'durationSeconds', pg_catalog.round(extract(epoch from newest.finished_at - newest.started_at)),
    'ageHours', pg_catalog.round(extract(epoch from moment - newest.consistent_at) / 3600, 1), 'schedules', watched
  );
  outcome := 'failed';
  if newest.id is null then
    message := 'there is no backup';
  elsif missing is not null then
    message := 'backups are missing: ' || missing;
  elsif watched = '[]' and moment - newest.consistent_at > hours * interval '1 hour' then
    message := pg_catalog.format('the newest backup is of %s, and no schedule says when the next one comes', backup.moment_text(newest.consistent_at));
  elsif backup.has_second_store() and newest.complete_at is null
    and moment - newest.finished_at > backup.setting_integer('copies_late_hours') * interval '1 hour'
  then
    outcome := 'warning';
    message := pg_catalog.format('the newest backup ended at %s and is not in the second store yet', backup.moment_text(newest.finished_at));
  else
    outcome := 'passed';
    message := pg_catalog.format('the newest backup ended at %s', backup.moment_text(newest.finished_at));
  end if;
  return next;
end
$$;
revoke all on function backup.prove_newest_backup() from public;

-- Was every object of the newest backup opened after it was made? A share of the store, opened today, is not that.
create function backup.prove_newest_verified() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  newest backup.runs;
begin
  select r.* into newest from backup.runs as r
  where r.kind = 'full' and r.status = 'succeeded' order by r.consistent_at desc limit 1;
  evidence := pg_catalog.jsonb_build_object(
    'backup', newest.id, 'finishedAt', backup.moment_text(newest.finished_at), 'verifiedAt', backup.moment_text(newest.verified_at)
  );
  if newest.id is null then
    outcome := 'no_verdict';
    message := 'there is no backup';
  elsif newest.verified_at is not null then
    outcome := 'passed';
    message := pg_catalog.format('every object of the newest backup was opened at %s', backup.moment_text(newest.verified_at));
  elsif exists (
    select from backup.alerts as a where a.kind = 'backup_damaged' and a.subject = 'run:' || newest.id and a.status <> 'resolved'
  ) then
    outcome := 'failed';
    message := pg_catalog.format('the newest backup, %s, is damaged', newest.id);
  elsif moment - newest.finished_at < interval '3 hours' then
    outcome := 'no_verdict';
    message := 'the newest backup was made just now, and is verified next';
  else
    outcome := case when moment - newest.finished_at < interval '26 hours' then 'warning' else 'failed' end;
    message := pg_catalog.format('nobody has verified the newest backup, which ended at %s', backup.moment_text(newest.finished_at));
  end if;
  return next;
end
$$;
revoke all on function backup.prove_newest_verified() from public;

-- How the runs of the last day ended.
create function backup.prove_job_status() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  since timestamptz := backup.clock_now() - interval '24 hours';
  bad bigint;
begin
  select coalesce(pg_catalog.jsonb_object_agg(k.kind, k.counts), '{}') into evidence
  from (
    select n.kind, pg_catalog.jsonb_object_agg(n.status, n.runs) as counts
    from (
      select r.kind, r.status, count(*) as runs from backup.runs as r
      where r.created_at > since or r.finished_at > since
      group by r.kind, r.status
    ) as n
    group by n.kind
  ) as k;
  evidence := pg_catalog.jsonb_build_object('since', backup.moment_text(since), 'runs', evidence, 'bad', coalesce((
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'run', x.id, 'kind', x.kind, 'status', x.status, 'code', x.error_code, 'endedAt', backup.moment_text(x.finished_at)
    ))
    from (
      select r.* from backup.runs as r
      where r.status in ('failed', 'quarantined') and r.finished_at > since order by r.finished_at desc limit 20
    ) as x
  ), '[]'));
  select count(*) into bad from backup.runs as r where r.status in ('failed', 'quarantined') and r.finished_at > since;
  if (
    select r.status from backup.runs as r
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined', 'failed') order by r.created_at desc limit 1
  ) in ('failed', 'quarantined') then
    outcome := 'failed';
    message := 'the newest run of a backup did not succeed';
  elsif bad > 0 then
    outcome := 'warning';
    message := pg_catalog.format('%s runs of the last day failed or are quarantined', bad);
  else
    outcome := 'passed';
    message := 'no run of the last day failed';
  end if;
  return next;
end
$$;
revoke all on function backup.prove_job_status() from public;

-- What each store holds, by kind: objects and bytes as listed.
create function backup.prove_storage_use() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
begin
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'store', s.store, 'objects', s.objects, 'bytes', s.bytes, 'kinds', s.kinds
    ) order by s.store), '[]'),
    pg_catalog.string_agg(pg_catalog.format('%s holds %s bytes in %s objects', s.store, s.bytes, s.objects), '; ' order by s.store)
  into evidence, message
  from (
    select k.store, sum(k.objects) as objects, sum(k.bytes) as bytes,
      pg_catalog.jsonb_object_agg(k.kind, pg_catalog.jsonb_build_object('objects', k.objects, 'bytes', k.bytes)) as kinds
    from (
      select i.store, pg_catalog.split_part(i.name, '/', 2) as kind, count(*) as objects, sum(i.bytes) as bytes
      from backup.inventory as i group by 1, 2
    ) as k
    group by k.store
  ) as s;
  outcome := case when message is null then 'no_verdict' else 'passed' end;
  message := coalesce(message, 'no store was listed yet');
  evidence := pg_catalog.jsonb_build_object('stores', evidence);
  return next;
end
$$;
revoke all on function backup.prove_storage_use() from public;

-- Does each segment begin where the one before it in its chain ends? A gap between two chains was told when it was noticed.
create function backup.prove_chain() returns table (outcome text, message text, evidence jsonb)
language plpgsql
volatile
set search_path = ''
as $$
declare
  place text := (select i.store_prefix from backup.identity as i);
  moment timestamptz := backup.clock_now();
  chains bigint;
  segments bigint;
  holes jsonb;
  gaps jsonb;
begin
  select count(distinct o.chain_id), count(*), coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'chain', o.chain_id, 'from', o.before_end, 'to', o.start_lsn, 'segment', o.name
    ) order by o.chain_id, o.start_lsn) filter (where o.before_end is not null and not o.follows), '[]')
  into chains, segments, holes
  from (
    select s.chain_id, s.name, s.start_lsn, pg_catalog.lag(s.end_lsn) over w as before_end,
      (s.part = 0 and s.start_lsn = pg_catalog.lag(s.end_lsn) over w) or (
        s.part > 0 and s.part = pg_catalog.lag(s.part) over w + 1
        and s.start_lsn = pg_catalog.lag(s.start_lsn) over w and s.end_lsn = pg_catalog.lag(s.end_lsn) over w
      ) as follows
    from backup.segments as s join backup.chains as c on c.id = s.chain_id and c.store_prefix = place
    window w as (partition by s.chain_id order by s.end_lsn, s.part)
  ) as o;
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'chain', g.chain_id, 'from', backup.moment_text(g.from_at), 'to', backup.moment_text(g.to_at), 'reason', g.reason
  ) order by g.id), '[]') into gaps
  from backup.gaps as g join backup.chains as c on c.id = g.chain_id and c.store_prefix = place
  where g.to_lsn is null or g.noticed_at > moment - interval '24 hours';
  evidence := pg_catalog.jsonb_build_object(
    'chains', chains, 'segments', segments, 'holes', holes, 'gaps', gaps,
    'openChain', (select c.id from backup.chains as c where c.ended_at is null)
  );
  if holes <> '[]' then
    outcome := 'failed';
    message := pg_catalog.format('segments are missing inside %s chains', (
      select count(distinct h.hole ->> 'chain') from pg_catalog.jsonb_array_elements(holes) as h (hole)
    ));
  elsif gaps <> '[]' then
    outcome := 'warning';
    message := 'the change stream has a gap: moments within it cannot be restored';
  elsif segments = 0 then
    outcome := 'no_verdict';
    message := 'there are no segments of a change stream';
  else
    outcome := 'passed';
    message := pg_catalog.format('%s segments follow each other without a hole', segments);
  end if;
  return next;
end
$$;
revoke all on function backup.prove_chain() from public;

-- What expectations are made of: for each tier that has one, its newest backup of the last 36 hours, and up to 30 before it, newest first.
-- `at` in seconds since 1970. Tables only where one of these backups has so many rows in them that a half of them says something.
create function backup.measured_history() returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
begin
  return (
    with newest as (
      select distinct on (p.tier) p.tier, r.id, r.consistent_at
      from (values ('daily'), ('weekly'), ('manual')) as p (tier)
      join backup.runs as r on r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.tiers @> array[p.tier]
      where r.consistent_at > moment - interval '36 hours'
      order by p.tier, r.consistent_at desc
    ),
    measured as (
      select n.tier, b.*, row_number() over (partition by n.tier order by b.consistent_at desc) as place
      from newest as n
      cross join lateral (
        select r.id, r.consistent_at, r.rows, r.raw_bytes, r.stored_bytes
        from backup.runs as r
        -- one that nobody accepted is what is judged, not what is judged by
        where r.kind = 'full' and r.tiers @> array[n.tier]
          and (r.id = n.id or (r.status = 'succeeded' and r.consistent_at < n.consistent_at))
        order by r.consistent_at desc
        limit 31
      ) as b
    ),
    tables as (
      select m.tier, t.schema_name, t.table_name,
        pg_catalog.jsonb_object_agg(m.place::text, t.counted_rows) filter (where t.counted_rows is not null) as rows,
        max(t.counted_rows) as most
      from measured as m join backup.run_tables as t on t.run_id = m.id
      group by m.tier, t.schema_name, t.table_name
      having max(t.counted_rows) >= 1000
      order by max(t.counted_rows) desc
      limit 2000
    )
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'tier', n.tier, 'backup', n.id,
      'runs', (
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'at', extract(epoch from m.consistent_at)::float8, 'rows', m.rows, 'rawBytes', m.raw_bytes, 'storedBytes', m.stored_bytes
        ) order by m.place)
        from measured as m where m.tier = n.tier
      ),
      'tables', coalesce((
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'name', pg_catalog.format('%I.%I', t.schema_name, t.table_name), 'rows', t.rows
        ) order by t.schema_name, t.table_name)
        from tables as t where t.tier = n.tier
      ), '[]')
    ) order by n.tier), '[]')
    from newest as n
  );
end
$$;
revoke all on function backup.measured_history() from public;

do $$
begin
  perform backup.add_check('clock', 'daily', 'the clock was not moved back', 'prove_clock');
  perform backup.add_check('newest_backup', 'daily', 'the newest backup is as recent as its schedule says, and when it was complete', 'prove_newest_backup');
  perform backup.add_check('newest_verified', 'daily', 'every object of the newest backup was opened since it was made', 'prove_newest_verified');
  perform backup.add_check('job_status', 'daily', 'no run of the last day failed', 'prove_job_status', alert => 'anomaly');
  perform backup.add_check('backup_size', 'daily', 'the newest backup has the size that the 30 before it let expect', step => 'size', alert => 'anomaly');
  perform backup.add_check('row_counts', 'daily', 'so have its rows, altogether and table by table', step => 'rows', alert => 'anomaly');
  perform backup.add_check('stores_complete', 'daily', 'every store lists all that was recorded as being there', step => 'list');
  perform backup.add_check('storage_use', 'daily', 'how much each store holds', 'prove_storage_use');
  perform backup.add_check('manifests', 'daily', 'every manifest of every store opens', step => 'manifests');
  perform backup.add_check('objects', 'daily', 'every object of every store opens, by turns, within 30 days', step => 'objects');
  perform backup.add_check('chain', 'daily', 'the segments of the change stream follow each other without a hole', 'prove_chain');
end
$$;
