-- The day after a full restore in place: failures are counted each hour, beside those of the day before it, and the user's
-- smoke queries are run. Counts stand here, and no text of a failure. Lock order: the row of one watch → the advisory lock of
-- its smoke queries (tried, not waited for) → alerts and audit.

create table backup.restore_watches (
  restore_id uuid primary key references backup.restores (id) on delete cascade,
  begun_at timestamptz not null,
  until timestamptz not null,
  -- failures up to here are in `since`
  counted_at timestamptz not null,
  -- the newest of pg_cron's runs when it was counted: one that could not be started bears no time
  counted_run bigint not null default 0,
  -- {runs, jobs, answers}: of the day before; a kind that cannot be read is missing
  before jsonb not null,
  since jsonb not null default '{}',
  -- {queries, runs, passed, failed, broke, last_error}: of the user's smoke queries; null: none were given
  smoke jsonb,
  -- kinds that are clearly worse: more than twice as many, and at least five; `smoke`: a query failed that was good before
  worse text[] not null default '{}',
  status text not null default 'watching',
  constraint status_is_known check (status in ('watching', 'calm', 'worse')),
  constraint counts_are_objects check (
    jsonb_typeof(before) = 'object' and jsonb_typeof(since) = 'object' and coalesce(jsonb_typeof(smoke), 'object') = 'object'
  ),
  constraint counted_at_is_within_the_watch check (counted_at between begun_at and until),
  constraint ended_watch_has_counted_to_its_end check (status = 'watching' or counted_at = until),
  constraint ended_watch_says_what_is_worse check (status = 'watching' or (status = 'worse') = (worse <> '{}'))
);
comment on table backup.restore_watches is
  'Failures in the day after a full restore in place, beside those of the day before it.';
alter table backup.restore_watches enable row level security;
revoke all on table backup.restore_watches from public;

create function backup.may_read(schema_name text, table_name text) returns boolean
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = schema_name and c.relname = table_name
  ), false)
$$;
revoke all on function backup.may_read(text, text) from public;

-- How long pg_net keeps answers.
create function backup.answers_kept() returns interval
language sql
stable
set search_path = ''
as $$
  select coalesce(nullif(pg_catalog.current_setting('pg_net.ttl', true), '')::interval, interval '6 hours')
$$;
revoke all on function backup.answers_kept() from public;

-- pg_cron's newest run before which all have begun or failed; 0 where there is none, or its table may not be read. Its table is
-- the user's too, may have millions of rows, and its only index is of the numbers: of the last 10,000 runs one may still have to
-- begin, what is older never will.
create function backup.newest_cron_run() returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  if not backup.may_read('cron', 'job_run_details') then
    return 0;
  end if;
  return (
    select coalesce(
      min(d.runid) filter (where d.start_time is null and d.status not in ('failed', 'succeeded')) - 1, max(d.runid), 0
    )
    from cron.job_run_details as d
    where d.runid > (select max(n.runid) - 10000 from cron.job_run_details as n)
  );
end
$$;
revoke all on function backup.newest_cron_run() from public;

-- Failed runs of pg_cron, but for those of smoke queries, which are counted by themselves. Those that were not started bear
-- no time: they are the ones after `after_run`; null: those between the runs whose times enclose the two moments.
create function backup.failed_cron_runs(from_moment timestamptz, to_moment timestamptz, after_run bigint) returns bigint
-- not sql: its body would be read where there is no pg_cron
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
  with runs as (
    select d.runid, d.status = 'failed' as failed, coalesce(d.end_time, d.start_time) as moment
    from cron.job_run_details as d
    where d.command is null or d.command !~ 'select backup\.try_smoke\('
  )
  select count(*)
  from runs as r
  where r.failed and case
    when r.moment is not null then r.moment >= from_moment and r.moment < to_moment
    when after_run is not null then r.runid > after_run and r.runid <= backup.newest_cron_run()
    else r.runid > coalesce((select max(b.runid) from runs as b where b.moment < from_moment), 0)
      and r.runid < coalesce(
        (select min(a.runid) from runs as a where a.moment >= to_moment), (select max(n.runid) + 1 from runs as n)
      )
  end
  );
end
$$;
revoke all on function backup.failed_cron_runs(timestamptz, timestamptz, bigint) from public;

-- Failures from one moment to another, by kind: `runs` of ours; `jobs` of pg_cron, ours and the user's; `answers` of pg_net
-- that were 4xx or 5xx, timed out or never came. A kind whose table is not there, or may not be read, is missing, and so are
-- answers that are kept too briefly to be counted. `after_run`: as of failed_cron_runs().
create function backup.failures_between(
  from_moment timestamptz, to_moment timestamptz, after_run bigint default null
) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  found bigint;
  counts jsonb;
begin
  select count(*) into found
  from backup.runs as r
  where r.status = 'failed' and r.finished_at >= from_moment and r.finished_at < to_moment;
  counts := pg_catalog.jsonb_build_object('runs', found);
  if backup.may_read('cron', 'job_run_details') then
    counts := counts || pg_catalog.jsonb_build_object(
      'jobs', backup.failed_cron_runs(from_moment, to_moment, after_run)
    );
  end if;
  if backup.may_read('net', '_http_response') and backup.answers_kept() >= interval '10 minutes' then
    select count(*) into found
    from net._http_response as a
    where a.created >= from_moment and a.created < to_moment
      and (a.timed_out or a.status_code is null or a.status_code >= 400);
    counts := counts || pg_catalog.jsonb_build_object('answers', found);
  end if;
  return counts;
end
$$;
revoke all on function backup.failures_between(timestamptz, timestamptz, bigint) from public;

