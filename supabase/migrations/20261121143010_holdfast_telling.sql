-- What is told of alerts, and when: from rows of backup.alerts to notices. Each alert is told when it opens, when it gets worse, when
-- nobody acknowledges it, and when it is over; many at once, in one message. Lock order: the advisory lock holdfast:telling → as in
-- `notices`.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('alert_repeat_seconds', 'integer', '3600', 60, 604800, 'an alert that ended and comes back within this time is not told again before it is over'),
  ('alert_remind_seconds', 'integer', '86400', 3600, 2592000, 'an alert that nobody acknowledges is told again after so long'),
  ('alert_escalate_seconds', 'integer', '3600', 300, 604800, 'a critical alert that nobody acknowledges is escalated after so long'),
  ('alert_burst', 'integer', '5', 1, 50, 'more alerts than this at once are told in one message'),
  ('alert_hourly', 'integer', '20', 1, 1000, 'messages about single alerts in an hour; what comes on top is told in one message'),
  ('alert_digest_seconds', 'integer', '300', 60, 86400, 'time between two messages about many alerts');
insert into backup.settings (name, kind, value, pattern, note) values
  ('alert_escalate_to', 'text', '', '^((email|mail_api|slack|webhook)( (email|mail_api|slack|webhook))*)?$',
    'channels for critical alerts that nobody acknowledges, separated by blanks; empty: all');
insert into backup.settings (name, kind, value, pattern, note, personal) values
  ('mail_to', 'text', '', '^([A-Za-z0-9._%+''-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,250}\.[A-Za-z]{2,63}( |$)){0,10}$',
    'who gets e-mail about alerts: up to ten addresses, separated by blanks', true),
  ('mail_from', 'text', '', '^([A-Za-z0-9._%+''-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,250}\.[A-Za-z]{2,63})?$',
    'the sender of e-mail about alerts', true);

-- What is to be told now: alerts with their event, which is null where it has to wait, and `silent` where nothing of it is told: it
-- came back while the last message about its subject was fresh, and is over again. In a copy of the project nothing but what
-- may_tell allows. What is more than five minutes ahead was written down by another clock: it is neither fresh nor young, since
-- else nobody would be told anything until this one is there.
create function backup.alerts_to_tell() returns table (alert_id bigint, event text, severity text, kind text)
language sql
stable
set search_path = ''
as $$
  select a.id,
    case
      when a.status = 'resolved' and a.told_at is not null then case a.severity when 'information' then 'silent' else 'resolved' end
      when a.status = 'resolved' and (a.severity = 'information' or f.is_fresh or a.resolved_at < n.moment - interval '1 day') then 'silent'
      when a.status = 'resolved' then 'passed'
      when a.told_at is null then case when not f.is_fresh then 'raised' end
      when backup.severity_rank(a.severity) > backup.severity_rank(a.told_severity) then 'worse'
      when a.status <> 'open' or a.severity = 'information' then null
      when a.severity = 'critical' and a.escalated_at is null and (coalesce(a.worse_at, a.opened_at) <= n.moment - n.escalate or coalesce(a.worse_at, a.opened_at) > n.ahead) then 'escalated'
      when a.told_at <= n.moment - n.remind or a.told_at > n.ahead then 'reminded'
    end,
    a.severity, a.kind
  from backup.alerts as a
  cross join (
    select backup.clock_now() as moment, backup.clock_now() + interval '5 minutes' as ahead,
      backup.setting_integer('alert_repeat_seconds') * interval '1 second' as repeat,
      backup.setting_integer('alert_remind_seconds') * interval '1 second' as remind,
      backup.setting_integer('alert_escalate_seconds') * interval '1 second' as escalate
  ) as n
  cross join lateral (
    select exists (
      select from backup.alerts as other
      where other.kind = a.kind and other.subject = a.subject and other.told_at > n.moment - n.repeat and other.told_at <= n.ahead
    ) as is_fresh
  ) as f
  where a.settled_at is null and a.kind in (
    select k.kind from (select distinct u.kind from backup.alerts as u where u.settled_at is null) as k where backup.may_tell(k.kind)
  )
