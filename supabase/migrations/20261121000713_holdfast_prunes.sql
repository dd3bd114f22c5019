-- When there is a prune: asked for, by the job of each hour, and the watchdog's look for one that never came.

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
