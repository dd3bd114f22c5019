-- Requests of children's guardians (COPPA): who asked, how it was made sure who they are, what they agreed to, and when. Recorded by an
-- administrator at the function `privacy`. What they said, and their name and address, stand sealed in an entry of the erasure ledger, and
-- are kept as long as that is; here stand keyed hashes. An erasure that a guardian asked for is carried out as any other (`holdfast erase`).
-- At the dashboard (SQL editor):
--   select * from public.backup_guardians order by recorded_at desc;
-- Lock order: backup.erasures → backup.guardian_requests.

-- Status: open → done (all that they asked for was done) | withdrawn.
create table backup.guardian_requests (
  id uuid primary key,
  -- keyed hashes that mean nothing outside of this database: of the child's id, and of where the guardian is reached
  child text not null,
  guardian text not null,
  relation text not null,
  asks text[] not null,
  -- how it was made sure who they are
  identity_by text not null,
  said_on date not null,
  -- of the ledger, and the first store as it was called when it was put there
  entry text not null unique,
  store text not null,
  recorded_by text not null,
  recorded_at timestamptz not null default backup.clock_now(),
  status text not null default 'open',
  -- somebody made the report of what is held
  reviewed_at timestamptz,
  -- the erasure that was begun for it, and when nothing of the child was left in the live project
  erasure uuid,
  erased_at timestamptz,
  ended_at timestamptz,
  constraint people_are_keyed_hashes check (child ~ '^person:[0-9a-f]{64}$' and guardian ~ '^person:[0-9a-f]{64}$'),
  constraint relation_is_known check (relation in ('parent', 'guardian')),
  constraint asks_are_known check (asks <@ array['review', 'erasure'] and cardinality(asks) between 1 and 2),
  constraint way_of_identity_is_known check (identity_by in (
    'signed_form', 'payment', 'telephone', 'video', 'in_person', 'government_id', 'questions', 'face_match', 'text_plus', 'email_plus'
  )),
  constraint status_is_known check (status in ('open', 'done', 'withdrawn')),
  constraint over_one_says_when check ((status = 'open') = (ended_at is null)),
  constraint withdrawn_one_began_no_erasure check (status <> 'withdrawn' or erasure is null)
);
comment on table backup.guardian_requests is 'What guardians of children asked for. Keyed hashes alone; what they said is sealed in the ledger.';
create index guardian_requests_by_child on backup.guardian_requests (child);
alter table backup.guardian_requests enable row level security;
revoke all on table backup.guardian_requests from public;

create function backup.refuse_guardian_removal() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'records of consent are kept as long as the erasure ledger: % is refused', lower(tg_op) using errcode = 'HF007';
end
$$;
revoke all on function backup.refuse_guardian_removal() from public;

create trigger guardian_requests_stay
  before delete or truncate on backup.guardian_requests
  for each statement execute function backup.refuse_guardian_removal();
-- always: a session under session_replication_role = replica would pass an ordinary trigger
alter table backup.guardian_requests enable always trigger guardian_requests_stay;

-- Before anything is sealed. `said`: the statement. HF510 (user_not_found); HF473 (user_erased); HF003 (payload_invalid) where it holds
-- the child's id, address or number: the record knows the child by a hash.
create function backup.refuse_guardian(child uuid, said text) returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  hash constant text := backup.person_hash(child::text);
  known text[] := array[child::text, pg_catalog.replace(child::text, '-', '')];
begin
  if exists (select from backup.erasures as e where e.person = hash and e.status in ('searched', 'done')) then
    raise exception 'the person was erased' using errcode = 'HF473';
  elsif not backup.user_is_there(child) and not exists (select from backup.departures as d where d.user_id = child) then
    raise exception 'there is no user %', child using errcode = 'HF510';
  end if;
  if pg_catalog.to_regclass('auth.users') is not null then
    known := known || array(select w.word from auth.users as u, lateral (values (u.email::text), (u.phone::text)) as w (word) where u.id = child);
  end if;
  if exists (
    select from pg_catalog.unnest(known) as k (word)
    where length(k.word) > 3 and pg_catalog.strpos(pg_catalog.lower(said), pg_catalog.lower(k.word)) > 0
  ) then
    raise exception 'the statement holds the child''s id, address or number'
      using errcode = 'HF003', hint = 'Leave it out: the record knows the child by a keyed hash.';
  end if;
end
$$;
revoke all on function backup.refuse_guardian(uuid, text) from public;

-- The entry stands in the first store and was read back. `facts`: {id, child, guardian (where they are reached), relation, asks,
-- identity_by, said_on, entry, store}. HF007 (forbidden) where nobody is signed in; as refuse_guardian.
create function backup.record_guardian(facts jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  person text := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
  ours backup.guardian_requests;
begin
  if person is null then
    raise exception 'what a guardian asks for is recorded by an administrator' using errcode = 'HF007';
  end if;
  perform backup.refuse_guardian((facts ->> 'child')::uuid, '');
  insert into backup.guardian_requests as g (id, child, guardian, relation, asks, identity_by, said_on, entry, store, recorded_by)
  values (
    (facts ->> 'id')::uuid, backup.person_hash((facts ->> 'child')::uuid::text),
    backup.person_hash(pg_catalog.lower(pg_catalog.btrim(facts ->> 'guardian'))), facts ->> 'relation',
    array(select distinct a.word from pg_catalog.jsonb_array_elements_text(facts -> 'asks') as a (word) order by a.word),
    facts ->> 'identity_by', (facts ->> 'said_on')::date, facts ->> 'entry', facts ->> 'store', backup.person_hash(person)
  )
  returning g.* into ours;
  perform backup.audit('guardian.recorded', 'guardian:' || ours.id, backup.guardian_detail(ours));
  perform backup.ask_for_copies();
end
$$;
revoke all on function backup.record_guardian(jsonb) from public;

create function backup.guardian_detail(ours backup.guardian_requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'person', ours.child, 'guardian', ours.guardian, 'relation', ours.relation, 'asks', ours.asks, 'identity_by', ours.identity_by,
    'said_on', ours.said_on, 'entry', ours.entry, 'erasure', ours.erasure
  ))
