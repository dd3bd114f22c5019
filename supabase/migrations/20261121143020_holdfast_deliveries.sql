-- How notices reach channels: told by whoever has a channel's secrets, claimed under a lease, tried again with growing pauses, each try on
-- record. Lock order: as in `notices`.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('delivery_hours', 'integer', '24', 1, 168, 'a notice that a channel did not take in this time is given up for it');

-- Channels ----------------------------------------------------------------------------------------------------------------

-- A channel works, or not: `failure` null or what went wrong. The second failure in a row is an alert, and so is a setting that is
-- wrong. A heartbeat that fails does not itself stop heartbeats.
create function backup.note_channel(channel text, failure text) returns void
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours backup.channels;
begin
  update backup.channels as c
  set failures = case when note_channel.failure is null then 0 else c.failures + 1 end, failure = note_channel.failure,
    last_ok_at = case when note_channel.failure is null then backup.clock_now() else c.last_ok_at end,
    last_failed_at = case when note_channel.failure is null then c.last_failed_at else backup.clock_now() end
  where c.name = note_channel.channel
  returning c.* into ours;
  if ours.failures = 0 and ours.problem is null then
    perform backup.resolve_alert('channel_failing', 'channel:' || note_channel.channel);
  elsif ours.failures >= 2 then
    perform backup.raise_alert(
      'channel_failing', 'channel:' || note_channel.channel,
      pg_catalog.format('%s (%s) did not take what was sent, %s times in a row: %s', ours.name, ours.target, ours.failures, ours.failure),
      case when ours.name = 'heartbeat' then 'warning' else 'critical' end
    );
  end if;
end
$$;
revoke all on function backup.note_channel(text, text) from public;

-- What is set up, as the function (`teller` function) or the CLI found it: [{name, target, problem}], without secrets. What this
-- teller had before and does not name now is gone; what waits for it is given up. Of a channel that the function has, and told of
-- within two hours, the CLI says nothing: somebody's terminal may lack its variables, or have wrong ones.
create function backup.tell_channels(teller text, told jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  one record;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:channels', 0));
  for one in
    select c.name from backup.channels as c
    where c.told_by = tell_channels.teller and c.gone_at is null
      and not exists (select from pg_catalog.jsonb_array_elements(told) as t (entry) where t.entry ->> 'name' = c.name)
    order by c.name
  loop
    update backup.channels as c set gone_at = moment, problem = null where c.name = one.name;
    update backup.deliveries as d
    set status = 'failed', ended_at = moment, lease_until = null, token = d.token + 1, failure = 'the channel is not set up any more'
    where d.channel = one.name and d.status in ('open', 'leased');
    perform backup.resolve_alert('channel_failing', 'channel:' || one.name);
    perform backup.audit('channel.gone', 'channel:' || one.name, pg_catalog.jsonb_build_object('by', teller));
  end loop;
  for one in
    select t.name, pg_catalog.left(t.target, 200) as target, pg_catalog.left(t.problem, 500) as problem, c.gone_at is null and c.name is not null as known,
      c.problem as problem_before
    from pg_catalog.jsonb_to_recordset(told) as t (name text, target text, problem text)
    left join backup.channels as c on c.name = t.name
    where teller = 'function' or not coalesce(
      c.told_by = 'function' and c.gone_at is null and c.told_at > moment - interval '2 hours' and c.told_at <= moment + interval '5 minutes', false
    )
    order by t.name
  loop
    insert into backup.channels as c (name, target, told_by, told_at, problem)
    values (one.name, one.target, teller, moment, one.problem)
    on conflict on constraint channels_pkey do update
      set target = excluded.target, told_by = excluded.told_by, told_at = excluded.told_at, problem = excluded.problem, gone_at = null,
        failures = case when c.gone_at is null then c.failures else 0 end;
    if not one.known then
      perform backup.audit('channel.set', 'channel:' || one.name, pg_catalog.jsonb_build_object('by', teller, 'target', one.target));
    end if;
    if one.problem is not null then
      perform backup.raise_alert(
        'channel_failing', 'channel:' || one.name, pg_catalog.format('%s is not set up as it should be: %s', one.name, one.problem),
        case when one.name = 'heartbeat' then 'warning' else 'critical' end
      );
    elsif one.problem_before is not null then
      perform backup.resolve_alert('channel_failing', 'channel:' || one.name);
    end if;
  end loop;
end
$$;
revoke all on function backup.tell_channels(text, jsonb) from public;

-- What channels need to know that is no secret: {install, project, database, contact, contactEmail, mailFrom, mailTo}.
create function backup.sender() returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'install', i.install_id, 'project', coalesce(i.present_ref, i.project_ref), 'database', pg_catalog.current_database(),
    'contact', backup.emergency_contact(),
    'contactEmail', (select s.value from backup.settings as s where s.name = 'contact_email'),
    'mailFrom', (select s.value from backup.settings as s where s.name = 'mail_from'),
    'mailTo', (select s.value from backup.settings as s where s.name = 'mail_to')
  )
  from backup.identity as i
$$;
revoke all on function backup.sender() from public;

-- Deliveries --------------------------------------------------------------------------------------------------------------

-- Is it somebody's turn? A pause lasts an hour at most, and a lease some minutes: what is further ahead is of another clock.
create function backup.delivery_is_due(status text, not_before timestamptz, lease_until timestamptz, moment timestamptz) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case status
    when 'open' then not_before <= moment or not_before > moment + interval '2 hours'
    when 'leased' then lease_until < moment or lease_until > moment + interval '2 hours'
    else false
  end
$$;
revoke all on function backup.delivery_is_due(text, timestamptz, timestamptz, timestamptz) from public;

