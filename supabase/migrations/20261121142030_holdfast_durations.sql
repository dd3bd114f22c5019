-- How long a backup takes, beside how long those of its tier took, and what explains it. docs/decisions/0033-monitoring.md.

-- The tier by which a run is compared: one that serves several is of the one that comes most often.
create function backup.tier_of(tiers text[]) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select t.tier from pg_catalog.unnest(array['daily', 'weekly', 'manual', 'safety']) as t (tier) where t.tier = any (tiers) limit 1
$$;
revoke all on function backup.tier_of(text[]) from public;

-- The newest full run of each tier that is under way or succeeded, beside the up to 30 that succeeded before it. `limit_seconds`: from
-- there on it is slow: five times the spread above the median (1.4826 MAD stands for a standard deviation), at least half as long
-- again, at least a minute more. Null below five runs: no verdict.
create function backup.run_durations()
returns table (
  tier text, run uuid, is_active boolean, seconds double precision, compared bigint, median_seconds double precision,
  mad_seconds double precision, limit_seconds double precision
)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
begin
  return query
    with recent as (
      -- as tier_of() has it, without a call for each run on record
      select t.tier, r.*, pg_catalog.row_number() over (partition by t.tier order by r.created_at desc) as place
      from (values
        ('daily', '{}'::text[]), ('weekly', '{daily}'), ('manual', '{daily,weekly}'), ('safety', '{daily,weekly,manual}')
      ) as t (tier, before)
      cross join lateral (
        select x.id, x.created_at, x.finished_at is null as is_active,
          extract(epoch from coalesce(x.finished_at, moment) - x.started_at)::double precision as seconds
        from backup.runs as x
        where x.kind = 'full' and x.started_at is not null and t.tier = any (x.tiers) and not x.tiers && t.before
          and x.status in ('succeeded', 'queued', 'snapshotting', 'copying', 'finishing')
        order by x.created_at desc
        limit 31
      ) as r
    ), medians as (
      select r.tier, count(*) as compared, pg_catalog.percentile_cont(0.5) within group (order by r.seconds) as median
      from recent as r where r.place > 1 and not r.is_active group by r.tier
    ), spreads as (
      select m.tier, m.compared, m.median,
        pg_catalog.percentile_cont(0.5) within group (order by pg_catalog.abs(r.seconds - m.median)) as mad
      from medians as m join recent as r on r.tier = m.tier and r.place > 1 and not r.is_active
      group by m.tier, m.compared, m.median
    )
    select n.tier, n.id, n.is_active, n.seconds, coalesce(s.compared, 0), s.median, s.mad,
      case when s.compared >= 5 then s.median + greatest(5 * 1.4826 * s.mad, s.median / 2, 60) end
    from recent as n left join spreads as s on s.tier = n.tier
    where n.place = 1;
end
$$;
revoke all on function backup.run_durations() from public;

-- Why a run took longer than those before it, from what is on record of it; the likeliest reason first.
create function backup.explain_duration(run uuid) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  ours backup.runs;
  usual record;
  tried record;
  lost bigint;
  reasons text[] := '{}'::text[];
begin
  select r.* into ours from backup.runs as r where r.id = explain_duration.run;
  select count(*) as runs, pg_catalog.percentile_cont(0.5) within group (order by x.rows) as row_count,
    pg_catalog.percentile_cont(0.5) within group (order by x.new_stored_bytes) as new_bytes,
    count(*) filter (where x.base_run is not null) as took_over
  into usual
  from (
    select r.rows, r.new_stored_bytes, r.base_run from backup.runs as r
    where r.kind = 'full' and r.status = 'succeeded' and r.id <> ours.id and r.created_at < ours.created_at
      and backup.tier_of(r.tiers) = backup.tier_of(ours.tiers)
    order by r.created_at desc
    limit 30
  ) as x;
  select coalesce(pg_catalog.sum(t.tries - 1), 0) as times, (pg_catalog.array_agg(t.error ->> 'code') filter (where t.error is not null))[1] as code
  into tried
  from backup.tasks as t where t.run_id = ours.id and t.tries > 1;
  select count(*) into lost from backup.calls as c where c.run_id = ours.id and c.status in ('lost', 'failed');
  if ours.attempt > 1 then
    reasons := reasons || pg_catalog.format(
      'it began %s times, since its snapshot was lost or definitions changed meanwhile', ours.attempt
    );
  end if;
  if tried.times > 0 then
    reasons := reasons || pg_catalog.format('tasks were tried again %s times%s', tried.times, coalesce(' (' || tried.code || ')', ''));
  end if;
  if lost > 0 then
    reasons := reasons || pg_catalog.format('%s legs were ended before their time', lost);
  end if;
  if ours.rows > 1.3 * usual.row_count then
    reasons := reasons || pg_catalog.format('more rows: %s, usually %s', ours.rows, pg_catalog.round(usual.row_count));
  end if;
  if ours.base_run is null and 2 * usual.took_over > usual.runs then
    reasons := reasons || 'nothing could be taken over of an earlier backup'::text;
  end if;
  if ours.new_stored_bytes > 1.5 * usual.new_bytes and ours.new_stored_bytes > usual.new_bytes + 1048576 then
    reasons := reasons || pg_catalog.format(
      'new objects: %s were written, usually %s', backup.bytes_words(ours.new_stored_bytes), backup.bytes_words(usual.new_bytes::bigint)
    );
  end if;
  if reasons = '{}' then
    return 'likeliest: the store or the database was slow, since rows, new objects and retries are as usual';
  end if;
  return pg_catalog.format('likeliest: %s%s', reasons[1], '; also: ' || nullif(pg_catalog.array_to_string(reasons[2:], '; '), ''));
end
$$;
revoke all on function backup.explain_duration(uuid) from public;

-- Backups that take, or took, longer than those of their tier.
create function backup.see_durations()
returns table (kind text, subject text, severity text, message text, is_alert boolean)
language sql
volatile
set search_path = ''
as $$
  select 'run_slow', 'tier:' || d.tier, 'warning', pg_catalog.format(
    'the newest %s backup %s %s; up to %s was expected (median of the last %s: %s); %s', d.tier,
    case when d.is_active then 'has been under way for' else 'took' end, backup.duration_words(d.seconds),
    backup.duration_words(d.limit_seconds), d.compared, backup.duration_words(d.median_seconds), backup.explain_duration(d.run)
  ), true
  from backup.run_durations() as d
  where d.seconds > d.limit_seconds
$$;
revoke all on function backup.see_durations() from public;