$$;
revoke all on function backup.guardian_detail(backup.guardian_requests) from public;

-- They do not want it any more. False where it is over. HF414 (run_not_found); HF415 (run_state) once its erasure has begun.
create function backup.withdraw_guardian(id uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.guardian_requests;
begin
  select g.* into ours from backup.guardian_requests as g where g.id = withdraw_guardian.id for no key update;
  if ours.id is null then
    raise exception 'there is no request %', withdraw_guardian.id
      using errcode = 'HF414', hint = '`holdfast guardians list` shows them.';
  elsif ours.status <> 'open' then
    return false;
  elsif ours.erasure is not null then
    raise exception 'erasure % was begun for it', ours.erasure using errcode = 'HF415', hint = 'It goes on: `holdfast erase` for the same person.';
  end if;
  update backup.guardian_requests as g set status = 'withdrawn', ended_at = backup.clock_now() where g.id = ours.id;
  perform backup.audit('guardian.withdrawn', 'guardian:' || ours.id, backup.guardian_detail(ours));
  perform backup.resolve_alert('guardian_waits', 'guardian:' || ours.id);
  return true;
end
$$;
revoke all on function backup.withdraw_guardian(uuid) from public;

-- Something that guardians of the person asked for was done: `review`, or `erasure`. Their requests are over once all of it was.
create function backup.serve_guardians(person text, done text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.guardian_requests;
begin
  for ours in
    update backup.guardian_requests as g
    set reviewed_at = case when done = 'review' then backup.clock_now() else g.reviewed_at end,
      erased_at = case when done = 'erasure' then backup.clock_now() else g.erased_at end
    where g.child = person and g.status = 'open' and done = any (g.asks)
      and case done when 'review' then g.reviewed_at else g.erased_at end is null
    returning g.*
  loop
    perform backup.audit('guardian.served', 'guardian:' || ours.id, backup.guardian_detail(ours) || pg_catalog.jsonb_build_object('done', done));
    -- what was erased is shown to nobody any more
    if ours.erased_at is not null or not 'erasure' = any (ours.asks) then
      update backup.guardian_requests as g set status = 'done', ended_at = backup.clock_now() where g.id = ours.id;
      perform backup.resolve_alert('guardian_waits', 'guardian:' || ours.id);
    end if;
  end loop;
end
$$;
revoke all on function backup.serve_guardians(text, text) from public;

-- The person's erasure has begun: it is what their guardians asked for.
create function backup.erase_for_guardians(erasure uuid, person text) returns void
language sql
volatile
set search_path = ''
as $$
  update backup.guardian_requests as g set erasure = erase_for_guardians.erasure
  where g.child = erase_for_guardians.person and g.status = 'open' and 'erasure' = any (g.asks) and g.erasure is null
$$;
revoke all on function backup.erase_for_guardians(uuid, text) from public;

-- Each minute: an alert for what a guardian has asked for ten days ago and was not done. Returns how many wait.
create function backup.watch_guardians() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours record;
  waiting integer := 0;
begin
  for ours in
    select g.id, pg_catalog.array_to_string(g.asks, ' and ') as asks, g.recorded_at from backup.guardian_requests as g
    where g.status = 'open' and g.recorded_at < backup.clock_now() - interval '10 days'
  loop
    waiting := waiting + 1;
    perform backup.raise_alert(
      'guardian_waits', 'guardian:' || ours.id,
      pg_catalog.format(
        'a guardian asked for %s on %s, and it was not done: `holdfast report` and `holdfast erase` with the child''s id do it', ours.asks,
        pg_catalog.to_char(ours.recorded_at at time zone 'UTC', 'YYYY-MM-DD')
      ),
      'warning'
    );
  end loop;
  return waiting;
end
$$;
revoke all on function backup.watch_guardians() from public;

create view public.backup_guardians with (security_invoker = true) as
select g.id, g.child, g.guardian, g.relation, g.asks, g.identity_by, g.said_on, g.entry, g.recorded_by, g.recorded_at, g.status, g.reviewed_at,
  g.erasure, g.erased_at, g.ended_at
from backup.guardian_requests as g;
comment on view public.backup_guardians is 'Holdfast: what guardians of children asked for. Administrators with a second factor only.';
revoke all on table public.backup_guardians from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_guardians from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_guardian_requests on backup.guardian_requests
    for select to authenticated using ((select backup.is_admin()));
  grant select (id, child, guardian, relation, asks, identity_by, said_on, entry, recorded_by, recorded_at, status, reviewed_at, erasure,
    erased_at, ended_at)
    on backup.guardian_requests to authenticated;
  grant select on table public.backup_guardians to authenticated;
end
$$;
