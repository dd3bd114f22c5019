-- Incidents: that something went wrong, what was found of it, what was done, and its end. At the dashboard (SQL editor):
--   select * from backup.open_incident('rows of public.notes are gone', 'We are looking into missing notes.');
--   select backup.note_incident(1, 'it was the import of 14:03');        people of the project alone read it
--   select backup.tell_incident(1, 'Your notes are being brought back.');  public: the status page shows it
--   select backup.close_incident(1, 'all rows are back', 'All notes are back.');
-- Nothing is restored here. Table names, counts and positions stand here, never a row's value.
-- Lock order: the advisory lock holdfast:incidents → the row of one incident → its events → alerts, notices and audit →
-- backup.standing.

create table backup.incidents (
  id bigint generated always as identity primary key,
  status text not null default 'open',
  -- what is wrong, for those who work on it
  reason text not null,
  opened_at timestamptz not null default backup.clock_now(),
  opened_by text not null,
  -- when people hear next; public
  next_update_at timestamptz,
  -- writes were stopped, or why they were not
  stopped_at timestamptz,
  stopped jsonb,
  -- {since, covered, tables[], suspects[], counts[], points, notDone[]}: what `incident open` found
  assessed_at timestamptz,
  assessment jsonb,
  -- [{what, scope, rows, seconds, steps[{command, does}]}]: what could be done
  offered_at timestamptz,
  offers jsonb,
  closed_at timestamptz,
  closed_by text,
  -- what it was, and what was done
  summary text,
  constraint status_is_known check (status in ('open', 'closed')),
  constraint reason_is_a_short_line check (backup.is_short_line(reason)),
  constraint closed_incident_says_when_and_by_whom check (
    (status = 'closed') = (closed_at is not null and closed_by is not null and summary is not null)
  ),
  constraint closed_at_is_not_before_opened_at check (closed_at >= opened_at),
  constraint steps_say_when_and_what check (
    (stopped_at is null) = (stopped is null) and (assessed_at is null) = (assessment is null)
      and (offered_at is null) = (offers is null)
  ),
  constraint findings_have_their_form check (
    jsonb_typeof(stopped) = 'object' and jsonb_typeof(assessment) = 'object' and jsonb_typeof(offers) = 'array'
  ),
  constraint summary_is_short check (length(summary) between 1 and 4000)
);
comment on table backup.incidents is 'What went wrong, what was found and offered, and how it ended; one at a time is open.';
create unique index incidents_one_open on backup.incidents (status) where status = 'open';

-- What happened when. `told` is public: the status page shows it.
create table backup.incident_events (
  id bigint generated always as identity primary key,
  incident_id bigint not null references backup.incidents (id),
  at timestamptz not null default backup.clock_now(),
  kind text not null,
  actor text not null,
  message text not null,
  constraint kind_is_known check (kind in (
    'opened', 'joined', 'stopped', 'assessed', 'offered', 'noted', 'told', 'closed'
  )),
  constraint message_is_short check (length(message) between 1 and 4000),
  constraint what_is_public_is_a_short_line check (kind <> 'told' or backup.is_short_line(message))
);
comment on table backup.incident_events is 'The timeline of incidents. Append-only; what is `told` is public.';
create index incident_events_by_incident on backup.incident_events (incident_id, id);

alter table backup.incidents enable row level security;
alter table backup.incident_events enable row level security;
revoke all on table backup.incidents, backup.incident_events from public;

create function backup.refuse_event_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'the timeline of incidents only grows: % is refused', lower(tg_op)
    using errcode = 'HF007', hint = 'Write a further note that corrects the earlier one.';
end
$$;
revoke all on function backup.refuse_event_change() from public;

create trigger incident_events_only_grow
  before update or delete or truncate on backup.incident_events
  for each statement execute function backup.refuse_event_change();
-- always: a session under session_replication_role = replica would pass an ordinary trigger
alter table backup.incident_events enable always trigger incident_events_only_grow;

-- Who acts: the signed-in person's hash, else the role.
create function backup.acting() returns text
language sql
stable
set search_path = ''
as $$
  select coalesce(
    backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'),
    'role:' || session_user
  )
$$;
revoke all on function backup.acting() from public;

