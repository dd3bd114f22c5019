-- Notices: what people are told, and how far each channel is with telling it. An alert (0300) is a state that lasts; a notice is one
-- message, about alerts or about something that is none, such as an incident. docs/decisions/0034-alerts.md says why it is so.
-- Lock order: backup.alerts → backup.notices → backup.channels → backup.deliveries.

-- Channels ----------------------------------------------------------------------------------------------------------------

-- Ways out that are set up. Their secrets are in the environment of the function `notify`, or of the CLI, which tells here what it
-- has. `heartbeat` takes no messages.
create table backup.channels (
  name text primary key,
  -- where it leads to, without secrets: a host, or the domains of addresses
  target text not null,
  told_by text not null,
  told_at timestamptz not null default backup.clock_now(),
  -- its teller has it no more
  gone_at timestamptz,
  -- what is wrong with its settings, so that nothing can be sent
  problem text,
  last_ok_at timestamptz,
  last_failed_at timestamptz,
  failure text,
  -- tries in a row that failed
  failures integer not null default 0,
  constraint name_is_known check (name in ('email', 'mail_api', 'slack', 'webhook', 'heartbeat')),
  constraint teller_is_known check (told_by in ('function', 'cli')),
  constraint failures_are_counted check (failures >= 0)
);
comment on table backup.channels is 'Channels by which people are told, as functions and the CLI found them set up. No secrets.';
alter table backup.channels enable row level security;
revoke all on table backup.channels from public;

-- Notices -----------------------------------------------------------------------------------------------------------------

create table backup.notices (
  id bigint generated always as identity primary key,
  -- raised, worse, reminded, escalated, resolved, passed (raised and over again at once): one alert; digest: many; notice: none
  event text not null,
  kind text not null,
  subject text not null,
  severity text not null,
  message text not null,
  detail jsonb not null default '{}',
  alert_id bigint references backup.alerts (id) on delete set null,
  -- null: all
  to_channels text[],
  not_to text,
  created_at timestamptz not null default backup.clock_now(),
  -- its deliveries were made; null while no channel is known
  planned_at timestamptz,
  constraint event_is_known check (
    event in ('raised', 'worse', 'reminded', 'escalated', 'resolved', 'passed', 'digest', 'notice', 'test')
  ),
  constraint kind_is_a_snake_case_word check (kind ~ '^[a-z][a-z_]*$'),
  constraint subject_is_short check (length(subject) between 1 and 300),
  constraint severity_is_known check (severity in ('information', 'warning', 'critical')),
  constraint message_is_bounded check (length(message) between 1 and 8000),
  constraint detail_is_an_object check (jsonb_typeof(detail) = 'object')
);
comment on table backup.notices is 'What people are told: one message each.';
create index notices_by_alert on backup.notices (alert_id);
create index notices_by_moment on backup.notices (created_at);
create index notices_not_planned on backup.notices (id) where planned_at is null;
alter table backup.notices enable row level security;
revoke all on table backup.notices from public;

-- One row a notice and channel. Status: open → leased → delivered | open (tried again) | failed (given up).
create table backup.deliveries (
  id bigint generated always as identity primary key,
  notice_id bigint not null references backup.notices (id) on delete cascade,
  channel text not null references backup.channels (name),
  status text not null default 'open',
  tries integer not null default 0,
  not_before timestamptz not null default backup.clock_now(),
  -- fencing: whoever comes with another one has lost its lease
  token bigint not null default 0,
  worker text,
  lease_until timestamptz,
  ended_at timestamptz,
  failure text,
  constraint delivered_once_a_channel unique (notice_id, channel),
  constraint status_is_known check (status in ('open', 'leased', 'delivered', 'failed')),
  constraint leased_one_says_until_when check ((status = 'leased') = (lease_until is not null)),
  constraint ended_one_says_when check ((status in ('delivered', 'failed')) = (ended_at is not null))
);
comment on table backup.deliveries is 'How far each channel is with telling each notice.';
create index deliveries_to_make on backup.deliveries (channel, not_before) where status in ('open', 'leased');
alter table backup.deliveries enable row level security;
revoke all on table backup.deliveries from public;

-- Each try, without secrets.
create table backup.delivery_attempts (
  delivery_id bigint not null references backup.deliveries (id) on delete cascade,
  try integer not null,
  worker text not null,
  begun_at timestamptz not null default backup.clock_now(),
  ended_at timestamptz,
  -- delivered, failed; null while it is under way, or was lost
  outcome text,
  failure text,
  primary key (delivery_id, try),
  constraint outcome_is_known check (outcome in ('delivered', 'failed')),
  constraint failed_one_says_why check (outcome is distinct from 'failed' or failure is not null)
);
comment on table backup.delivery_attempts is 'Every try to deliver a notice, and what came of it.';
alter table backup.delivery_attempts enable row level security;
revoke all on table backup.delivery_attempts from public;

-- Makes the deliveries of notices that have none yet, once a channel is known; those older than a day (a test: ten minutes) are history by then. A
-- heartbeat is no message, but a test goes there too. Returns how many deliveries were made.
create function backup.plan_deliveries() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  made bigint;
begin
  with planned as (
    update backup.notices as n set planned_at = moment
    where n.planned_at is null and exists (
      select from backup.channels as c where c.gone_at is null and (c.name <> 'heartbeat' or n.event = 'test')
    )
    returning n.*
  )
  insert into backup.deliveries (notice_id, channel)
  select n.id, c.name
  from planned as n
  join backup.channels as c on c.gone_at is null and (c.name <> 'heartbeat' or n.event = 'test')
    and c.name is distinct from n.not_to and (n.to_channels is null or c.name = any (n.to_channels))
  where n.created_at > moment - case n.event when 'test' then interval '10 minutes' else interval '1 day' end
  order by n.id, c.name;
  get diagnostics made = row_count;
  return made;
end
$$;
revoke all on function backup.plan_deliveries() from public;

-- Tells something to people by all channels that is no alert: an incident, a window of maintenance, the report of a drill. `severity`:
-- information, warning or critical. It leaves within a minute of the commit. Returns the id of the notice. A copy of the project
-- keeps it to itself (backup.may_tell).
create function backup.send_notice(kind text, subject text, message text, severity text default 'information', detail jsonb default '{}')
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  notice_id bigint;
begin
  insert into backup.notices (event, kind, subject, severity, message, detail)
  values (
    'notice', send_notice.kind, send_notice.subject, coalesce(send_notice.severity, 'information'),
    pg_catalog.left(send_notice.message, 8000), coalesce(send_notice.detail, '{}')
  )
  returning id into notice_id;
  perform backup.plan_deliveries();
  perform backup.audit(
    'notice.sent', pg_catalog.left(send_notice.kind || ':' || send_notice.subject, 300),
    pg_catalog.jsonb_build_object('notice', notice_id, 'severity', send_notice.severity)
  );
  return notice_id;
end
$$;
comment on function backup.send_notice(text, text, text, text, jsonb) is 'Tells people something by all channels that are set up.';
revoke all on function backup.send_notice(text, text, text, text, jsonb) from public;
