-- Signed calls of the Edge Functions, and the legs of runs that they carry.
-- Lock order: backup.calls → advisory lock of a run's legs → backup.runs → … (as in 0400).

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('leg_wall_seconds', 'integer', '160', 5, 600, 'a leg that has not ended by then was ended by the platform');

-- Signed calls -------------------------------------------------------------------------------------------------------

-- One row a call of a function, by its nonce; what keeps a call from being accepted twice, and what is still out.
-- Status: sent → begun → ended | lost, sent → failed | lost. Calls that are signed elsewhere start as begun.
create table backup.calls (
  nonce text primary key,
  function_name text not null,
  run_id uuid references backup.runs (id) on delete cascade,
  request_id bigint,
  status text not null,
  expires_at timestamptz not null,
  made_at timestamptz not null default backup.clock_now(),
  begun_at timestamptz,
  ended_at timestamptz,
  answer text,
  constraint nonce_is_short check (nonce ~ '^[A-Za-z0-9_-]{16,64}$'),
  constraint status_is_known check (status in ('sent', 'begun', 'ended', 'failed', 'lost')),
  constraint begun_call_says_when check (status not in ('begun', 'ended') or begun_at is not null),
  constraint finished_call_says_when check ((status in ('ended', 'failed', 'lost')) = (ended_at is not null))
);
comment on table backup.calls is 'Calls of Edge Functions: each nonce is accepted once, unfinished ones are watched.';
create index calls_by_run on backup.calls (run_id);
create index calls_unfinished on backup.calls (made_at) where status in ('sent', 'begun');
create index calls_by_request on backup.calls (request_id) where status = 'sent';
create index calls_by_expiry on backup.calls (expires_at);
alter table backup.calls enable row level security;
revoke all on table backup.calls from public;

-- A secret from Vault; HF002 (setting_missing) when there is none of that name, or no Vault. The value is never logged.
create function backup.vault_secret(secret_name text) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  secret text;
begin
  if pg_catalog.to_regclass('vault.decrypted_secrets') is not null then
    select s.decrypted_secret into secret from vault.decrypted_secrets as s where s.name = secret_name;
  end if;
  if coalesce(secret, '') = '' then
    raise exception 'Vault has no secret named %', secret_name
      using errcode = 'HF002', hint = pg_catalog.format('select vault.create_secret(''<value>'', %L);', secret_name);
  end if;
  return secret;
end
$$;
revoke all on function backup.vault_secret(text) from public;

-- What is signed for a call: four lines, the last the SHA-256 of the body's bytes. docs/http.md shows it with openssl.
create function backup.call_signature(
  function_name text, issued_at bigint, nonce text, body bytea, secret text
) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select pg_catalog.encode(
    backup.hmac_sha256(
      pg_catalog.convert_to(
        pg_catalog.concat_ws(
          e'\n', function_name, issued_at::text, nonce, pg_catalog.encode(pg_catalog.sha256(body), 'hex')
        ),
        'UTF8'
      ),
      pg_catalog.convert_to(secret, 'UTF8')
    ),
    'hex'
  )
$$;
revoke all on function backup.call_signature(text, bigint, text, bytea, text) from public;

-- Queues a signed call of an Edge Function and returns pg_net's request id; it leaves after commit.
-- Address and secret come from Vault (`holdfast_project_url`, `holdfast_worker_secret`); the secret goes nowhere.
-- HF002 (setting_missing) when one of them, or pg_net, is missing: the caller records what did not happen.
create function backup.invoke(function_name text, body jsonb) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  project_url text := pg_catalog.rtrim(backup.vault_secret('holdfast_project_url'), '/');
  worker_secret text := backup.vault_secret('holdfast_worker_secret');
  moment timestamptz := backup.clock_now();
  issued_at bigint := pg_catalog.floor(pg_catalog.date_part('epoch', moment));
  nonce text := pg_catalog.gen_random_uuid()::text;
  request_id bigint;