$$;
revoke all on function backup.alerts_to_tell() from public;

-- What was said is written down in the alerts, by the event of each.
create function backup.note_told(ids bigint[], events text[]) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.alerts as a
  set told_at = case when t.event in ('resolved', 'silent') then a.told_at else backup.clock_now() end,
    told_severity = case when t.event in ('resolved', 'silent') then a.told_severity else a.severity end,
    escalated_at = case when t.event = 'escalated' then backup.clock_now() else a.escalated_at end,
    settled_at = case when t.event in ('resolved', 'silent', 'passed') then backup.clock_now() end
  from rows from (pg_catalog.unnest(note_told.ids), pg_catalog.unnest(note_told.events)) as t (id, event)
  where a.id = t.id and (t.event not in ('resolved', 'silent', 'passed') or a.status = 'resolved')
$$;
revoke all on function backup.note_told(bigint[], text[]) from public;

-- One message about one alert. That a channel fails goes to the others, that it works again to all.
create function backup.tell_alert(id bigint, event text) returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.notices (event, kind, subject, severity, message, detail, alert_id, to_channels, not_to)
  select tell_alert.event, a.kind, a.subject, a.severity, coalesce(nullif(pg_catalog.left(a.message, 8000), ''), '-'),
    pg_catalog.jsonb_build_object('openedAt', a.opened_at, 'resolvedAt', a.resolved_at, 'times', a.times),
    a.id,
    -- where none of the named ones is set up, to all: better to the wrong people than to nobody
    case when tell_alert.event = 'escalated' then (
      select pg_catalog.array_agg(c.name order by c.name)
      from backup.settings as s
      join backup.channels as c on c.name = any (pg_catalog.string_to_array(s.value, ' ')) and c.gone_at is null and c.problem is null
      where s.name = 'alert_escalate_to'
    ) end,
    case when a.kind = 'channel_failing' and tell_alert.event <> 'resolved' then pg_catalog.substr(a.subject, 9) end
  from backup.alerts as a where a.id = tell_alert.id
$$;
revoke all on function backup.tell_alert(bigint, text) from public;

-- One message about many: how many of which kind, and the worst twenty by name. All of them stand in backup.alerts.
create function backup.tell_many(ids bigint[], events text[]) returns void
language sql
volatile
set search_path = ''
as $$
  with told as materialized (
    select a.*, t.event, t.place
    from rows from (pg_catalog.unnest(tell_many.ids), pg_catalog.unnest(tell_many.events)) with ordinality as t (id, event, place)
    join backup.alerts as a on a.id = t.id
  ), counts as (
    select t.kind, t.event, t.severity, count(*) as how_many from told as t group by 1, 2, 3
  )
  insert into backup.notices (event, kind, subject, severity, message, detail)
  select 'digest', 'digest', 'alerts',
    (select t.severity from told as t order by backup.severity_rank(t.severity) desc limit 1),
    pg_catalog.format(
      '%s alerts: %s', (select count(*) from told),
      (
        select pg_catalog.string_agg(pg_catalog.format('%s %s', k.how_many, k.kind), ', ' order by k.how_many desc, k.kind)
        from (select c.kind, sum(c.how_many) as how_many from counts as c group by 1 order by 2 desc, 1 limit 30) as k
      )
    ),
    pg_catalog.jsonb_build_object(
      'total', (select count(*) from told),
      'escalated', exists (select from told as t where t.event = 'escalated'),
      'counts', (
        select pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c) order by backup.severity_rank(c.severity) desc, c."howMany" desc, c.kind)
        from (select c.kind, c.event, c.severity, c.how_many as "howMany" from counts as c order by 4 desc limit 100) as c
      ),
      'shown', (
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'alert', s.id, 'event', s.event, 'kind', s.kind, 'subject', s.subject, 'severity', s.severity, 'message', pg_catalog.left(s.message, 200)
        ) order by s.place)
        from (select t.* from told as t order by t.place limit 20) as s
      )
    )
