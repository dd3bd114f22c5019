-- The maintenance log: what was tested, maintained, repaired and reviewed, by the system and by people. Rows are added and never
-- change. At the dashboard (SQL editor):
--   select backup.log_maintenance('test', 'a-person', 'Success', 'restored the test account, 6 minutes');
--   select * from public.backup_maintenance_log order by id desc limit 20;

create table backup.maintenance_log (
  id bigint generated always as identity primary key,
  recorded_at timestamptz not null default backup.clock_now(),
  kind text not null,
  action text not null,
  result text not null,
  notes text not null default '',
  recorded_by text not null,
  constraint kind_is_a_snake_case_word check (kind ~ '^[a-z][a-z_]{0,40}$'),
  constraint action_is_a_short_line check (length(action) between 1 and 200 and action !~ '[\r\n]'),
  constraint result_is_a_short_line check (length(result) between 1 and 200 and result !~ '[\r\n]'),
  constraint notes_are_short check (length(notes) <= 4000)
);
comment on table backup.maintenance_log is
  'Date, type, action, result, notes: what was tested and maintained. Append-only; no names or addresses of users in it.';
create index maintenance_log_by_kind on backup.maintenance_log (kind, action, id);
alter table backup.maintenance_log enable row level security;
revoke all on table backup.maintenance_log from public;

create function backup.refuse_log_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'the maintenance log only grows: % is refused', lower(tg_op)
    using errcode = 'HF007', hint = 'Write a further row that corrects the earlier one.';
end
$$;
revoke all on function backup.refuse_log_change() from public;

create trigger maintenance_log_only_grows
  before update or delete or truncate on backup.maintenance_log
  for each statement execute function backup.refuse_log_change();
-- always: a session under session_replication_role = replica would pass an ordinary trigger
alter table backup.maintenance_log enable always trigger maintenance_log_only_grows;

-- Adds a row, with its audit row, and returns its id. `kind`: a word such as `test`, `maintenance`, `review`, `incident`;
-- `result`: `Success`, `Failure`, or what else came out. HF003 (payload_invalid) for a line that is empty or too long.
create function backup.log_maintenance(kind text, action text, result text, notes text default '') returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  log_id bigint;
begin
  insert into backup.maintenance_log (kind, action, result, notes, recorded_by)
  values (
    log_maintenance.kind, pg_catalog.btrim(log_maintenance.action), pg_catalog.btrim(log_maintenance.result),
    coalesce(log_maintenance.notes, ''),
    coalesce(
      backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'),
      'role:' || session_user
    )
  )
  returning id into log_id;
  perform backup.audit(
    'log.added', 'log:' || log_id,
    pg_catalog.jsonb_build_object(
      'kind', log_maintenance.kind, 'action', pg_catalog.btrim(log_maintenance.action), 'result', pg_catalog.btrim(log_maintenance.result)
    )
  );
  return log_id;
exception
  when check_violation or not_null_violation then
    raise exception 'the row does not fit the maintenance log: %', sqlerrm
      using errcode = 'HF003', hint = 'Type: a word of small letters; action and result: a line of 200 characters; notes: 4,000.';
end
$$;
comment on function backup.log_maintenance(text, text, text, text) is 'Adds a row to the maintenance log.';
revoke all on function backup.log_maintenance(text, text, text, text) from public;

-- What administrators see through the API ----------------------------------------------------------------------------

create view public.backup_maintenance_log with (security_invoker = true) as
select l.id, l.recorded_at, l.kind, l.action, l.result, l.notes, l.recorded_by
from backup.maintenance_log as l;
comment on view public.backup_maintenance_log is 'Holdfast: tests and maintenance. Administrators with a second factor only.';
revoke all on table public.backup_maintenance_log from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_maintenance_log from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_the_log on backup.maintenance_log
    for select to authenticated using ((select backup.is_admin()));
  grant select (id, recorded_at, kind, action, result, notes, recorded_by) on backup.maintenance_log to authenticated;
  grant select on table public.backup_maintenance_log to authenticated;
end
$$;
