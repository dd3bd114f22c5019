-- Who this database is, and where it may write: docs/decisions/0023-identity.md. Lock order: backup.identity →
-- backup.claims → backup.alerts.

-- Every claim that this database has made, or was about to make, on a place in a store. One that a store holds and that is
-- not here was made by somebody else: by the original of this copy, or by a copy of this original.
create table backup.claims (
  nonce text primary key,
  -- label of the store with the prefix
  store text not null,
  number bigint not null,
  intended_at timestamptz not null default backup.clock_now(),
  -- it was put and read back
  held_at timestamptz,
  -- start of the server that held it
  held_while timestamptz,
  constraint nonce_has_32_hex_digits check (nonce ~ '^[0-9a-f]{32}$'),
  constraint number_counts_from_one check (number > 0),
  constraint held_claim_says_by_which_server check ((held_at is null) = (held_while is null)),
  constraint a_number_is_claimed_once_in_a_store unique (store, number)
);
comment on table backup.claims is 'Claims of this database on places in stores; the newest there has to be one of them.';
alter table backup.claims enable row level security;
revoke all on table backup.claims from public;

-- May this database do what only one may: prune, mail, drop what is old? Closed while anything about it is in doubt.
create function backup.is_original() returns boolean
language sql
stable
set search_path = ''
as $$
  select i.standing = 'original' and i.present_ref is null
    and i.system_identifier = c.system_identifier::text and i.database_name = pg_catalog.current_database()::text
  from backup.identity as i, pg_catalog.pg_control_system() as c
$$;
comment on function backup.is_original() is 'False for a copy, and for what may be one, until it is adopted.';
revoke all on function backup.is_original() from public;

-- May an alert of this kind leave the database, as mail or otherwise? Those about the identity always do.
create function backup.may_tell(kind text) returns boolean
language sql
stable
set search_path = ''
as $$
  select kind = 'identity_changed' or backup.is_original()
$$;
revoke all on function backup.may_tell(text) from public;

-- This database is not the one that wrote at `found_prefix`, or must not be: from now on it writes to a fresh prefix.
-- Nothing where another session has noticed it already. Returns where it writes.
create function backup.become_copy(found_prefix text, because text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.identity;
begin
  update backup.identity as i
  set standing = 'copy', copied_because = because, noticed_at = backup.clock_now(), adopting = false,
    store_prefix = 'clone-' || pg_catalog.substr(pg_catalog.md5(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())), 1, 8),
    system_identifier = c.system_identifier::text, database_name = pg_catalog.current_database()
  from pg_catalog.pg_control_system() as c
  where i.store_prefix = found_prefix
  returning i.* into ours;
  if ours.install_id is null then
    return (select i.store_prefix from backup.identity as i);
  end if;
  perform backup.audit('install.copied', 'prefix:' || ours.store_prefix, pg_catalog.jsonb_build_object(
    'because', because, 'wrote_to', found_prefix
  ));
  perform backup.raise_alert(
    'identity_changed', 'store',
    pg_catalog.format(
      '%1$s. Its backups go to %2$s/ in its store, apart from the others, and nothing is pruned or mailed, until a person '
      'decides. If this is the database that goes on: `holdfast adopt`, or select backup.adopt(''%2$s''); if it is a copy '
      'that is kept: `holdfast adopt --keep-prefix`, or select backup.adopt(''%2$s'', true);',
      because, ours.store_prefix
    )
  );
  return ours.store_prefix;
end
$$;
revoke all on function backup.become_copy(text, text) from public;

