-- Erasures: people who are taken out of the live project for good. What was erased stands in the ledger of both stores, as keyed
-- hashes; here stands how far each erasure is. At the dashboard (SQL editor):
--   select backup.hold_erasure('<user id>', 'a court order of 3 May');
--   select * from public.backup_erasures order by begun_at desc;
-- An erasure is carried out by the CLI (`holdfast erase`). docs/erasure.md. Lock order: the advisory lock holdfast:erasures, then
-- the row of one erasure.

create table backup.erasures (
  id uuid primary key default gen_random_uuid(),
  -- who it is, as a keyed hash that means nothing outside of this database
  person text not null unique,
  -- recorded: in the ledger of the first store; emptied: the rows are gone; searched: files too, and nothing was found; done: the
  -- ledger is in both stores
  status text not null default 'begun',
  -- names in the stores, and the first store as it was called when they were put there
  entries text[] not null default '{}',
  store text,
  -- rows that went, by table
  rows jsonb not null default '{}',
  files integer not null default 0,
  -- where the person's id still stands, in rows of others or tables without a path to people: [{table, rows}]
  mentions jsonb not null default '[]',
  requested_by text not null,
  begun_at timestamptz not null default backup.clock_now(),
  emptied_at timestamptz,
  finished_at timestamptz,
  constraint person_is_a_keyed_hash check (person ~ '^person:[0-9a-f]{64}$'),
  constraint status_is_known check (status in ('begun', 'recorded', 'emptied', 'searched', 'done')),
  constraint recorded_erasure_has_entries check (status = 'begun' or entries <> '{}'),
  constraint emptied_erasure_says_when check ((status in ('emptied', 'searched', 'done')) = (emptied_at is not null)),
  constraint done_erasure_says_when check ((status = 'done') = (finished_at is not null)),
  constraint rows_are_an_object check (jsonb_typeof(rows) = 'object'),
  constraint mentions_are_a_list check (jsonb_typeof(mentions) = 'array')
);
comment on table backup.erasures is 'One row a person who was erased, and how far it is. No name, id or address.';
alter table backup.erasures enable row level security;
revoke all on table backup.erasures from public;

create table backup.erasure_holds (
  user_id uuid primary key,
  reason text not null,
  held_by text not null,
  held_at timestamptz not null default backup.clock_now(),
  constraint reason_is_a_short_line check (length(reason) between 1 and 300 and reason !~ '[\r\n]')
);
comment on table backup.erasure_holds is 'People whose data a law keeps for now: nobody erases them until they are released.';
alter table backup.erasure_holds enable row level security;
revoke all on table backup.erasure_holds from public;

-- Users who were deleted otherwise, by Auth or by SQL: offered for erasure. The id goes once they are erased or passed over.
create table backup.departures (
  user_id uuid primary key,
  noticed_at timestamptz not null default backup.clock_now()
);
comment on table backup.departures is 'Users who were deleted, and are still in backups: erase them, or pass them over.';
alter table backup.departures enable row level security;
revoke all on table backup.departures from public;

-- Holds ---------------------------------------------------------------------------------------------------------------

