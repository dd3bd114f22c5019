-- Is the policy of retention followed: what should be there, tier by tier, and is not; what should be gone, and is there.
-- Nothing is changed here.

-- When backups of a tier should have been made that it still keeps, oldest first; a thousand at most. By the schedule as it is since it
-- is so (`enabled_since`): for daily and weekly each time that it was due, an hour ago or more; for the hourly one each whole hour of the
-- change stream since the first of it began; for monthly and yearly each month and year that has ended since the install, one backup
-- each. Nothing is expected of tiers that people and restores ask for.
create function backup.expected_backups(tier text) returns table (due_at timestamptz, until timestamptz)
language plpgsql
stable
rows 100
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  kept_from constant timestamptz := moment - (select p.keep from backup.policies as p where p.tier = expected_backups.tier);
  installed_at constant timestamptz := (select i.installed_at from backup.identity as i);
  ours backup.schedules;
  span interval;
begin
  if kept_from is null then
    return;
  elsif expected_backups.tier = 'hourly' then
    return query
      select h.at, h.at + interval '1 hour'
      from (
        select greatest(kept_from, s.enabled_since, (select min(c.started_at) from backup.chains as c)) as at
        from backup.schedules as s
        where s.kind = 'changes' and s.enabled and s.paused_until is null and exists (select from backup.chains)
      ) as f,
        pg_catalog.generate_series(
          pg_catalog.date_trunc('hour', f.at, 'UTC') + interval '1 hour', moment - interval '1 hour 15 minutes', interval '1 hour'
        ) as h (at)
      limit 1000;
    return;
  elsif expected_backups.tier in ('monthly', 'yearly') then
    span := case expected_backups.tier when 'monthly' then interval '1 month' else interval '1 year' end;
    return query
      select g.at at time zone 'UTC', (g.at + span) at time zone 'UTC'
      from pg_catalog.generate_series(
        pg_catalog.date_trunc(
          case expected_backups.tier when 'monthly' then 'month' else 'year' end,
          greatest(kept_from, installed_at) at time zone 'UTC'
        ) + span, moment at time zone 'UTC' - span, span
      ) as g (at)
      limit 1000;
    return;
  end if;
  select s.* into ours from backup.schedules as s
  where s.kind = 'full' and s.tier = expected_backups.tier and s.enabled order by s.name limit 1;
  if ours.name is null then
    return;
  end if;
  due_at := backup.next_due(ours.cron, greatest(kept_from, ours.enabled_since) - interval '1 second');
  for turn in 1..1000 loop
    exit when due_at is null or due_at > moment - interval '1 hour';
    until := backup.next_due(ours.cron, due_at);
    return next;
    due_at := until;
  end loop;
end
$$;
revoke all on function backup.expected_backups(text) from public;

-- One row a tier that is kept: how many backups of it are there, of when the oldest and the newest are, how many should be there by now
-- (null: nobody can say), when those were due that are not there, and how many should be gone.
create function backup.retention_standing()
returns table (
  tier text, keep interval, backups bigint, oldest_at timestamptz, newest_at timestamptz, expected bigint, missing timestamptz[],
  overdue bigint
)
language plpgsql
stable
-- the planner takes each of the functions for a thousand rows, and would compile for seconds what runs for milliseconds
set jit = off
set search_path = ''
as $$
#variable_conflict use_column
begin
  return query
    with there as (
      -- a month's backup is of any tier
      select p.tier, r.consistent_at, r.request_key
      from backup.policies as p
      join backup.runs as r on r.kind in ('full', 'incremental')
        and (p.tier = any (r.tiers) or (p.tier in ('monthly', 'yearly') and r.kind = 'full'))
        and (r.status in ('succeeded', 'quarantined') or (r.kind = 'incremental' and r.status = 'copying'))
    ), due as (
      select p.tier, e.due_at, exists (
        select from there as t
        where t.tier = p.tier and case
          -- the hour whose segments it owns
          when p.tier = 'hourly' then t.request_key like '%:' || pg_catalog.to_char(e.due_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24')
          else t.consistent_at >= e.due_at and t.consistent_at < e.until
        end
      ) as is_there
      from backup.policies as p, lateral backup.expected_backups(p.tier) as e
    )
    select p.tier, p.keep,
      (select count(*) from there as t where t.tier = p.tier and p.tier not in ('monthly', 'yearly')),
      (select min(t.consistent_at) from there as t where t.tier = p.tier and p.tier not in ('monthly', 'yearly')),
      (select max(t.consistent_at) from there as t where t.tier = p.tier and p.tier not in ('monthly', 'yearly')),
      case when p.tier not in ('manual', 'safety') then (select count(*) from due as d where d.tier = p.tier) end,
      array(select d.due_at from due as d where d.tier = p.tier and not d.is_there order by d.due_at),
      (select count(*) from backup.overdue_backups() as o where p.tier = any (o.tiers))
    from backup.policies as p
    order by p.keep, p.tier;
end
$$;
comment on function backup.retention_standing() is 'Tier by tier: what is kept, what is missing, what should be gone.';
revoke all on function backup.retention_standing() from public;
