-- Heartbeats to an outside watcher, and what the minute's job calls. Lock order: backup.pulse → as in `notices`.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('heartbeat_seconds', 'integer', '300', 60, 86400, 'time between two heartbeats to the outside watcher');

-- Heartbeats --------------------------------------------------------------------------------------------------------------

-- Why the outside watcher is not told that all is well; null: it is. Well is: no copy, the watchdog went through in the last five
-- minutes, and every critical alert has been acknowledged.
create function backup.not_well() returns text
language sql
stable
set search_path = ''
as $$
  select case
    when not backup.is_original() then 'this database is a copy, or may be one'
    when not exists (
      select from backup.pulse as p where p.ticked_at between backup.clock_now() - interval '5 minutes' and backup.clock_now() + interval '5 minutes'
    ) then 'the watchdog has not gone through for five minutes'
    else (
      select pg_catalog.format('a critical alert is open: %s, %s', a.kind, a.subject)
      from backup.alerts as a where a.status = 'open' and a.severity = 'critical'
      order by a.opened_at, a.id
      limit 1
    )
  end
$$;
revoke all on function backup.not_well() from public;

-- Is a heartbeat due?
create function backup.heartbeat_is_due() returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (select from backup.channels as c where c.name = 'heartbeat' and c.gone_at is null and c.problem is null)
    and exists (
      select from backup.pulse as p
      where p.beaten_at is null or p.beaten_at > backup.clock_now()
        -- the job comes once a minute: a heartbeat is never late for some seconds
        or p.beaten_at <= backup.clock_now() - backup.setting_integer('heartbeat_seconds') * interval '1 second' + interval '30 seconds'
    )
    and backup.not_well() is null
$$;
revoke all on function backup.heartbeat_is_due() from public;

-- Takes the heartbeat that is due. False: none is, or another one has it.
create function backup.take_heartbeat() returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform from backup.pulse as p for update;
  if not backup.heartbeat_is_due() then
    return false;
  end if;
  update backup.pulse as p set beaten_at = backup.clock_now();
  return true;
end
$$;
revoke all on function backup.take_heartbeat() from public;

-- What became of it; one that failed is due again with the next minute.
create function backup.record_heartbeat(failure text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if record_heartbeat.failure is not null then
    update backup.pulse as p set beaten_at = null;
  end if;
  perform backup.note_channel('heartbeat', pg_catalog.left(record_heartbeat.failure, 500));
end
$$;
revoke all on function backup.record_heartbeat(text) from public;

-- The function ------------------------------------------------------------------------------------------------------------

-- What the cron job calls each minute: tells alerts, and calls the function `notify` where something is due, and once an hour, which
-- tells what is set up. Where no function can be called `holdfast alerts deliver` does it.
create function backup.call_notify() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
begin
  perform backup.tell_alerts();
  if not backup.deliveries_are_due() and not backup.heartbeat_is_due() and exists (
    select from backup.pulse as p where p.called_at between moment - interval '1 hour' and moment
  ) then
    return null;
  end if;
  update backup.pulse as p set called_at = moment;
  begin
    return backup.invoke('notify', '{"action": "deliver"}');
  exception
    when sqlstate 'HF002' then
      return null;
  end;
end
$$;
revoke all on function backup.call_notify() from public;

-- The function's work is over; `failure`: what kept it from its work, {code, message}. What is left is delivered at once by the next.
create function backup.end_notify(nonce text, failure jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.end_call(end_notify.nonce, coalesce(failure ->> 'code', 'done'));
  if failure is not null then
    perform backup.raise_alert(
      'notify_failed', 'function:notify',
      pg_catalog.format('people could not be told: %s (%s)', failure ->> 'message', failure ->> 'code'), 'warning'
    );
    return;
  end if;
  perform backup.resolve_alert('notify_failed', 'function:notify');
  if backup.deliveries_are_due() then
    perform backup.invoke('notify', '{"action": "deliver"}');
  end if;
end
$$;
revoke all on function backup.end_notify(text, jsonb) from public;

-- Sends a real message by each channel, or by one, and calls the function. What came of it stands in public.backup_deliveries within
-- a minute. Returns the id of the notice. HF415 (run_state) in a copy, which tells nobody anything; HF008 (not_found) where the
-- channel is not set up.
create function backup.test_channels(channel text default null) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  notice_id bigint;
begin
  if not backup.may_tell('test') then
    raise exception 'this database is a copy: it tells nobody anything'
      using errcode = 'HF415', hint = '`holdfast status` says whose copy it is.';
  elsif test_channels.channel is not null and not exists (
    select from backup.channels as c where c.name = test_channels.channel and c.gone_at is null
  ) then
    raise exception 'the channel % is not set up', test_channels.channel
      using errcode = 'HF008', hint = 'docs/alerts.md says which settings make one.';
  end if;
  insert into backup.notices (event, kind, subject, severity, message, to_channels)
  values (
    'test', 'test', 'channels', 'information', 'This is a test of the channels by which Holdfast tells of alerts. Nothing is wrong.',
    case when test_channels.channel is not null then array[test_channels.channel] end
  )
  returning id into notice_id;
  perform backup.plan_deliveries();
  perform backup.audit('channel.tested', 'notice:' || notice_id, '{}');
  begin
    perform backup.invoke('notify', '{"action": "deliver"}');
  exception
    when sqlstate 'HF002' then
      null;
  end;
  return notice_id;
end
$$;
comment on function backup.test_channels(text) is 'Sends a real message by each channel that is set up.';
revoke all on function backup.test_channels(text) from public;
