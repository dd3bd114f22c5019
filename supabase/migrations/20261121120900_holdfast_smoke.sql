-- Smoke queries: SQL of the user's own that was given to a full restore in place, run each hour of the day after it. A job of
-- pg_cron's own runs them, so that one that hangs holds up no tick. Their text stands here until the day is over; of what they
-- return nothing does. Lock order: the advisory lock of smoke_key() → the rows of one restore → alerts and audit.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('smoke_seconds', 'integer', '30', 1, 300, 'how long one smoke query may take, each hour of the day after a restore');

create table backup.restore_smokes (
  restore_id uuid not null references backup.restores (id) on delete cascade,
  -- its place in the user's file, and the line that it begins in, from 1
  number integer not null,
  line integer not null,
  -- null once the day is over
  statement text,
  -- it went through at the restore, or since
  was_good boolean not null,
  passed integer not null default 0,
  failed integer not null default 0,
  -- failures of one that was good before
  broke integer not null default 0,
  -- the last try was a failure
  failing boolean not null default false,
  -- an SQLSTATE; not_ok where a row said so
  last_error text,
  failed_at timestamptz,
  primary key (restore_id, number),
  constraint place_is_counted_from_one check (number >= 1 and line >= 1),
  constraint statement_is_of_some_length check (length(statement) between 1 and 100000),
  constraint counts_are_not_negative check (passed >= 0 and failed >= 0 and broke between 0 and failed),
  constraint last_error_is_a_code check (last_error ~ '^([0-9A-Z]{5}|not_ok)$'),
  constraint failure_says_why_and_when check ((failed > 0) = (last_error is not null) and (failed > 0) = (failed_at is not null))
);
comment on table backup.restore_smokes is
  'The user''s own queries after a full restore in place: how often each went through, and how often not.';
alter table backup.restore_smokes enable row level security;
revoke all on table backup.restore_smokes from public;

create function backup.smoke_job(restore uuid) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select 'holdfast-smoke-' || pg_catalog.left(restore::text, 8)
$$;
revoke all on function backup.smoke_job(uuid) from public;

-- Of the advisory lock that a run holds to its end.
create function backup.smoke_key(restore uuid) returns bigint
language sql
immutable
strict
set search_path = ''
as $$
  select pg_catalog.hashtextextended('holdfast:smoke:' || restore, 0)
$$;
revoke all on function backup.smoke_key(uuid) from public;

-- Keeps them for the day after the restore: [{number, line, text}], at most 100, in place of those that were kept before.
-- `were_good`: all of them went through at the restore. False where nothing here can run them. HF414 when there is no such
-- restore, HF003 for more of them.
create function backup.keep_smokes(restore uuid, statements jsonb, were_good boolean) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (select from backup.restores as r where r.id = keep_smokes.restore) then
    raise exception 'there is no restore %', keep_smokes.restore using errcode = 'HF414';
  elsif pg_catalog.jsonb_array_length(statements) > 100 then
    raise exception '% smoke queries are more than 100', pg_catalog.jsonb_array_length(statements) using errcode = 'HF003';
  end if;
  delete from backup.restore_smokes as q where q.restore_id = keep_smokes.restore;
  insert into backup.restore_smokes (restore_id, number, line, statement, was_good)
  select keep_smokes.restore, s.number, s.line, s.text, were_good
  from pg_catalog.jsonb_to_recordset(statements) as s (number integer, line integer, text text);
  return pg_catalog.to_regclass('cron.job') is not null;
end
$$;
revoke all on function backup.keep_smokes(uuid, jsonb, boolean) from public;