$$;
revoke all on function backup.tell_many(bigint[], text[]) from public;

-- Turns what is to be told of alerts into notices and their deliveries; the minute's job calls it, and `holdfast alerts deliver`.
-- Up to alert_burst at once, and alert_hourly in an hour, have a message each; else they come together in one, alert_digest_seconds
-- after the last of that sort, sooner only where something critical is of a kind that was not told for an hour. What has to wait
-- is told later; nothing is dropped. Without a channel nothing is told, and nothing counts as told. Returns how many notices.
create function backup.tell_alerts() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  -- what is further ahead was written down by another clock
  ahead constant timestamptz := moment + interval '5 minutes';
  -- in one go; the rest comes with the next
  most constant integer := 20000;
  ids bigint[];
  events text[];
  silent bigint[];
  urgent boolean;
  told integer := 0;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:telling', 0));
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a
  where a.severity = 'information' and a.status <> 'resolved' and a.last_seen_at < moment - interval '1 day';
  delete from backup.notices as n
  where n.id in (select old.id from backup.notices as old where old.created_at < moment - interval '90 days' order by old.created_at limit 1000);
  perform backup.give_up_deliveries();
  if not exists (select from backup.channels as c where c.name <> 'heartbeat' and c.gone_at is null) then
    return 0;
  end if;
  select
    pg_catalog.array_agg(d.alert_id order by d.place) filter (where d.event <> 'silent'),
    pg_catalog.array_agg(d.event order by d.place) filter (where d.event <> 'silent'),
    pg_catalog.array_agg(d.alert_id) filter (where d.event = 'silent'),
    coalesce(pg_catalog.bool_or(
      d.severity = 'critical' and d.event in ('raised', 'worse', 'passed') and not exists (
        select from backup.alerts as a where a.kind = d.kind and a.told_at > moment - interval '1 hour' and a.told_at <= ahead
      )
    ), false)
  into ids, events, silent, urgent
  from (
    select t.*, pg_catalog.row_number() over (order by backup.severity_rank(t.severity) desc, t.event = 'resolved', t.alert_id) as place
    from backup.alerts_to_tell() as t
    where t.event is not null
    order by place
    limit most
  ) as d;
  if silent is not null then
    perform backup.note_told(silent, pg_catalog.array_fill('silent'::text, array[pg_catalog.cardinality(silent)]));
  end if;
  if ids is not null then
    if pg_catalog.cardinality(ids) <= backup.setting_integer('alert_burst') and pg_catalog.cardinality(ids) + (
      select count(*) from backup.notices as n
      where n.created_at > moment - interval '1 hour' and n.created_at <= ahead and n.event not in ('digest', 'notice', 'test')
    ) <= backup.setting_integer('alert_hourly') then
      for place in 1..pg_catalog.cardinality(ids) loop
        perform backup.tell_alert(ids[place], events[place]);
      end loop;
      told := pg_catalog.cardinality(ids);
    elsif urgent or not exists (
      select from backup.notices as n
      where n.event = 'digest' and n.created_at > moment - backup.setting_integer('alert_digest_seconds') * interval '1 second'
        and n.created_at <= ahead
    ) then
      perform backup.tell_many(ids, events);
      told := 1;
    end if;
    if told > 0 then
      perform backup.note_told(ids, events);
    end if;
  end if;
  perform backup.plan_deliveries();
  return told;
end
$$;
revoke all on function backup.tell_alerts() from public;

-- Stores ----------------------------------------------------------------------------------------------------------------------

-- The watchdog's step: a store that did not do what it should is well again once something was written there since. Returns how
-- many are not.
create function backup.watch_stores() returns integer
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.resolve_alert(a.kind, a.subject)
  from backup.alerts as a
  where a.kind = 'store_unreachable' and a.status <> 'resolved' and backup.has_written(a.subject, a.last_seen_at);
  return (select count(*) from backup.alerts as a where a.kind = 'store_unreachable' and a.status <> 'resolved');
end
$$;
revoke all on function backup.watch_stores() from public;
