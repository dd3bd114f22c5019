-- What people call at the Supabase dashboard (SQL editor, role postgres), and how verifying goes on from leg to leg.
--   select * from backup.start_backup();                      a backup now
--   select * from public.backup_runs order by created_at desc limit 10;
--   select * from backup.verify_backup('<id>');               read every object of a backup again
--   select backup.hold_backup('<id>', 'why', now() + interval '1 year');     select backup.release_hold('<id>');
--   select backup.accept_run('<id>', 'why');                  a quarantined backup is good after all

-- Requests a backup and sends its first leg. One that is under way is joined: same id, and `joined` says so.
-- `tier` says how long it is kept: manual, daily, weekly or safety.
create function backup.start_backup(
  tier text default 'manual', out run uuid, out joined boolean, out status text, out message text
)
language plpgsql
volatile
set search_path = ''
as $$
begin
  if tier is null or tier not in ('manual', 'daily', 'weekly', 'safety') then
    raise exception 'a backup is of tier manual, daily, weekly or safety' using errcode = 'HF003';
  end if;
  select r.run, r.joined into start_backup.run, start_backup.joined
  from backup.request_run('full', array[tier], 'dashboard', null) as r;
  perform backup.launch_run(start_backup.run);
  select
    r.status,
    case
      when r.status = 'failed' then pg_catalog.concat_ws(' ', r.error_message || '.', r.hint)
      when start_backup.joined then 'a backup is under way already; this request joined it'
      else 'started; look at public.backup_runs'
    end
  into start_backup.status, start_backup.message
  from backup.runs as r where r.id = start_backup.run;
end
$$;
comment on function backup.start_backup(text) is 'Starts a backup now, or joins the one that is under way.';
revoke all on function backup.start_backup(text) from public;

-- Requests that every object of a backup is read, opened, hashed and counted again. A verification of the same backup
-- that is under way is joined. HF303 (backup_not_found) when there is no such backup.
create function backup.request_verification(id uuid, origin text, out run uuid, out joined boolean)
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform from backup.runs as r
  where r.id = request_verification.id and r.kind = 'full' and r.status in ('succeeded', 'quarantined')
  for no key update;
  if not found then
    raise exception 'there is no backup %', request_verification.id using errcode = 'HF303';
  end if;
  select r.id into run
  from backup.runs as r
  where r.kind = 'verify' and r.subject_run = request_verification.id and r.origin <> 'cli'
    and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
  order by r.created_at
  limit 1;
  joined := run is not null;
  if not joined then
    select r.run into run
    from backup.request_run('verify', '{}', request_verification.origin, null, request_verification.id) as r;
  end if;
end
$$;
revoke all on function backup.request_verification(uuid, text) from public;

-- The newest backup, where it is good and nobody has verified it, is verified whole; once in 20 hours, since one that was looked at and
-- is not sound has its alert. One of the CLI may lie in another store: `holdfast verify` and `holdfast checks run` do that. Returns
-- the run, null where none was ordered.
create function backup.verify_newest() returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  newest backup.runs;
  run uuid;
begin
  select r.* into newest from backup.runs as r
  where r.kind = 'full' and r.status = 'succeeded' order by r.consistent_at desc limit 1;
  if newest.id is null or newest.verified_at is not null or newest.origin = 'cli' or exists (
    select from backup.runs as v
    where v.kind = 'verify' and v.subject_run = newest.id and v.created_at between moment - interval '20 hours' and moment
  ) then
    return null;
  end if;
  select v.run into run from backup.request_verification(newest.id, 'schedule') as v;
  perform backup.launch_run(run);
  return run;
end
$$;
revoke all on function backup.verify_newest() from public;

create function backup.verify_backup(id uuid, out run uuid, out joined boolean, out status text, out message text)
language plpgsql
volatile
set search_path = ''
as $$
begin
  select v.run, v.joined into verify_backup.run, verify_backup.joined
  from backup.request_verification(verify_backup.id, 'dashboard') as v;
  perform backup.launch_run(verify_backup.run);
  select
    r.status,
    case
      when r.status = 'failed' then pg_catalog.concat_ws(' ', r.error_message || '.', r.hint)
      else 'started; its end is verified_at of the backup in public.backup_runs, or an alert'
    end
  into verify_backup.status, verify_backup.message
  from backup.runs as r where r.id = verify_backup.run;
end
$$;
comment on function backup.verify_backup(uuid) is 'Reads every object of a backup again.';
revoke all on function backup.verify_backup(uuid) from public;

-- A leg of a verification is through: `leg` is what src/shared/verify found, `next` where the following leg starts. The
-- task keeps it under its lease. Returns true while work is left; at the end the run has succeeded, which says that
-- everything was looked at: what was wrong is in the task's result and raises an alert for the backup.
create function backup.record_verify_leg(task bigint, token bigint, leg jsonb) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.tasks := backup.leased_task(task, token);
  legs jsonb := coalesce(ours.detail -> 'legs', '[]') || pg_catalog.jsonb_build_array(record_verify_leg.leg);
  problems jsonb;
begin
  if ours.kind <> 'verify' then
    raise exception 'task % verifies nothing', record_verify_leg.task using errcode = 'HF415';
  end if;
  update backup.tasks as t
  set detail = pg_catalog.jsonb_build_object('next', leg -> 'next', 'legs', legs)
  where t.id = ours.id;
  if leg ->> 'next' is not null then
    perform backup.return_task(task, token, null);
    return true;
  end if;
  problems := coalesce(
    (
      select pg_catalog.jsonb_agg(p.problem)
      from pg_catalog.jsonb_array_elements(legs) as l (found),
        pg_catalog.jsonb_array_elements(l.found -> 'problems') as p (problem)
    ),
    '[]'
  );
  perform backup.complete_task(task, token, pg_catalog.jsonb_build_object('problems', problems));
  update backup.runs as r
  set status = 'succeeded', finished_at = greatest(backup.clock_now(), r.started_at), complete_at = backup.clock_now()
  where r.id = ours.run_id;
  perform backup.record_verification(r.subject_run, problems) from backup.runs as r where r.id = ours.run_id;
  perform backup.resolve_alert('verification_failed', 'kind:verify');
  return false;
end
$$;
revoke all on function backup.record_verify_leg(bigint, bigint, jsonb) from public;
