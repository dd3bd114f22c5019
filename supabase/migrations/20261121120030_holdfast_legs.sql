-- Restores that the function `restore` works on, leg by leg: the next one is sent when one is over, and again by the watchdog
-- where none came to its end.
-- Lock order: as of restores; backup.calls last.

-- Sends a leg, where the restore goes on; what keeps it from being sent fails the restore instead of the caller.
create function backup.launch_restore(id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores;
  told text;
  way_out text;
begin
  update backup.restores as r
  set next_leg_at = backup.clock_now() + interval '1 minute'
  where r.id = launch_restore.id and r.finished_at is null and r.next_leg_at is not null
  returning r.* into ours;
  if ours.id is null then
    return;
  end if;
  begin
    perform backup.invoke('restore', pg_catalog.jsonb_build_object('action', 'leg', 'restore', ours.id));
  exception
    when sqlstate 'HF002' then
      get stacked diagnostics told = message_text, way_out = pg_exception_hint;
      perform backup.end_restore(ours, 'setting_missing', told, nullif(way_out, ''));
  end;
end
$$;
revoke all on function backup.launch_restore(uuid) from public;

-- A leg is over and its restore is not: the next one is sent at once, or after `wait`. One that was asked to end ends now.
-- HF413 for an old token.
create function backup.rest_restore(id uuid, token bigint, wait interval default '0') returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores := backup.held_restore(id, token);
begin
  if ours.cancel_requested_at is not null then
    perform backup.end_restore(ours, 'cancelled', null, null);
    return;
  end if;
  update backup.restores as r
  set worker = null, lease_until = backup.clock_now() - interval '1 millisecond', heartbeat_at = backup.clock_now(),
    legs_begun = 0, next_leg_at = backup.clock_now() + rest_restore.wait
  where r.id = ours.id;
  if rest_restore.wait <= interval '0' then
    perform backup.launch_restore(ours.id);
  end if;
end
$$;
revoke all on function backup.rest_restore(uuid, bigint, interval) from public;

-- Puts the rows that a restore left beside into place, by legs of the function. `target`: the name of this database, typed by
-- whoever wants it; HF513 (confirmation_wrong) for any other. `options`: {safety, fireTriggers}. HF414, HF415 as claim_restore,
-- and HF415 while a worker is at it, and for one that no function began: what it was asked for, only the CLI knows.
create function backup.order_apply(id uuid, mode text, target text, options jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if order_apply.target is distinct from pg_catalog.current_database() then
    raise exception 'this database is not called that'
      using errcode = 'HF513', hint = pg_catalog.format('Its name is %s.', pg_catalog.current_database());
  elsif exists (select from backup.restores as r where r.id = order_apply.id and r.next_leg_at is null) then
    raise exception 'restore % was begun by the CLI', order_apply.id
      using errcode = 'HF415', hint = 'Run the command that began it again, with --apply.';
  elsif backup.claim_restore(order_apply.id, 'order', interval '1 second', false, order_apply.mode) is null then
    raise exception 'restore % is at work', order_apply.id using errcode = 'HF415';
  end if;
  update backup.restores as r
  set state = (r.state - 'readBack') || order_apply.options, safety_run = null, worker = null,
    lease_until = backup.clock_now() - interval '1 millisecond', legs_begun = 0, next_leg_at = backup.clock_now()
  where r.id = order_apply.id;
end
$$;
revoke all on function backup.order_apply(uuid, text, text, jsonb) from public;

-- The safety backup of a restore that is to be put into place: orders a full one, once no other is under way, and says how it
-- stands: `waiting` for another one, else the status of its run; one that ended well stands in the restore's record. It began
-- after the restore was ordered. HF413 for an old token.
create function backup.restore_safety(id uuid, token bigint, out run uuid, out status text, out told text)
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores := backup.held_restore(id, token);
  key text := pg_catalog.format(
    'safety:%s:%s:', ours.id, pg_catalog.round(extract(epoch from ours.started_at) * 1000000)
  );
begin
  -- a request that joined another one's run has its key, but not its run
  select r.id, r.status, r.error_message into run, status, told
  from backup.runs as r where pg_catalog.starts_with(r.request_key, key);
  if run is null and exists (
    select from backup.runs as r
    where r.kind = 'full' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
  ) then
    status := 'waiting';
    return;
  elsif run is null then
    select q.run into run
    from backup.request_run(
      'full', array['safety'], 'http',
      key || (select count(*) from backup.run_requests as q where pg_catalog.starts_with(q.request_key, key))
    ) as q;
    perform backup.launch_run(run);
    status := 'waiting';
  elsif status in ('succeeded', 'quarantined') then
    update backup.restores as r set safety_run = restore_safety.run where r.id = ours.id;
  end if;
end
$$;
revoke all on function backup.restore_safety(uuid, bigint) from public;

-- Each minute: legs for restores whose last one was lost, or whose wait is over. Returns how many.
create function backup.revive_restores() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  waiting record;
  sent integer := 0;
begin
  for waiting in
    select r.id
    from backup.restores as r
    where r.finished_at is null and r.next_leg_at <= backup.clock_now() and r.lease_until < backup.clock_now()
    order by r.next_leg_at
    limit 100
    for no key update skip locked
  loop
    perform backup.launch_restore(waiting.id);
    sent := sent + 1;
  end loop;
  return sent;
end
$$;
revoke all on function backup.revive_restores() from public;
