-- Where people see what they were told: views for administrators who signed in with a second factor.

create view public.backup_channels with (security_invoker = true) as
select
  c.name, c.target, c.told_by, c.told_at, c.gone_at, c.problem, c.last_ok_at, c.last_failed_at, c.failure, c.failures
from backup.channels as c;
comment on view public.backup_channels is 'Holdfast: by which channels people are told. Administrators with a second factor only.';

create view public.backup_notices with (security_invoker = true) as
select n.id, n.event, n.kind, n.subject, n.severity, n.message, n.alert_id, n.created_at
from backup.notices as n;
comment on view public.backup_notices is 'Holdfast: what people were told. Administrators with a second factor only.';

create view public.backup_deliveries with (security_invoker = true) as
select d.id, d.notice_id, d.channel, d.status, d.tries, d.ended_at, d.failure
from backup.deliveries as d;
comment on view public.backup_deliveries is 'Holdfast: how far each channel is with each notice. Administrators with a second factor only.';
revoke all on table public.backup_channels, public.backup_notices, public.backup_deliveries from public;

-- A plain PostgreSQL has no API roles; there the owner reads, and nobody else.
do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    -- a project may grant everything in public by default
    execute pg_catalog.format('revoke all on table public.backup_channels, public.backup_notices, public.backup_deliveries from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_channels on backup.channels
    for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_notices on backup.notices
    for select to authenticated using ((select backup.is_admin()));
  create policy administrators_read_deliveries on backup.deliveries
    for select to authenticated using ((select backup.is_admin()));
  grant select (
    name, target, told_by, told_at, gone_at, problem, last_ok_at, last_failed_at, failure, failures
  ) on backup.channels to authenticated;
  grant select (id, event, kind, subject, severity, message, alert_id, created_at) on backup.notices to authenticated;
  grant select (id, notice_id, channel, status, tries, ended_at, failure) on backup.deliveries to authenticated;
  grant select on table public.backup_channels, public.backup_notices, public.backup_deliveries to authenticated;
end
$$;
