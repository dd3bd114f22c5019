-- What was promised (objectives) and what was tried (drills).

create table backup.objectives (
  kind text not null,
  scope text not null,
  seconds bigint not null,
  note text not null,
  primary key (kind, scope),
  constraint kind_is_known check (kind in ('recovery', 'loss')),
  constraint scope_is_a_snake_case_word check (scope ~ '^[a-z][a-z_]*$'),
  constraint seconds_are_positive check (seconds > 0)
);
comment on table backup.objectives is
  'How long a recovery of a scope may take (recovery), and how much of the recent past may be lost (loss).';

insert into backup.objectives (kind, scope, seconds, note) values
  ('recovery', 'record', 3600, 'one row, or a few, back where they were'),
  ('recovery', 'table', 14400, 'a table; as one user'),
  ('recovery', 'user', 14400, 'all that one user owns'),
  ('recovery', 'full', 86400, 'the whole database'),
  ('recovery', 'point', 86400, 'the whole database as it was at a moment'),
  ('recovery', 'files', 86400, 'files of Storage, of a bucket or all'),
  ('recovery', 'export', 60, 'at once: the download of what belongs to a user begins'),
  ('loss', 'database', 86400, 'a full backup each day'),
  ('loss', 'user_data', 75, 'the change stream is drained each minute, and the drain takes its time'),
  ('loss', 'files', 300, 'objects of Storage are copied every few minutes');

-- The calendar of drills -----------------------------------------------------------------------------------------------

-- When the next one is due after one that went well: as the next week (on Monday), month, quarter or year begins, in UTC. So there
-- is one in each of them, whenever in it the last one was done.
create function backup.drill_due(cadence text, done_at timestamptz) returns timestamptz
language sql
immutable
strict
set search_path = ''
as $$
  select (
    pg_catalog.date_trunc(
      case cadence when 'weekly' then 'week' when 'monthly' then 'month' when 'quarterly' then 'quarter' when 'yearly' then 'year' end,
      done_at at time zone 'UTC'
    )
    + case cadence
      when 'weekly' then interval '7 days' when 'monthly' then interval '1 month' when 'quarterly' then interval '3 months'
      when 'yearly' then interval '1 year'
    end
  ) at time zone 'UTC'
$$;
revoke all on function backup.drill_due(text, timestamptz) from public;

-- How long a due drill may wait before an alert is raised.
create function backup.drill_grace(cadence text) returns interval
language sql
immutable
strict
set search_path = ''
as $$
  select case cadence
    when 'weekly' then interval '2 days' when 'monthly' then interval '7 days' when 'quarterly' then interval '21 days'
    when 'yearly' then interval '30 days'
  end
$$;
revoke all on function backup.drill_grace(text) from public;

create table backup.drill_calendar (
  name text primary key,
  -- as the maintenance log and reports call it
  title text not null unique,
  cadence text not null,
  -- `person`: it needs a key that is kept offline, or eyes
  done_by text not null,
  -- whose objectives of recovery and of loss count; null: there is nothing to measure
  recovery_scope text,
  loss_scope text,
  -- the file in docs/runbooks that it tests
  runbook text not null,
  enabled boolean not null default true,
  since timestamptz not null default backup.clock_now(),
  last_drill uuid,
  last_at timestamptz,
  last_ok boolean,
  last_good_at timestamptz,
  due_at timestamptz generated always as (backup.drill_due(cadence, coalesce(last_good_at, since))) stored,
  constraint name_is_a_snake_case_word check (name ~ '^[a-z][a-z_]{0,40}$'),
  constraint cadence_is_known check (cadence in ('weekly', 'monthly', 'quarterly', 'yearly')),
  constraint done_by_is_known check (done_by in ('system', 'person')),
  constraint last_one_is_known_or_not check ((last_drill is null) = (last_at is null) and (last_at is null) = (last_ok is null))
);
comment on table backup.drill_calendar is 'What is tried how often, by whom, and when it is due next.';

insert into backup.drill_calendar (name, title, cadence, done_by, recovery_scope, loss_scope, runbook) values
  ('recovery', 'Recovery test', 'weekly', 'system', 'point', 'user_data', 'a-moment'),
  ('record', 'Single record restore', 'monthly', 'system', 'record', null, 'a-deleted-row'),
  ('full', 'Full restore', 'monthly', 'system', 'full', 'database', 'a-whole-database'),
  ('table', 'Full table restore', 'quarterly', 'system', 'table', null, 'a-table'),
  ('disaster', 'Disaster recovery from the second store', 'quarterly', 'person', 'full', 'database', 'the-first-provider-is-gone'),
  ('keys', 'Recovery key opens the newest backup', 'quarterly', 'person', null, null, 'drills'),
  ('runbooks', 'Review of the runbooks', 'quarterly', 'person', null, null, 'drills'),
  ('complete', 'Complete disaster recovery drill', 'yearly', 'person', 'full', 'database', 'drills');

create table backup.drills (
  id uuid primary key default gen_random_uuid(),
  drill text not null references backup.drill_calendar (name),
  -- the run that carries its legs
  run_id uuid unique references backup.runs (id) on delete set null,
  ordered_by text not null default 'role:' || session_user,
  started_at timestamptz not null default backup.clock_now(),
  finished_at timestamptz,
  backup_id uuid,
  -- the table of which rows are restored, to take another one the next time
  subject text,
  -- made for it, and until when it was there
  database_name text,
  database_dropped_at timestamptz,
  ok boolean,
  rto_seconds numeric,
  rpo_seconds numeric,
  recovery_objective bigint,
  loss_objective bigint,
  evidence jsonb not null default '{}',
  constraint finished_drill_says_whether_it_went_well check ((finished_at is null) = (ok is null)),
  constraint finished_at_is_not_before_started_at check (finished_at >= started_at),
  constraint seconds_are_not_negative check (rto_seconds >= 0 and rpo_seconds >= 0),
  constraint evidence_is_an_object check (jsonb_typeof(evidence) = 'object')
);
comment on table backup.drills is 'Restores done to prove that restores work, with what they measured and their signed evidence.';
create index drills_by_age on backup.drills (drill, started_at);

alter table backup.objectives enable row level security;
alter table backup.drill_calendar enable row level security;
alter table backup.drills enable row level security;
revoke all on table backup.objectives, backup.drill_calendar, backup.drills from public;
