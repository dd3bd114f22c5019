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
  ('recovery', 'export', 60, 'at once: the download of what belongs to a user begins'),
  ('loss', 'database', 86400, 'a full backup each day'),
  ('loss', 'user_data', 75, 'the change stream is drained each minute, and the drain takes its time'),
  ('loss', 'files', 300, 'objects of Storage are copied every few minutes');

create table backup.drills (
  id uuid primary key default gen_random_uuid(),
  scope text not null,
  started_at timestamptz not null default backup.clock_now(),
  finished_at timestamptz,
  ok boolean,
  rto_seconds numeric,
  rpo_seconds numeric,
  evidence jsonb not null default '{}',
  constraint scope_is_known check (scope in ('record', 'table', 'user', 'full', 'point', 'export')),
  constraint finished_drill_says_whether_it_went_well check ((finished_at is null) = (ok is null)),
  constraint finished_at_is_not_before_started_at check (finished_at >= started_at),
  constraint seconds_are_not_negative check (rto_seconds >= 0 and rpo_seconds >= 0),
  constraint evidence_is_an_object check (jsonb_typeof(evidence) = 'object')
);
comment on table backup.drills is 'Restores done to prove that restores work, with what they measured.';
create index drills_by_age on backup.drills (started_at);

alter table backup.objectives enable row level security;
alter table backup.drills enable row level security;
revoke all on table backup.objectives, backup.drills from public;
