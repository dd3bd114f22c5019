-- Alerts: what a person should look at. At most one unresolved row for a kind and a subject.
-- Status: open → acknowledged → resolved, open → resolved. Resolved rows stay as history. How alerts reach people stands in the
-- migration `telling`. Severity `information` asks for nothing: such an alert ends by itself a day after it was last seen.

create table backup.alerts (
  id bigint generated always as identity primary key,
  kind text not null,
  subject text not null,
  severity text not null,
  message text not null,
  status text not null default 'open',
  times integer not null default 1,
  opened_at timestamptz not null default backup.clock_now(),
  last_seen_at timestamptz not null default backup.clock_now(),
  acknowledged_at timestamptz,
  acknowledged_by text,
  resolved_at timestamptz,
  -- last message about it, and with which severity; null: none yet
  told_at timestamptz,
  told_severity text,
  -- since when it is worse than people had been told; null: it never became so
  worse_at timestamptz,
  escalated_at timestamptz,
  -- its end was told too, or is not worth telling
  settled_at timestamptz,
  constraint kind_is_a_snake_case_word check (kind ~ '^[a-z][a-z_]*$'),
  constraint subject_is_short check (length(subject) between 1 and 300),
  constraint severity_is_known check (severity in ('information', 'warning', 'critical')),
  constraint status_is_known check (status in ('open', 'acknowledged', 'resolved')),
  constraint acknowledged_alert_says_by_whom check (
    status <> 'acknowledged' or (acknowledged_at is not null and acknowledged_by is not null)
  ),
  constraint resolved_alert_says_when check ((status = 'resolved') = (resolved_at is not null)),
  constraint last_seen_is_not_before_opened check (last_seen_at >= opened_at),
  constraint told_alert_says_how check ((told_at is null) = (told_severity is null)),
  constraint only_a_resolved_alert_is_settled check (settled_at is null or status = 'resolved')
);
comment on table backup.alerts is 'What a person should look at; one unresolved row for a kind and a subject.';
create unique index alerts_one_unresolved_row_a_subject on backup.alerts (kind, subject) where status <> 'resolved';
create index alerts_not_settled on backup.alerts (id) where settled_at is null;
create index alerts_told on backup.alerts (kind, subject, told_at) where told_at is not null;
alter table backup.alerts enable row level security;
revoke all on table backup.alerts from public;

-- How bad, as a number.
create function backup.severity_rank(severity text) returns integer
language sql
immutable
set search_path = ''
as $$
  select case severity when 'critical' then 3 when 'warning' then 2 when 'information' then 1 else 0 end
$$;
revoke all on function backup.severity_rank(text) from public;

-- Is it worse with that severity than what people were told of it, or would have been?
create function backup.is_worse(alert backup.alerts, severity text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select backup.severity_rank(is_worse.severity) > backup.severity_rank(coalesce(alert.told_severity, alert.severity))
$$;
revoke all on function backup.is_worse(backup.alerts, text) from public;

-- Opens an alert, or counts it once more when it is unresolved already. Returns its id.
create function backup.raise_alert(kind text, subject text, message text, severity text default 'critical')
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  alert_id bigint;
  seen integer;
  seen_at timestamptz := backup.clock_now();
begin
  insert into backup.alerts as a (kind, subject, severity, message, opened_at, last_seen_at)
  values (raise_alert.kind, raise_alert.subject, raise_alert.severity, raise_alert.message, seen_at, seen_at)
  on conflict (kind, subject) where status <> 'resolved' do update
    set times = a.times + 1,
      last_seen_at = greatest(a.last_seen_at, excluded.last_seen_at),
      message = excluded.message,
      severity = excluded.severity,
      -- who acknowledged the lesser evil has not seen this one
      status = case when backup.is_worse(a, excluded.severity) then 'open' else a.status end,
      worse_at = case when backup.is_worse(a, excluded.severity) then seen_at else a.worse_at end,
      escalated_at = case when not backup.is_worse(a, excluded.severity) then a.escalated_at end
  returning a.id, a.times into alert_id, seen;
  if seen = 1 then
    perform backup.audit(
      'alert.raised', pg_catalog.left(raise_alert.kind || ':' || raise_alert.subject, 300),
      pg_catalog.jsonb_build_object('alert', alert_id, 'severity', raise_alert.severity)
    );
  end if;
  return alert_id;
end
$$;
revoke all on function backup.raise_alert(text, text, text, text) from public;

-- Ends the unresolved alert of that kind and subject. False when there is none.
create function backup.resolve_alert(kind text, subject text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  alert_id bigint;
begin
  update backup.alerts as a
  set status = 'resolved', resolved_at = greatest(a.opened_at, backup.clock_now())
  where a.kind = resolve_alert.kind and a.subject = resolve_alert.subject and a.status <> 'resolved'
  returning a.id into alert_id;
  if alert_id is null then
    return false;
  end if;
  perform backup.audit(
    'alert.resolved', pg_catalog.left(resolve_alert.kind || ':' || resolve_alert.subject, 300),
    pg_catalog.jsonb_build_object('alert', alert_id)
  );
  return true;
end
$$;
revoke all on function backup.resolve_alert(text, text) from public;

-- A person has seen the alert: it stays until its cause is gone. HF008 when there is no open alert of that id.
create function backup.acknowledge_alert(alert_id bigint) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  about text;
begin
  update backup.alerts as a
  set status = 'acknowledged', acknowledged_at = backup.clock_now(), acknowledged_by = session_user
  where a.id = alert_id and a.status = 'open'
  returning a.kind || ':' || a.subject into about;
  if about is null then
    raise exception 'there is no open alert %', alert_id using errcode = 'HF008';
  end if;
  perform backup.audit('alert.acknowledged', pg_catalog.left(about, 300), pg_catalog.jsonb_build_object('alert', alert_id));
end
$$;
revoke all on function backup.acknowledge_alert(bigint) from public;

-- A store did not do what it should: `failure` is the error of a task, a leg or a drain, {code, message}; others than a store's are
-- passed over. A warning at first, critical once it has lasted for five minutes. It ends once something was written there since
-- (backup.has_written(), migration conditions): a store that can be read may be full.
create function backup.note_store_failure(failure jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  second_label text := (select s.label from backup.second_store as s);
  about text;
begin
  if coalesce(failure ->> 'code' not in ('store_unreachable', 'store_denied', 'store_missing', 'store_full', 'store_read_only'), true) then
    return;
  end if;
  about := case
    when second_label is not null and pg_catalog.starts_with(failure ->> 'message', second_label || ':') then 'store:second'
    else 'store:first'
  end;
  perform backup.raise_alert(
    'store_unreachable', about, pg_catalog.left(pg_catalog.format('%s (%s)', failure ->> 'message', failure ->> 'code'), 1000),
    case
      when exists (
        select from backup.alerts as a
        where a.kind = 'store_unreachable' and a.subject = about and a.status <> 'resolved'
          and a.opened_at < backup.clock_now() - interval '5 minutes'
      ) then 'critical'
      else 'warning'
    end
  );
end
$$;
revoke all on function backup.note_store_failure(jsonb) from public;
