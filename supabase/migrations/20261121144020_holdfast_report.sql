-- The post-recovery report of an incident: what is on record of its time, put together. No row's value is in it, and people are
-- hashes, as in the audit.

-- {incident, contact, maintenanceOn, events[], restores[], drills[], alerts[], announcements[], log[], acts[], actsLeftOut,
-- objectives[], followUps[]}. From the incident's begin, or its first restore, to its end, or now. Times are UTC, ISO 8601. Acts are
-- rows of the audit that somebody ordered, 300 at most, oldest first. HF450 (incident_not_found).
create function backup.incident_facts(id bigint) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  ours backup.incidents;
  ends_at timestamptz;
begin
  select i.* into ours from backup.incidents as i where i.id = incident_facts.id;
  if ours.id is null then
    raise exception 'there is no incident %', incident_facts.id using errcode = 'HF450';
  end if;
  ends_at := coalesce(ours.closed_at, backup.clock_now());
  return pg_catalog.jsonb_build_object(
    'incident', pg_catalog.to_jsonb(ours) || pg_catalog.jsonb_build_object(
      'opened_at', backup.moment_text(ours.opened_at), 'closed_at', backup.moment_text(ours.closed_at),
      'stopped_at', backup.moment_text(ours.stopped_at), 'assessed_at', backup.moment_text(ours.assessed_at),
      'offered_at', backup.moment_text(ours.offered_at), 'next_update_at', backup.moment_text(ours.next_update_at)
    ),
    'until', backup.moment_text(ends_at),
    'contact', backup.emergency_contact(),
    'maintenanceOn', (select m.closed from backup.maintenance as m),
    'events', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'at', backup.moment_text(e.at), 'kind', e.kind, 'actor', e.actor, 'message', e.message
      ) order by e.id)
      from backup.incident_events as e where e.incident_id = ours.id
    ), '[]'),
    'restores', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', r.id, 'scope', r.scope, 'mode', r.mode, 'status', r.status, 'by', r.requested_by, 'target', r.target_label,
        'startedAt', backup.moment_text(r.started_at), 'finishedAt', backup.moment_text(r.finished_at),
        'pointAt', backup.moment_text(coalesce(r.point_at, (
          select b.consistent_at from backup.runs as b where b.id = r.source_backup and b.kind = 'full'
        ))), 'measuredSeconds', r.measured_seconds, 'objectiveSeconds', r.objective_seconds,
        'withinObjective', r.within_objective, 'rows', r.rows_done, 'tables', r.tables, 'error', r.error_message
      ) order by r.started_at)
      from backup.restores as r where r.started_at between ours.opened_at and ends_at
    ), '[]'),
    'drills', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'drill', d.drill, 'startedAt', backup.moment_text(d.started_at), 'ok', d.ok, 'rtoSeconds', d.rto_seconds
      ) order by d.started_at)
      from backup.drills as d where d.started_at between ours.opened_at and ends_at
    ), '[]'),
    'alerts', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'kind', a.kind, 'subject', a.subject, 'severity', a.severity, 'status', a.status, 'message', a.message,
        'openedAt', backup.moment_text(a.opened_at), 'resolvedAt', backup.moment_text(a.resolved_at)
      ) order by a.opened_at)
      from backup.alerts as a
      where a.opened_at <= ends_at and coalesce(a.resolved_at, ends_at) >= ours.opened_at
    ), '[]'),
    'announcements', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'message', a.message, 'startsAt', backup.moment_text(a.starts_at), 'endedAt', backup.moment_text(a.ended_at)
      ) order by a.starts_at)
      from backup.announcements as a
      where a.starts_at <= ends_at and coalesce(a.ended_at, ends_at) >= ours.opened_at
    ), '[]'),
    'log', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'at', backup.moment_text(l.recorded_at), 'kind', l.kind, 'action', l.action, 'result', l.result
      ) order by l.id)
      from backup.maintenance_log as l where l.recorded_at between ours.opened_at and ends_at
    ), '[]'),
    'acts', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'at', backup.moment_text(l.recorded_at), 'actor', l.actor, 'action', l.action, 'subject', l.subject
      ) order by l.id)
      from (select acts.* from backup.incident_acts(ours.opened_at, ends_at) as acts order by acts.id limit 300) as l
    ), '[]'),
    'actsLeftOut', greatest(0, (select count(*) from backup.incident_acts(ours.opened_at, ends_at)) - 300),
    'objectives', (
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('kind', o.kind, 'scope', o.scope, 'seconds', o.seconds)
        order by o.kind, o.scope)
      from backup.objectives as o
    ),
    'followUps', (select coalesce(pg_catalog.jsonb_agg(f.what), '[]') from backup.incident_follow_ups(ours) as f (what))
  );
end
$$;
revoke all on function backup.incident_facts(bigint) from public;

-- Rows of the audit that tell what somebody did about it: not the schedules' runs, alerts and the incident's own rows.
create function backup.incident_acts(from_moment timestamptz, to_moment timestamptz) returns setof backup.audit_log
language sql
stable
set search_path = ''
as $$
  select l.*
  from backup.audit_log as l
  where l.recorded_at between from_moment and to_moment
    and pg_catalog.split_part(l.action, '.', 1) in (
      'restore', 'maintenance', 'admin', 'setting', 'policy', 'schedule', 'objective', 'key', 'backup', 'download', 'side',
      'identity', 'retention', 'chain'
    )
$$;
revoke all on function backup.incident_acts(timestamptz, timestamptz) from public;

-- What is left to do, in sentences. A restore that failed has its alert.
create function backup.incident_follow_ups(incident backup.incidents) returns setof text
language sql
stable
set search_path = ''
as $$
  select 'close the incident' where (incident).status = 'open'
  union all
  select 'maintenance mode is still on: `maintenance off`' from backup.maintenance as m where m.closed
  union all
  select pg_catalog.format(
    'rows lie beside in %s until %s', r.side_schema, pg_catalog.to_char(r.side_expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
  )
  from backup.restores as r
  where r.started_at >= (incident).opened_at and r.started_at <= coalesce((incident).closed_at, backup.clock_now())
    and r.side_schema is not null and r.side_dropped_at is null and r.status = 'beside'
  union all
  select pg_catalog.format('restore %s (%s) is not over', r.id, r.scope) from backup.restores as r where r.finished_at is null
  union all
  select pg_catalog.format('alert %s %s: %s', a.kind, a.subject, a.message) from backup.alerts as a where a.status <> 'resolved'
$$;
revoke all on function backup.incident_follow_ups(backup.incidents) from public;