-- Of the 24 hours before the moment. pg_net keeps answers for some hours only: those that are left are taken for the whole
-- day; none are known when they are all gone.
create function backup.failures_before(moment timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  known interval := least(interval '24 hours', moment - (backup.clock_now() - backup.answers_kept()));
  counts jsonb := backup.failures_between(moment - interval '24 hours', moment);
  answers numeric;
begin
  if known <= interval '0' then
    return counts - 'answers';
  elsif counts ? 'answers' then
    answers := (backup.failures_between(moment - known, moment) ->> 'answers')::numeric
      * 86400 / extract(epoch from known);
    counts := counts || pg_catalog.jsonb_build_object('answers', pg_catalog.round(answers));
  end if;
  return counts;
end
$$;
revoke all on function backup.failures_before(timestamptz) from public;

-- Each minute: begins a watch for every full restore in place that went well here within the last day, counts each hour
-- (more often where pg_net keeps answers more briefly than that), and closes the watch after 24 hours: its result is in the audit. An alert as soon as a kind is clearly worse; it goes once
-- the day is over and somebody has acknowledged it, and so does one of smoke queries. Returns how many watches were counted.
create function backup.watch_recoveries() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  -- what is counted is 5 minutes old and more, and has to be there still
  pause constant interval := greatest(
    interval '6 minutes', least(interval '65 minutes', backup.answers_kept() - interval '2 minutes')
  );
  newest_run constant bigint := backup.newest_cron_run();
  watch backup.restore_watches;
  -- what happened a moment ago may not be written down yet
  up_to timestamptz;
  counted integer := 0;
  numbers text[];
begin
  for watch in
    insert into backup.restore_watches (restore_id, begun_at, until, counted_at, counted_run, before, smoke)
    select
      r.id, r.finished_at, r.finished_at + interval '24 hours', r.finished_at, newest_run,
      backup.failures_before(r.started_at),
      backup.smoke_counts(r.id)
    from backup.restores as r
    where r.scope in ('full', 'point') and r.mode <> 'beside' and r.status = 'succeeded' and r.target_is_here
      and r.finished_at > moment - interval '24 hours'
    on conflict (restore_id) do nothing
    returning *
  loop
    perform backup.begin_smokes(watch.restore_id);
  end loop;
  for watch in
    select w.*
    from backup.restore_watches as w
    where w.status = 'watching' and w.counted_at <= moment - pause
      or w.status = 'watching' and w.until <= moment - interval '5 minutes'
    order by w.begun_at
    for no key update skip locked
  loop
    up_to := least(watch.until, moment - interval '5 minutes');
    -- a run of the smoke queries is to be in the result
    continue when up_to = watch.until and not backup.end_smokes(watch.restore_id);
    update backup.restore_watches as w
    set counted_at = up_to,
      counted_run = greatest(w.counted_run, newest_run),
      since = (
        select pg_catalog.jsonb_object_agg(n.key, n.value::bigint + coalesce((w.since ->> n.key)::bigint, 0))
        from pg_catalog.jsonb_each_text(backup.failures_between(w.counted_at, up_to, w.counted_run)) as n
      ),
      smoke = backup.smoke_counts(w.restore_id)
    where w.restore_id = watch.restore_id
    returning w.* into watch;
    update backup.restore_watches as w
    set worse = array(
        select n.key from pg_catalog.jsonb_each_text(w.since) as n
        where n.value::bigint >= 5 and n.value::bigint > 2 * (w.before ->> n.key)::bigint
        union all
        select 'smoke' where (w.smoke ->> 'broke')::bigint > 0
        order by 1
      )
    where w.restore_id = watch.restore_id
    returning w.* into watch;
    numbers := pg_catalog.array_remove(watch.worse, 'smoke');
    if numbers <> '{}' then
      perform backup.raise_alert(
        'restore_worse', 'restore:' || watch.restore_id,
        'more failures since the restore in place than in the day before it: ' || (
          select pg_catalog.string_agg(
            pg_catalog.format('%s %s, not %s', kind, watch.since ->> kind, watch.before ->> kind), '; ' order by kind
          )
          from pg_catalog.unnest(numbers) as w (kind)
        )
      );
    end if;
    if up_to = watch.until then
      update backup.restore_watches as w
      set status = case when w.worse = '{}' then 'calm' else 'worse' end
      where w.restore_id = watch.restore_id;
      perform backup.audit(
        'restore.watched', 'restore:' || watch.restore_id,
        pg_catalog.jsonb_build_object(
          'before', watch.before, 'since', watch.since, 'smoke', watch.smoke, 'worse', watch.worse
        )
      );
    end if;
    counted := counted + 1;
  end loop;
  perform backup.tend_smokes();
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a
  where a.kind in ('restore_worse', 'smoke_failed') and a.status = 'acknowledged'
    and not exists (
      select from backup.restore_watches as w
      where a.subject = 'restore:' || w.restore_id and w.status = 'watching'
    );
  return counted;
end
$$;
revoke all on function backup.watch_recoveries() from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_restore_watches with (security_invoker = true) as
select w.restore_id, w.begun_at, w.until, w.counted_at, w.before, w.since, w.smoke, w.worse, w.status
from backup.restore_watches as w;
comment on view public.backup_restore_watches is
  'Holdfast: the day after a full restore in place. Administrators with a second factor only.';
revoke all on table public.backup_restore_watches from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_restore_watches from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_watches on backup.restore_watches
    for select to authenticated using ((select backup.is_admin()));
  grant select (restore_id, begun_at, until, counted_at, before, since, smoke, worse, status)
    on backup.restore_watches to authenticated;
  grant select on table public.backup_restore_watches to authenticated;
end
$$;