begin
  if function_name !~ '^[a-z][a-z-]{0,40}$' then
    raise exception 'there is no function %', function_name using errcode = 'HF008';
  end if;
  if project_url !~ '^https?://[^\s/?#@]+$' then
    raise exception 'the Vault secret holdfast_project_url is no address of a project'
      using errcode = 'HF002', hint = 'It looks like https://<project>.supabase.co, without a path.';
  end if;
  if pg_catalog.length(worker_secret) < 32 then
    raise exception 'the Vault secret holdfast_worker_secret is shorter than 32 characters'
      using errcode = 'HF002', hint = 'Make one with: openssl rand -base64 48';
  end if;
  if not exists (
    select from pg_catalog.pg_proc as p
    where p.pronamespace = pg_catalog.to_regnamespace('net') and p.proname = 'http_post'
  ) then
    raise exception 'pg_net is not installed' using errcode = 'HF002', hint = 'create extension pg_net;';
  end if;
  request_id := net.http_post(
    url => project_url || '/functions/v1/' || function_name,
    body => body,
    headers => pg_catalog.jsonb_build_object(
      'content-type', 'application/json',
      'x-holdfast-timestamp', issued_at::text,
      'x-holdfast-nonce', nonce,
      'x-holdfast-signature', backup.call_signature(
        function_name, issued_at, nonce, pg_catalog.convert_to(body::text, 'UTF8'), worker_secret
      )
    ),
    timeout_milliseconds => (backup.setting_integer('call_timeout_seconds') * 1000)::integer
  );
  insert into backup.calls (nonce, function_name, run_id, request_id, status, expires_at, made_at)
  values (
    nonce, function_name, (body ->> 'run')::uuid, request_id, 'sent',
    pg_catalog.to_timestamp(issued_at) + interval '5 minutes', moment
  );
  return request_id;
end
$$;
comment on function backup.invoke(text, jsonb) is 'Queues a signed call of an Edge Function; returns pg_net''s id.';
revoke all on function backup.invoke(text, jsonb) from public;

-- Takes a call whose signature held. True exactly once a nonce; the row stays until the call could no longer be valid.
create function backup.accept_call(nonce text, function_name text, expires_at timestamptz) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment timestamptz := backup.clock_now();
  accepted boolean;
begin
  if accept_call.expires_at <= moment then
    return false;
  end if;
  insert into backup.calls as c (nonce, function_name, status, expires_at, made_at, begun_at)
  values (accept_call.nonce, accept_call.function_name, 'begun', accept_call.expires_at, moment, moment)
  on conflict (nonce) do update
    set status = 'begun', begun_at = moment
    where c.status = 'sent' and c.function_name = accept_call.function_name
  returning true into accepted;
  return coalesce(accepted, false);
end
$$;
revoke all on function backup.accept_call(text, text, timestamptz) from public;

-- The work that a call asked for is over. Nothing happens when the watchdog has given it up meanwhile.
create function backup.end_call(nonce text, answer text) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.calls as c
  set status = 'ended', ended_at = backup.clock_now(), answer = pg_catalog.left(end_call.answer, 500)
  where c.nonce = end_call.nonce and c.status = 'begun'
$$;
revoke all on function backup.end_call(text, text) from public;

