-- What the API and the dashboard may show: three views, for administrators who signed in with a second factor.
-- The views run as their caller. A reader needs the columns' SELECT here, a policy that asks backup.is_admin(), and
-- nothing on the schema itself. Nobody else has a grant, service_role included.

create view public.backup_runs with (security_invoker = true) as
select
  r.id, r.kind, r.tiers, r.status, r.origin, r.subject_run, r.attempt, r.created_at, r.started_at, r.finished_at,
  r.consistent_at, r.tables, r.rows, r.raw_bytes, r.stored_bytes, r.new_stored_bytes, r.tasks_total, r.tasks_done,
  r.bytes_total, r.bytes_done, r.error_code, r.error_message, r.hint, r.warnings, r.quarantine_reason, r.accepted_at,
  r.accepted_reason, r.hold_until, r.hold_reason, r.verified_at, r.complete_at
from backup.runs as r;
comment on view public.backup_runs is 'Holdfast: backups and other runs. Administrators with a second factor only.';

create view public.backup_audit with (security_invoker = true) as
select a.id, a.recorded_at, a.actor, a.action, a.subject, a.detail
from backup.audit_log as a;
comment on view public.backup_audit is 'Holdfast: what was done by whom. Administrators with a second factor only.';

create view public.backup_alerts with (security_invoker = true) as
select
  a.id, a.kind, a.subject, a.severity, a.message, a.status, a.times, a.opened_at, a.last_seen_at, a.acknowledged_at,
  a.acknowledged_by, a.resolved_at
from backup.alerts as a;
comment on view public.backup_alerts is 'Holdfast: what to look at. Administrators with a second factor only.';

revoke all on table public.backup_runs, public.backup_audit, public.backup_alerts from public;

-- A plain PostgreSQL has no API roles; there the owner reads, and nobody else.
do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    -- a project may grant everything in public by default
    execute pg_catalog.format(
      'revoke all on table public.backup_runs, public.backup_audit, public.backup_alerts from %I', api_role
    );
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    raise notice 'there is no role authenticated: the views are readable by their owner only';
    return;
  end if;
  create policy administrators_read_runs on backup.runs
    for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_audit on backup.audit_log
    for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_alerts on backup.alerts
    for select to authenticated using ((select backup.is_admin()));
  grant execute on function backup.is_admin() to authenticated;
  grant select (
    id, kind, tiers, status, origin, subject_run, attempt, created_at, started_at, finished_at, consistent_at, tables,
    rows, raw_bytes, stored_bytes, new_stored_bytes, tasks_total, tasks_done, bytes_total, bytes_done, error_code,
    error_message, hint, warnings, quarantine_reason, accepted_at, accepted_reason, hold_until, hold_reason,
    verified_at, complete_at
  ) on backup.runs to authenticated;
  grant select (id, recorded_at, actor, action, subject, detail) on backup.audit_log to authenticated;
  grant select (
    id, kind, subject, severity, message, status, times, opened_at, last_seen_at, acknowledged_at, acknowledged_by,
    resolved_at
  ) on backup.alerts to authenticated;
  grant select on table public.backup_runs, public.backup_audit, public.backup_alerts to authenticated;
end
$$;