-- False where it was held already; the reason is then the new one. HF003 (payload_invalid) without a reason.
create function backup.hold_erasure(user_id uuid, reason text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  fresh boolean;
begin
  if coalesce(length(hold_erasure.reason), 0) not between 1 and 300 or hold_erasure.reason ~ '[\r\n]' then
    raise exception 'a hold needs a reason, a line of at most 300 characters' using errcode = 'HF003';
  end if;
  insert into backup.erasure_holds as h (user_id, reason, held_by)
  values (hold_erasure.user_id, hold_erasure.reason, coalesce(
    backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'), 'role:' || session_user
  ))
  on conflict on constraint erasure_holds_pkey do update set reason = excluded.reason, held_by = excluded.held_by
  returning h.xmax = 0 into fresh;
  perform backup.audit('erasure.held', backup.person_hash(hold_erasure.user_id::text), pg_catalog.jsonb_build_object('reason', hold_erasure.reason));
  return fresh;
end
$$;
revoke all on function backup.hold_erasure(uuid, text) from public;

-- False where there was no hold.
create function backup.release_erasure(user_id uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  delete from backup.erasure_holds as h where h.user_id = release_erasure.user_id;
  if not found then
    return false;
  end if;
  perform backup.audit('erasure.released', backup.person_hash(release_erasure.user_id::text), '{}');
  return true;
end
$$;
revoke all on function backup.release_erasure(uuid) from public;

-- Departures ----------------------------------------------------------------------------------------------------------

-- False where nobody of that id is offered.
create function backup.pass_over_departure(user_id uuid) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  delete from backup.departures as d where d.user_id = pass_over_departure.user_id;
  if not found then
    return false;
  end if;
  perform backup.audit('departure.passed_over', backup.person_hash(pass_over_departure.user_id::text), '{}');
  perform backup.resolve_alert('user_departed', backup.person_hash(pass_over_departure.user_id::text));
  return true;
end
$$;
revoke all on function backup.pass_over_departure(uuid) from public;

-- Deleting a user never fails for it: what cannot be written down is told by a warning in the server's log.
create function backup.note_departure() returns trigger
language plpgsql
-- definer because Auth's role may not write here
security definer
set search_path = ''
as $$
begin
  begin
    insert into backup.departures (user_id) values (old.id) on conflict do nothing;
    perform backup.raise_alert(
      'user_departed', backup.person_hash(old.id::text),
      'a user was deleted and is still in backups: `holdfast erase departed` names who can be erased', 'information'
    );
  exception when others then
    raise warning 'holdfast could not note that a user was deleted: %', sqlerrm;
  end;
  return null;
end
$$;
revoke all on function backup.note_departure() from public;

-- Our own erasure, and restores, work under session_replication_role = replica, where it does not fire.
create function backup.place_departures() returns void
language plpgsql
volatile
set search_path = ''
set lock_timeout = '3s'
as $$
begin
  if pg_catalog.to_regclass('auth.users') is null or exists (
    select from pg_catalog.pg_trigger as t
    where t.tgrelid = pg_catalog.to_regclass('auth.users') and t.tgname = 'holdfast_departures'
  ) then
    return;
  end if;
  create trigger holdfast_departures after delete on auth.users for each row execute function backup.note_departure();
exception when insufficient_privilege or lock_not_available then
  raise notice 'users who are deleted are not noticed: %', sqlerrm;
end
$$;
revoke all on function backup.place_departures() from public;

do $$
begin
  perform backup.place_departures();
end
$$;

-- The way of one ------------------------------------------------------------------------------------------------------

-- What stands in the way of erasing the user: HF471 (erasure_held), HF472 (last_administrator), HF473 (user_erased).
create function backup.refuse_erasure(user_id uuid) returns void
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  held text := (select h.reason from backup.erasure_holds as h where h.user_id = refuse_erasure.user_id);
  erased timestamptz := (
    select e.emptied_at from backup.erasures as e
    where e.person = backup.person_hash(refuse_erasure.user_id::text) and e.status in ('searched', 'done')
  );
begin
  if erased is not null then
    raise exception 'the person was erased on %', pg_catalog.to_char(erased at time zone 'UTC', 'YYYY-MM-DD') using errcode = 'HF473';
  end if;
  if held is not null then
    raise exception 'a legal hold keeps the person''s data: %', held using errcode = 'HF471';
  end if;
  if exists (select from backup.admins as a where a.user_id = refuse_erasure.user_id)
    and not exists (select from backup.admins as a where a.user_id <> refuse_erasure.user_id)
  then
    raise exception 'the person is the only administrator of the backups' using errcode = 'HF472';
  end if;
end
$$;
revoke all on function backup.refuse_erasure(uuid) from public;

-- Held while a session erases, as a lock of that session: nobody restores into this database meanwhile. HF415 (run_state) where
-- another erasure or a restore is at work.
create function backup.lock_erasures() returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  busy uuid;
begin
  if not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('holdfast:erasures', 0)) then
    raise exception 'another erasure is at work, or a restore begins'
      using errcode = 'HF415', hint = 'Wait for its end, then run the same command again.';
  end if;
  select r.id into busy from backup.restores as r
  where r.target_is_here and r.status in ('planned', 'loading', 'applying') and r.scope in ('table', 'record', 'user', 'full')
    and (r.side_schema is not null or r.mode <> 'beside')
  limit 1;
  if busy is not null then
    perform pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended('holdfast:erasures', 0));
    raise exception 'restore % is at work, and may bring rows of the person', busy
      using errcode = 'HF415', hint = 'Wait for its end, or cancel it, then run the same command again.';
  end if;