-- The day begins: a job runs them in the next minute, then each hour. pg_cron's workers heed no statement_timeout of the job's
-- own; tend_smokes() is for them. Returns whether there is a job; where pg_cron refuses one, an alert says so.
create function backup.begin_smokes(restore uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  command text;
  state text;
begin
  if pg_catalog.to_regclass('cron.job') is null then
    return false;
  end if;
  select
    pg_catalog.format('set statement_timeout = %L; ', backup.setting_integer('smoke_seconds') || 's')
    || pg_catalog.string_agg(
      pg_catalog.format('select backup.try_smoke(%L, %s); ', q.restore_id, q.number), '' order by q.number
    )
    || pg_catalog.format('select backup.tell_smokes(%L)', begin_smokes.restore)
  into command
  from backup.restore_smokes as q
  where q.restore_id = begin_smokes.restore and q.statement is not null;
  if command is null then
    return false;
  end if;
  perform cron.schedule(
    backup.smoke_job(restore),
    pg_catalog.format('%s * * * *', (extract(minute from backup.clock_now())::integer + 1) % 60),
    command
  );
  return true;
exception
  when others then
    get stacked diagnostics state = returned_sqlstate;
    perform backup.raise_alert(
      'smoke_failed', 'restore:' || restore,
      pg_catalog.format('pg_cron takes no job for the smoke queries after the restore (SQLSTATE %s)', state)
    );
    return false;
end
$$;
revoke all on function backup.begin_smokes(uuid) from public;

-- Runs one, read-only, with the role's own search_path, and counts how it went. It fails with an error, with a row whose only
-- column `ok` is false, and when it took longer than smoke_seconds. Whatever it set is undone.
create function backup.try_smoke(restore uuid, number integer) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  own_path constant text := (select s.reset_val from pg_catalog.pg_settings as s where s.name = 'search_path');
  longest constant interval := backup.setting_integer('smoke_seconds') * interval '1 second';
  begun timestamptz;
  smoke text;
  results refcursor;
  seen record;
  went_to_its_end boolean := false;
  problem text;
begin
  perform pg_catalog.pg_advisory_xact_lock(backup.smoke_key(restore));
  select q.statement into smoke
  from backup.restore_smokes as q
  where q.restore_id = restore and q.number = try_smoke.number;
  if smoke is null then
    return;
  end if;
  -- by which tend_smokes() knows it
  perform pg_catalog.set_config('application_name', backup.smoke_job(restore), false);
  begun := pg_catalog.clock_timestamp();
  begin
    perform pg_catalog.set_config('search_path', own_path, true);
    perform pg_catalog.set_config('transaction_read_only', 'on', true);
    if smoke ~* '^[(\s]*(select|with|values|table)\M' then
      open results no scroll for execute smoke;
      loop
        fetch results into seen;
        exit when not found;
        if pg_catalog.row_to_json(seen)::text = '{"ok":false}' then
          problem := 'not_ok';
          exit;
        end if;
      end loop;
    else
      execute smoke;
    end if;
    went_to_its_end := true;
    -- what turned the rest of the transaction read-only goes with this block
    raise exception 'undone';
  exception
    when query_canceled or assert_failure or others then
      if not went_to_its_end then
        get stacked diagnostics problem = returned_sqlstate;
      end if;
  end;
  if problem is null and pg_catalog.clock_timestamp() > begun + longest then
    problem := '57014';
  end if;
  update backup.restore_smokes as q
  set passed = q.passed + (problem is null)::integer,
    failed = q.failed + (problem is not null)::integer,
    broke = q.broke + (problem is not null and q.was_good)::integer,
    was_good = q.was_good or problem is null,
    failing = problem is not null,
    last_error = coalesce(problem, q.last_error),
    failed_at = case when problem is null then q.failed_at else backup.clock_now() end
  where q.restore_id = restore and q.number = try_smoke.number;
end
$$;
revoke all on function backup.try_smoke(uuid, integer) from public;

-- After a run: an alert while one fails that was good before. Returns how many do; nothing is told once the day is over.
create function backup.tell_smokes(restore uuid) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  tried integer;
  failing integer;
  told text;
begin
  select count(*), count(*) filter (where q.failing and q.was_good), pg_catalog.string_agg(
      pg_catalog.format(
        'statement %s (line %s): %s', q.number, q.line,
        case q.last_error
          when 'not_ok' then 'a row says that it is not ok'
          when '57014' then 'not done in time'
          else 'SQLSTATE ' || q.last_error
        end
      ),
      '; ' order by q.number
    ) filter (where q.failing and q.was_good)
  into tried, failing, told
  from backup.restore_smokes as q
  where q.restore_id = restore and q.statement is not null;
  if failing > 0 then
    perform backup.raise_alert(
      'smoke_failed', 'restore:' || restore,
      'smoke queries fail that went through since the restore: ' || pg_catalog.left(told, 500)
    );
  elsif tried > 0 then
    perform backup.resolve_alert('smoke_failed', 'restore:' || restore);
  end if;
  return failing;
end
$$;
revoke all on function backup.tell_smokes(uuid) from public;

-- What the watch keeps of them: {queries, runs, passed, failed, broke, last_error}; null: none were given.
create function backup.smoke_counts(restore uuid) returns jsonb
language sql
stable
set search_path = ''
as $$
  select case when count(*) > 0 then
    pg_catalog.jsonb_build_object(
      'queries', count(*), 'runs', max(q.passed + q.failed), 'passed', sum(q.passed), 'failed', sum(q.failed),
      'broke', sum(q.broke),
      'last_error', (pg_catalog.array_agg(q.last_error order by q.failed_at desc nulls last, q.number))[1]
    )
  end
  from backup.restore_smokes as q
  where q.restore_id = smoke_counts.restore
$$;
revoke all on function backup.smoke_counts(uuid) from public;

-- The day is over: their text goes, and with the next tend_smokes() the job. False, and nothing done, while a run is under way.
create function backup.end_smokes(restore uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not pg_catalog.pg_try_advisory_xact_lock(backup.smoke_key(restore)) then
    return false;
  end if;
  update backup.restore_smokes as q set statement = null where q.restore_id = restore and q.statement is not null;
  return true;
end
$$;
revoke all on function backup.end_smokes(uuid) from public;

-- Each minute: jobs that have nothing to run go, and a run that takes longer than its queries may together is told to leave the
-- one that it is at; one that does not heed that, two minutes a query later, is ended. Returns how many runs were told.
create function backup.tend_smokes() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  longest constant interval := backup.setting_integer('smoke_seconds') * interval '1 second';
  told integer;
begin
  if pg_catalog.to_regclass('cron.job') is null then
    return 0;
  end if;
  perform cron.unschedule(j.jobid)
  from cron.job as j
  where j.username = current_user and j.jobname ~ '^holdfast-smoke-[0-9a-f]{8}$'
    and not exists (
      select from backup.restore_smokes as q
      where q.statement is not null and backup.smoke_job(q.restore_id) = j.jobname
    );
  select count(*) filter (
      where case
        when a.query_start < pg_catalog.clock_timestamp() - smokes.number * (longest + interval '2 minutes')
          then pg_catalog.pg_terminate_backend(a.pid)
        else pg_catalog.pg_cancel_backend(a.pid)
      end
    ) into told
  from pg_catalog.pg_stat_activity as a
  join (
    select backup.smoke_job(q.restore_id) as job, count(*) as number
    from backup.restore_smokes as q
    where q.statement is not null
    group by q.restore_id
  ) as smokes on smokes.job = a.application_name
  where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid()
    and a.state = 'active' and a.query_start < pg_catalog.clock_timestamp() - smokes.number * longest;
  return told;
end
$$;
revoke all on function backup.tend_smokes() from public;