-- What a function tells when it starts work: which project it runs in. The first to tell is believed. Returns 'same',
-- 'recorded', or what differs now: 'server' (was it upgraded? the next writer compares the store's last claim), 'project'
-- (this database is a copy).
create function backup.recognise(project_ref text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.identity;
  here text;
begin
  select i.* into known from backup.identity as i;
  here := coalesce(known.present_ref, known.project_ref);
  if recognise.project_ref is null or recognise.project_ref = here then
    return case
      when recognise.project_ref is null then 'same'
      when known.system_identifier = (select c.system_identifier::text from pg_catalog.pg_control_system() as c) then 'same'
      else 'server'
    end;
  elsif here is null then
    update backup.identity as i set project_ref = recognise.project_ref where i.project_ref is null;
    perform backup.audit('install.recognised', 'project:' || recognise.project_ref, '{}');
    return 'recorded';
  end if;
  update backup.identity as i
  set present_ref = case when i.project_ref <> recognise.project_ref then recognise.project_ref end;
  perform backup.become_copy(known.store_prefix, pg_catalog.format(
    'this database belongs to project %s and now runs in %s: it is a copy', here, recognise.project_ref
  ));
  return 'project';
end
$$;
revoke all on function backup.recognise(text) from public;

-- Due with each start of the server, since no disk is put back under one that runs, and once an hour.
create function backup.claim_is_due(store text) returns boolean
language sql
stable
set search_path = ''
as $$
  select not exists (
    select from backup.claims as c
    where c.store = claim_is_due.store and c.held_while = pg_catalog.pg_postmaster_start_time()
      and c.held_at between backup.clock_now() - interval '1 hour' and backup.clock_now() + interval '1 minute'
  )
$$;
revoke all on function backup.claim_is_due(text) from public;

-- Before a claim is put: written down first, so that whoever dies behind the put knows it as its own. Returns the nonce to
-- put, which is another one's where that was faster, or died.
create function backup.intend_claim(store text, number bigint, nonce text) returns text
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  agreed text;
begin
  -- a role's own setting could let the commit return before it is durable
  perform pg_catalog.set_config('synchronous_commit', 'local', true);
  insert into backup.claims as c (store, number, nonce)
  values (intend_claim.store, intend_claim.number, intend_claim.nonce)
  on conflict (store, number) do update set number = excluded.number
  returning c.nonce into agreed;
  return agreed;
end
$$;
revoke all on function backup.intend_claim(text, bigint, text) from public;

-- A claim was put and read back. The server may be another one since the last: told for a day. `adopts`: this database has
-- taken the original's place, and that of `installs`.
create function backup.hold_claim(nonce text, adopts boolean default false, installs uuid[] default '{}') returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.identity;
  held backup.claims;
  server text := (select c.system_identifier::text from pg_catalog.pg_control_system() as c);
  moment timestamptz := backup.clock_now();
begin
  select i.* into known from backup.identity as i for update;
  update backup.claims as c
  set held_at = moment, held_while = pg_catalog.pg_postmaster_start_time()
  where c.nonce = hold_claim.nonce
  returning c.* into held;
  update backup.identity as i
  set system_identifier = server, database_name = pg_catalog.current_database()
  where (i.system_identifier, i.database_name) is distinct from (server, pg_catalog.current_database()::text);
  if known.system_identifier <> server and not adopts
    and exists (select from backup.claims as c where c.held_at is not null and c.nonce <> hold_claim.nonce)
  then
    perform backup.audit('install.moved', 'server:' || server, pg_catalog.jsonb_build_object('from', known.system_identifier));
    perform backup.raise_alert(
      'identity_changed', 'server',
      'the database server is another one than before, and nobody else has written since: it was upgraded or moved, and goes on',
      'warning'
    );
  else
    perform backup.resolve_alert(a.kind, a.subject)
    from backup.alerts as a
    where a.kind = 'identity_changed' and a.subject = 'server' and a.status <> 'resolved'
      and a.last_seen_at < backup.clock_now() - interval '1 day';
  end if;
  if adopts and known.adopting then
    update backup.identity as i
    set standing = 'original', store_prefix = '', copied_because = null, noticed_at = null, adopting = false,
      adopted_at = moment, project_ref = coalesce(i.present_ref, i.project_ref), present_ref = null;
    perform backup.note_adopted(installs);
    perform backup.resolve_alert('identity_changed', 'store');
    perform backup.resolve_alert('identity_changed', 'adoption');
    perform backup.audit('install.adopted', 'store:' || pg_catalog.substr(held.store, 1, 280), pg_catalog.jsonb_build_object(
      'claim', held.number, 'wrote_to', known.store_prefix
    ));
  end if;
  delete from backup.claims as c where c.store = held.store and c.number < held.number - 1000;
end
$$;
revoke all on function backup.hold_claim(text, boolean, uuid[]) from public;

-- What a person says of a copy, naming the prefix that the alert told: it takes the original's place and store, or, with
-- `keep_prefix`, stays for good where it writes now, as an original of its own. HF415 (run_state) where it is no copy, HF513
-- (confirmation_wrong) for another prefix.
create function backup.adopt(prefix text, keep_prefix boolean default false) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.identity;
begin
  select i.* into known from backup.identity as i for update;
  if known.standing = 'original' then
    raise exception 'this database is no copy: there is nothing to adopt' using errcode = 'HF415';
  elsif adopt.prefix is distinct from known.store_prefix then
    raise exception 'this database does not write to that prefix'
      using errcode = 'HF513', hint = 'The prefix stands in the alert, and in backup.identity.';
  elsif keep_prefix then
    update backup.identity as i
    set standing = 'original', copied_because = null, noticed_at = null, adopting = false,
      project_ref = coalesce(i.present_ref, i.project_ref), present_ref = null,
      system_identifier = c.system_identifier::text, database_name = pg_catalog.current_database()
    from pg_catalog.pg_control_system() as c;
    perform backup.resolve_alert('identity_changed', 'store');
    perform backup.resolve_alert('identity_changed', 'adoption');
    perform backup.audit('install.kept', 'prefix:' || known.store_prefix, '{}');
    return pg_catalog.format('this database keeps %s/ for good', known.store_prefix);
  end if;
  update backup.identity as i set adopting = true;
  perform backup.audit('install.adopting', 'prefix:' || known.store_prefix, '{}');
  return 'the next backup, or drain of the change stream, takes the store over';
end
$$;
comment on function backup.adopt(text, boolean) is 'A copy takes the original''s place, or keeps its own prefix for good.';
revoke all on function backup.adopt(text, boolean) from public;

-- The store could not be taken over, and is not tried again until somebody says so once more.
create function backup.refuse_adoption(reason text) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.identity as i set adopting = false where i.adopting;
  if found then
    perform backup.audit('install.refused', 'identity', pg_catalog.jsonb_build_object('reason', reason));
    perform backup.raise_alert(
      'identity_changed', 'adoption', pg_catalog.format('the original''s store could not be taken over: %s', reason)
    );
  end if;
end
$$;
revoke all on function backup.refuse_adoption(text) from public;