-- Says which run an accepted call works on, and returns that run's status. HF414 when there is no such run of the kind.
create function backup.attach_call(nonce text, run uuid, kind text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  run_status text;
begin
  select r.status into run_status from backup.runs as r where r.id = attach_call.run and r.kind = attach_call.kind;
  if run_status is null then
    raise exception 'there is no % run %', attach_call.kind, attach_call.run using errcode = 'HF414';
  end if;
  update backup.calls as c
  set run_id = attach_call.run
  where c.nonce = attach_call.nonce and c.status = 'begun' and c.run_id is distinct from attach_call.run;
  return run_status;
end
$$;
revoke all on function backup.attach_call(text, uuid, text) from public;

-- Legs ---------------------------------------------------------------------------------------------------------------

-- How many tasks of the run could be claimed now; counts by the conditions of backup.claim_task.
create function backup.claimable_tasks(run uuid) returns bigint
language sql
volatile
set search_path = ''
as $$
  select count(*)
  from backup.runs as r
  join backup.tasks as t on t.run_id = r.id and t.attempt in (0, r.attempt)
  where r.id = claimable_tasks.run
    and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
    and (t.status = 'open' or (t.status = 'leased' and t.lease_until < backup.clock_now()))
    and (t.not_before is null or t.not_before <= backup.clock_now())
    and backup.task_stage(t.kind) = (
      select min(backup.task_stage(other.kind)) from backup.tasks as other
      where other.run_id = claimable_tasks.run and other.attempt in (0, r.attempt) and other.status in ('open', 'leased', 'failed')
    )
$$;
revoke all on function backup.claimable_tasks(uuid) from public;

-- Seconds until the first task that was given back may be claimed again; null when none waits for that, or when one can
-- be claimed now.
create function backup.seconds_until_claimable(run uuid) returns double precision
language sql
volatile
set search_path = ''
as $$
  select pg_catalog.date_part('epoch', min(t.not_before) - backup.clock_now())
  from backup.runs as r
  join backup.tasks as t on t.run_id = r.id and t.attempt in (0, r.attempt) and t.status = 'open'
  where r.id = seconds_until_claimable.run
    and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
    and t.not_before > backup.clock_now()
    and backup.claimable_tasks(seconds_until_claimable.run) = 0
$$;
revoke all on function backup.seconds_until_claimable(uuid) from public;

-- Calls functions until as many legs of the run are out as its concurrency and its claimable tasks allow; returns how
-- many were called. Runs that the CLI works on are left to it: its store may be another one.
create function backup.next_legs(run uuid) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  found_run record;
  legs_out bigint;
  -- on their way to a task that still counts as claimable
  legs_without_task bigint;
  wanted bigint;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:legs:' || next_legs.run, 0));
  select r.kind, r.concurrency into found_run
  from backup.runs as r
  where r.id = next_legs.run and r.origin <> 'cli' and r.kind in ('full', 'verify', 'replicate', 'prune', 'drill')
    and r.status in ('queued', 'snapshotting', 'copying', 'finishing');
  if not found then
    return 0;
  end if;
  select count(*) into legs_out from backup.calls as c where c.run_id = next_legs.run and c.status in ('sent', 'begun');
  legs_without_task := greatest(
    legs_out - (
      select count(*) from backup.tasks as t
      where t.run_id = next_legs.run and t.status = 'leased' and t.lease_until >= backup.clock_now()
    ),
    0
  );
  wanted := greatest(
    least(found_run.concurrency - legs_out, backup.claimable_tasks(next_legs.run) - legs_without_task), 0
  );
  for leg in 1..wanted loop
    perform backup.invoke(
      case found_run.kind when 'verify' then 'verify' when 'prune' then 'retention' when 'drill' then 'drill' else 'backup' end,
      pg_catalog.jsonb_build_object(
        'action', case found_run.kind when 'replicate' then 'copy' else 'leg' end, 'run', next_legs.run
      )
    );
  end loop;
  return wanted;
end
$$;
revoke all on function backup.next_legs(uuid) from public;

-- The same, for callers whose work is done: what keeps a leg from being called fails the run instead of the caller.
create function backup.launch_run(run uuid) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  told text;
  way_out text;
begin
  return backup.next_legs(launch_run.run);
exception
  when sqlstate 'HF002' then
    get stacked diagnostics told = message_text, way_out = pg_exception_hint;
    perform backup.fail_run(launch_run.run, 'setting_missing', told, nullif(way_out, ''));
    return 0;
end
$$;
revoke all on function backup.launch_run(uuid) from public;

-- What a function says when its leg is over; returns how many further legs were called. `failure` is the error that
-- kept the leg from its tasks, {code, message, hint, retry}, null when there was none: one that may heal raises an
-- alert and is tried again by the watchdog, any other fails the run.
create function backup.end_leg(nonce text, run uuid, failure jsonb default null) returns integer
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.end_call(end_leg.nonce, coalesce(failure ->> 'code', 'done'));
  if failure is null then
    perform backup.resolve_alert('leg_failed', 'run:' || end_leg.run);
    return backup.launch_run(end_leg.run);
  end if;
  perform backup.note_store_failure(failure);
  if failure ->> 'retry' = 'backoff' then
    perform backup.raise_alert(
      'leg_failed', 'run:' || end_leg.run,
      pg_catalog.format('a leg could not work: %s (%s)', failure ->> 'message', failure ->> 'code'), 'warning'
    );
  else
    perform backup.fail_run(end_leg.run, failure ->> 'code', failure ->> 'message', failure ->> 'hint');
  end if;
  return 0;
end
$$;
revoke all on function backup.end_leg(text, uuid, jsonb) from public;