-- One row of the timeline, with its row in the audit, where its words are not repeated.
create function backup.add_incident_event(incident bigint, kind text, message text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into backup.incident_events (incident_id, kind, actor, message)
  values (incident, add_incident_event.kind, backup.acting(), add_incident_event.message);
  perform backup.audit('incident.' || add_incident_event.kind, 'incident:' || incident, '{}');
end
$$;
revoke all on function backup.add_incident_event(bigint, text, text) from public;

-- The row of one that is open, locked. HF450 (incident_not_found), HF451 (incident_state) where it is closed.
create function backup.open_incident_row(id bigint) returns backup.incidents
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.incidents;
begin
  select i.* into ours from backup.incidents as i where i.id = open_incident_row.id for no key update;
  if ours.id is null then
    raise exception 'there is no incident %', open_incident_row.id using errcode = 'HF450';
  elsif ours.status <> 'open' then
    raise exception 'incident % is closed', ours.id using errcode = 'HF451', hint = 'Open a new one.';
  end if;
  return ours;
end
$$;
revoke all on function backup.open_incident_row(bigint) from public;

-- Opens an incident and tells the channels; one that is open is joined, and another reason than its own is noted.
-- `reason` is for those who work on it, `message` is public. HF003 (payload_invalid) where one of them is no short line.
create function backup.open_incident(
  reason text, message text default null, next_update_at timestamptz default null, out incident bigint, out joined boolean
)
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.incidents;
  moment timestamptz := backup.clock_now();
  public_message constant text := coalesce(open_incident.message, 'We are looking into a problem.');
begin
  if not backup.is_short_line(open_incident.reason) or not backup.is_short_line(public_message) then
    raise exception 'an incident needs a reason, and its message is one line, of 1 to 300 letters each' using errcode = 'HF003';
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:incidents', 0));
  select i.* into known from backup.incidents as i where i.status = 'open' for no key update;
  joined := known.id is not null;
  if joined then
    incident := known.id;
    if known.reason <> open_incident.reason and not exists (
      select from backup.incident_events as e
      where e.incident_id = known.id and e.kind = 'joined' and e.message = open_incident.reason
    ) then
      perform backup.add_incident_event(known.id, 'joined', open_incident.reason);
    end if;
    return;
  end if;
  insert into backup.incidents as i (reason, opened_at, opened_by, next_update_at)
  values (open_incident.reason, moment, backup.acting(), open_incident.next_update_at)
  returning i.id into incident;
  perform backup.add_incident_event(incident, 'opened', open_incident.reason);
  perform backup.add_incident_event(incident, 'told', public_message);
  perform backup.send_notice(
    'incident_opened', 'incident:' || incident, pg_catalog.format('incident %s is open: %s', incident, open_incident.reason),
    'critical', pg_catalog.jsonb_build_object('incident', incident, 'public', public_message)
  );
  perform backup.stand();
end
$$;
comment on function backup.open_incident(text, text, timestamptz) is 'Opens an incident and tells the channels, or joins the open one.';
revoke all on function backup.open_incident(text, text, timestamptz) from public;

-- A step of the procedure is done: `stopped`, `assessed` or `offered`, with what came out. Repeated, the last one counts.
create function backup.record_incident(id bigint, step text, findings jsonb, message text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.incidents := backup.open_incident_row(id);
  moment timestamptz := backup.clock_now();
begin
  case step
    when 'stopped' then
      update backup.incidents as i set stopped_at = moment, stopped = findings where i.id = ours.id;
    when 'assessed' then
      update backup.incidents as i set assessed_at = moment, assessment = findings where i.id = ours.id;
    when 'offered' then
      update backup.incidents as i set offered_at = moment, offers = findings where i.id = ours.id;
    else
      raise exception 'an incident has no step %', step using errcode = 'HF003';
  end case;
  perform backup.add_incident_event(ours.id, step, message);
end
$$;
revoke all on function backup.record_incident(bigint, text, jsonb, text) from public;

-- A note on the timeline, for those who work on it. HF003, HF450; a closed one takes notes as well.
create function backup.note_incident(id bigint, note text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if coalesce(pg_catalog.length(pg_catalog.btrim(note)), 0) not between 1 and 4000 then
    raise exception 'a note has 1 to 4,000 letters' using errcode = 'HF003';
  elsif not exists (select from backup.incidents as i where i.id = note_incident.id) then
    raise exception 'there is no incident %', note_incident.id using errcode = 'HF450';
  end if;
  perform backup.add_incident_event(note_incident.id, 'noted', pg_catalog.btrim(note));
end
$$;
comment on function backup.note_incident(bigint, text) is 'Adds a note to the timeline of an incident; not public.';
revoke all on function backup.note_incident(bigint, text) from public;

-- A public update: on the status page, and to the channels. `next_update_at`: when people hear next. HF003, HF450, HF451.
create function backup.tell_incident(id bigint, message text, next_update_at timestamptz default null) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.incidents := backup.open_incident_row(id);
begin
  if not backup.is_short_line(tell_incident.message) then
    raise exception 'a public message is one line of 1 to 300 letters' using errcode = 'HF003';
  end if;
  update backup.incidents as i set next_update_at = tell_incident.next_update_at where i.id = ours.id;
  perform backup.add_incident_event(ours.id, 'told', tell_incident.message);
  perform backup.send_notice(
    'incident_update', 'incident:' || ours.id, pg_catalog.format('incident %s: %s', ours.id, tell_incident.message), 'warning',
    pg_catalog.jsonb_build_object('incident', ours.id, 'public', tell_incident.message)
  );
end
$$;
comment on function backup.tell_incident(bigint, text, timestamptz) is 'A public update of an incident: status page and channels.';
revoke all on function backup.tell_incident(bigint, text, timestamptz) from public;

-- The end. `summary` is for those who worked on it, `message` is public. It restores nothing, and opens no project that is
-- closed to writes. Returns whether maintenance mode is still on. HF003, HF450, HF451 also while a restore in place is at work.
create function backup.close_incident(id bigint, summary text, message text default null) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.incidents := backup.open_incident_row(id);
  public_message constant text := coalesce(close_incident.message, 'This is over.');
  is_closed boolean := (select m.closed from backup.maintenance as m);
  at_work uuid := (
    select r.id from backup.restores as r
    where r.status = 'applying' and r.lease_until > backup.clock_now() order by r.started_at limit 1
  );
begin
  if at_work is not null then
    raise exception 'restore % is putting rows into place', at_work
      using errcode = 'HF451', hint = 'Wait for its end, or end it, before people are told that this is over.';
  end if;
  if coalesce(pg_catalog.length(pg_catalog.btrim(close_incident.summary)), 0) not between 1 and 4000
    or not backup.is_short_line(public_message) then
    raise exception 'an incident ends with a summary of 1 to 4,000 letters, and its message is one short line'
      using errcode = 'HF003';
  end if;
  perform backup.add_incident_event(ours.id, 'told', public_message);
  perform backup.add_incident_event(ours.id, 'closed', pg_catalog.btrim(close_incident.summary));
  update backup.incidents as i
  set status = 'closed', closed_at = greatest(i.opened_at, backup.clock_now()), closed_by = backup.acting(),
    summary = pg_catalog.btrim(close_incident.summary), next_update_at = null
  where i.id = ours.id;
  perform backup.log_maintenance(
    'incident', pg_catalog.left('incident ' || ours.id || ': ' || ours.reason, 200), 'closed', pg_catalog.btrim(close_incident.summary)
  );
  perform backup.send_notice(
    'incident_closed', 'incident:' || ours.id, pg_catalog.format('incident %s is over: %s', ours.id, public_message), 'information',
    pg_catalog.jsonb_build_object('incident', ours.id, 'public', public_message)
  );
  perform backup.stand();
  return is_closed;
end
$$;
comment on function backup.close_incident(bigint, text, text) is 'Ends an incident and tells the channels.';
revoke all on function backup.close_incident(bigint, text, text) from public;

-- How long a recovery of each scope may take, and how long the last good one took, a drill or a restore.
create function backup.recovery_times(
  out scope text, out objective_seconds bigint, out measured_seconds numeric, out measured_at timestamptz
) returns setof record
language sql
stable
set search_path = ''
as $$
  select o.scope, o.seconds, m.seconds, m.at
  from backup.objectives as o
  left join lateral (
    select d.rto_seconds as seconds, d.finished_at as at
    from backup.drills as d
    join backup.drill_calendar as c on c.name = d.drill
    where c.recovery_scope = o.scope and d.ok and d.rto_seconds is not null
    union all
    select r.measured_seconds, r.finished_at
    from backup.restores as r where r.scope = o.scope and r.status in ('succeeded', 'beside')
    order by 2 desc
    limit 1
  ) as m on true
  where o.kind = 'recovery'
  order by o.scope
$$;
revoke all on function backup.recovery_times() from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_incidents with (security_invoker = true) as
select
  i.id, i.status, i.reason, i.opened_at, i.opened_by, i.next_update_at, i.stopped_at, i.stopped, i.assessed_at, i.assessment,
  i.offered_at, i.offers, i.closed_at, i.closed_by, i.summary
from backup.incidents as i;
comment on view public.backup_incidents is 'Holdfast: incidents. Administrators with a second factor only.';

create view public.backup_incident_events with (security_invoker = true) as
select e.id, e.incident_id, e.at, e.kind, e.actor, e.message
from backup.incident_events as e;
comment on view public.backup_incident_events is 'Holdfast: timelines of incidents. Administrators with a second factor only.';
revoke all on table public.backup_incidents, public.backup_incident_events from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_incidents, public.backup_incident_events from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_incidents on backup.incidents
    for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_timelines on backup.incident_events
    for select to authenticated using ((select backup.is_admin()));
  grant select (
    id, status, reason, opened_at, opened_by, next_update_at, stopped_at, stopped, assessed_at, assessment, offered_at, offers,
    closed_at, closed_by, summary
  ) on backup.incidents to authenticated;
  grant select (id, incident_id, at, kind, actor, message) on backup.incident_events to authenticated;
  grant select on table public.backup_incidents, public.backup_incident_events to authenticated;
end
$$;