end
$$;
revoke all on function backup.lock_erasures() from public;

-- For restores into this database, until the end of the caller's transaction: HF415 (run_state) while somebody is erased, HF473
-- (user_erased) where the user who is to come back was.
create function backup.refuse_while_erasing(user_id text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not pg_catalog.pg_try_advisory_xact_lock_shared(pg_catalog.hashtextextended('holdfast:erasures', 0)) then
    raise exception 'a person is being erased' using errcode = 'HF415', hint = 'Wait for the end of the erasure, then restore.';
  end if;
  if exists (
    select from backup.erasures as e where e.person = backup.person_hash(refuse_while_erasing.user_id) and e.status <> 'begun'
  ) then
    raise exception 'the person was erased, and is not brought back' using errcode = 'HF473';
  end if;
end
$$;
revoke all on function backup.refuse_while_erasing(text) from public;

-- Begins the erasure, or goes on with the one that was broken off. Under lock_erasures(). HF471 to HF473.
create function backup.begin_erasure(user_id uuid) returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  known constant text := backup.person_hash(begin_erasure.user_id::text);
  ours uuid;
begin
  perform backup.refuse_erasure(begin_erasure.user_id);
  insert into backup.erasures as e (person, requested_by)
  values (known, coalesce(
    backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'), 'role:' || session_user
  ))
  on conflict (person) do nothing returning e.id into ours;
  if ours is null then
    select e.id into ours from backup.erasures as e where e.person = known;
  end if;
  perform backup.erase_for_guardians(ours, known);
  perform backup.audit('erasure.begun', 'erasure:' || ours, pg_catalog.jsonb_build_object('person', known));
  return ours;
end
$$;
revoke all on function backup.begin_erasure(uuid) from public;

-- An entry of the ledger stands in the first store and was read back.
create function backup.record_erasure(id uuid, entry text, store text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.erasures as e
  set entries = e.entries || record_erasure.entry, store = record_erasure.store, status = case e.status when 'begun' then 'recorded' else e.status end
  where e.id = record_erasure.id and not record_erasure.entry = any (e.entries);
  perform backup.ask_for_copies();
end
$$;
revoke all on function backup.record_erasure(uuid, text, text) from public;

-- In the transaction that deletes the rows. `gone`: rows by table, added to what an earlier try has deleted. What our own tables say of the
-- person goes as well.
create function backup.empty_erasure(id uuid, user_id uuid, gone jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  update backup.erasures as e
  set status = 'emptied', emptied_at = coalesce(e.emptied_at, backup.clock_now()),
    rows = (
      select coalesce(pg_catalog.jsonb_object_agg(t.name, t.rows), '{}')
      from (
        select a.key as name, pg_catalog.sum(a.value::bigint) as rows
        from (
          select w.key, w.value from pg_catalog.jsonb_each_text(e.rows) as w
          union all
          select g.key, g.value from pg_catalog.jsonb_each_text(gone) as g
        ) as a
        group by a.key
      ) as t
    )
  where e.id = empty_erasure.id;
  if exists (select from backup.admins as a where a.user_id = empty_erasure.user_id) then
    delete from backup.admins as a where a.user_id = empty_erasure.user_id;
  end if;
  update backup.restores as r set user_id = backup.person_hash(r.user_id) where r.user_id = empty_erasure.user_id::text;
  delete from backup.imports as m where m.user_id = empty_erasure.user_id;
end
$$;
revoke all on function backup.empty_erasure(uuid, uuid, jsonb) from public;

-- Nothing of the person was found. Done at once where there is no second store, else once it has the ledger. Returns the status.
create function backup.end_erasure(id uuid, user_id uuid, files integer, mentions jsonb) returns text
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours backup.erasures;
  message text;
begin
  perform backup.forget_queued_files(end_erasure.id, end_erasure.user_id);
  update backup.erasures as e
  set status = 'searched', files = e.files + end_erasure.files, mentions = end_erasure.mentions,
    searched_at = backup.clock_now(), passed_lsn = pg_catalog.pg_current_wal_insert_lsn()
  where e.id = end_erasure.id returning e.* into ours;
  delete from backup.departures as d where d.user_id = end_erasure.user_id;
  perform backup.resolve_alert('user_departed', ours.person);
  perform backup.serve_guardians(ours.person, 'erasure');
  -- downloads hold rows from before, whoever's they are
  perform backup.end_download(d.id) from backup.downloads as d where d.status not in ('removed', 'ending') and d.created_at <= ours.searched_at;
  perform backup.end_export(x.id) from backup.exports as x where x.user_id = end_erasure.user_id and x.status not in ('removed', 'ending');
  update backup.exports as x set user_id = '00000000-0000-0000-0000-000000000000' where x.user_id = end_erasure.user_id;
  perform backup.audit(
    'erasure.searched', 'erasure:' || ours.id,
    pg_catalog.jsonb_build_object('person', ours.person, 'rows', ours.rows, 'files', ours.files, 'mentions', ours.mentions)
  );
  message := pg_catalog.format('erasure %s: a person was erased from the live project', ours.id);
  perform backup.log_maintenance('erasure', 'A person was erased', 'Success', pg_catalog.format(
    'erasure %s, %s files; backups hold the person until they age out or are rewritten', ours.id, ours.files
  ));
  perform backup.send_notice('person_erased', 'erasure:' || ours.id, message);
  perform backup.watch_erasures();
  return (select e.status from backup.erasures as e where e.id = ours.id);
end
$$;
revoke all on function backup.end_erasure(uuid, uuid, integer, jsonb) from public;

-- Each minute: erasures whose ledger stands in every store are done; an alert for one that was broken off. Returns how many are open.
create function backup.watch_erasures() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours record;
  open integer := 0;
begin
  for ours in select e.* from backup.erasures as e where e.status <> 'done' loop
    if ours.status = 'searched' and (
      not backup.has_second_store() or not exists (
        select from pg_catalog.unnest(ours.entries) as n (name) where not backup.is_copied(n.name)
      )
    ) then
      update backup.erasures as e set status = 'done', finished_at = backup.clock_now() where e.id = ours.id;
      perform backup.audit('erasure.done', 'erasure:' || ours.id, '{}');
      perform backup.resolve_alert('erasure_unfinished', 'erasure:' || ours.id);
      continue;
    end if;
    open := open + 1;
    if ours.begun_at < backup.clock_now() - interval '1 hour' then
      perform backup.raise_alert(
        'erasure_unfinished', 'erasure:' || ours.id,
        case ours.status
          when 'searched' then pg_catalog.format('the ledger of erasure %s is not in the second store yet: it is copied as soon as that answers', ours.id)
          else pg_catalog.format('erasure %s was broken off: run `holdfast erase` for the same person again, it goes on', ours.id)
        end,
        'warning'
      );
    end if;
  end loop;
  return open;
end
$$;
revoke all on function backup.watch_erasures() from public;