-- A channel that failed rests for 30 s, 1, 2, 4 minutes, then 5 each time: were each of its messages tried in turn, a server that is
-- down for hours would be called without end. A test does not wait.
create function backup.channel_rests(failures integer, last_failed_at timestamptz, moment timestamptz) returns boolean
language sql
immutable
set search_path = ''
as $$
  select failures > 0 and last_failed_at <= moment + interval '5 minutes'
    and last_failed_at > moment - least(30 * pg_catalog.power(2, least(failures, 10) - 1), 300) * interval '1 second'
$$;
revoke all on function backup.channel_rests(integer, timestamptz, timestamptz) from public;

-- Is there something that a channel could be given now? One whose settings are wrong can be given nothing. A copy of the project keeps
-- all but its own alarm to itself.
create function backup.deliveries_are_due() returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from backup.deliveries as d
    join backup.notices as n on n.id = d.notice_id
    join backup.channels as c on c.name = d.channel and c.gone_at is null and c.problem is null
    where d.status in ('open', 'leased') and backup.delivery_is_due(d.status, d.not_before, d.lease_until, backup.clock_now())
      and (n.event = 'test' or not backup.channel_rests(c.failures, c.last_failed_at, backup.clock_now()))
      and backup.may_tell(n.kind)
  )
$$;
revoke all on function backup.deliveries_are_due() from public;

-- What no channel took in its time, and nobody tries any more: its settings are wrong, or it rests behind many others. An alert that
-- is open is told anew each day. Returns how many were given up.
create function backup.give_up_deliveries() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  given_up bigint;
begin
  update backup.deliveries as d
  set status = 'failed', ended_at = moment, failure = coalesce(d.failure, 'nobody could try it in its time')
  from backup.notices as n
  where n.id = d.notice_id and d.status = 'open'
    -- with a last try, whose pause may be an hour
    and n.created_at < moment - (backup.setting_integer('delivery_hours') + 2) * interval '1 hour';
  get diagnostics given_up = row_count;
  return given_up;
end
$$;
revoke all on function backup.give_up_deliveries() from public;

-- The next notice for a channel, the critical ones first, under a lease; no row: none is due.
create function backup.claim_delivery(channel text, worker text, lease_seconds integer)
returns table (delivery bigint, token bigint, try integer, notice jsonb)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  ours backup.deliveries;
begin
  update backup.deliveries as d
  set status = 'leased', token = d.token + 1, tries = d.tries + 1, worker = claim_delivery.worker,
    lease_until = moment + claim_delivery.lease_seconds * interval '1 second'
  where d.id = (
    select due.id
    from backup.deliveries as due
    join backup.notices as n on n.id = due.notice_id
    join backup.channels as c on c.name = due.channel
    where due.channel = claim_delivery.channel and due.status in ('open', 'leased')
      and backup.delivery_is_due(due.status, due.not_before, due.lease_until, moment)
      and (n.event = 'test' or not backup.channel_rests(c.failures, c.last_failed_at, moment))
      and backup.may_tell(n.kind)
    order by n.severity = 'critical' desc, n.id
    limit 1
    for update of due skip locked
  )
  returning d.* into ours;
  if ours.id is null then
    return;
  end if;
  insert into backup.delivery_attempts (delivery_id, try, worker) values (ours.id, ours.tries, ours.worker);
  return query
    select ours.id, ours.token, ours.tries, pg_catalog.jsonb_build_object(
      -- the same at each try: by it a receiver knows what it has already
      'key', pg_catalog.concat_ws('-', (select i.install_id from backup.identity as i), n.id, ours.channel),
      'id', n.id, 'event', n.event, 'kind', n.kind, 'subject', n.subject, 'severity', n.severity, 'message', n.message,
      'detail', n.detail, 'alert', n.alert_id, 'at', pg_catalog.to_char(n.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    )
    from backup.notices as n where n.id = ours.notice_id;
end
$$;
revoke all on function backup.claim_delivery(text, text, integer) from public;

-- What became of it; `failure` null: the channel took it. HF413 (lease_lost) where another one has it now. It is tried again after
-- 30 s, 1, 2, 4 … 60 minutes, until delivery_hours are over; a test once. `withheld`: it was not tried, and says nothing of the channel.
create function backup.record_delivery(delivery bigint, token bigint, failure text, withheld boolean default false) returns text
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  told constant text := pg_catalog.left(record_delivery.failure, 500);
  ours backup.deliveries;
  about backup.notices;
  outcome text;
begin
  select d.* into ours from backup.deliveries as d where d.id = record_delivery.delivery for no key update;
  if ours.id is null or ours.token <> record_delivery.token or ours.status <> 'leased' then
    raise exception 'another worker has delivery %', record_delivery.delivery using errcode = 'HF413';
  end if;
  select n.* into about from backup.notices as n where n.id = ours.notice_id;
  outcome := case
    when told is null then 'delivered'
    when about.event = 'test' or about.created_at < moment - backup.setting_integer('delivery_hours') * interval '1 hour' then 'failed'
    else 'open'
  end;
  update backup.deliveries as d
  set status = outcome, lease_until = null, failure = told, ended_at = case when outcome <> 'open' then moment end,
    not_before = case
      when outcome = 'open' then moment + least(30 * pg_catalog.power(2, least(ours.tries - 1, 10)), 3600) * interval '1 second'
      else d.not_before
    end
  where d.id = ours.id;
  update backup.delivery_attempts as a
  set ended_at = moment, outcome = case when told is null then 'delivered' else 'failed' end, failure = told
  where a.delivery_id = ours.id and a.try = ours.tries;
  if not withheld then
    perform backup.note_channel(ours.channel, told);
  end if;
  return outcome;
end
$$;
revoke all on function backup.record_delivery(bigint, bigint, text, boolean) from public;
