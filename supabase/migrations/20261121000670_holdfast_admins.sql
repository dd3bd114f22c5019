-- Administrators: who they are is changed by these functions or by hand, and every change stands in the audit.

-- The user with this id or address. HF510 (user_not_found) where there is none, HF509 (rows_ambiguous) where several have the address.
create function backup.user_of(who text) returns uuid
language plpgsql
stable
set search_path = ''
as $$
declare
  found_ids uuid[];
begin
  if pg_catalog.to_regclass('auth.users') is null then
    raise exception 'there is no auth.users here' using errcode = 'HF510', hint = 'Administrators are users of the project.';
  end if;
  execute 'select pg_catalog.array_agg(u.id) from auth.users as u
    where u.deleted_at is null and (u.id::text = pg_catalog.lower($1) or pg_catalog.lower(u.email) = pg_catalog.lower($1))'
  into found_ids using pg_catalog.btrim(who);
  if pg_catalog.cardinality(found_ids) > 1 then
    raise exception 'several users have this address' using errcode = 'HF509', hint = 'Give the id of the one that is meant.';
  elsif found_ids is null then
    raise exception 'there is no such user' using errcode = 'HF510';
  end if;
  return found_ids[1];
end
$$;
revoke all on function backup.user_of(text) from public;

-- Makes a user, named by id or address, an administrator. Returns whether they were none before. HF510 (user_not_found).
create function backup.add_admin(who text, note text default '') returns boolean
language sql
volatile
set search_path = ''
as $$
  with added as (
    insert into backup.admins (user_id, note) values (backup.user_of(who), coalesce(add_admin.note, ''))
    on conflict (user_id) do nothing
    returning user_id
  )
  select exists (select from added)
$$;
comment on function backup.add_admin(text, text) is 'Makes a user (id or address) an administrator of the backups.';
revoke all on function backup.add_admin(text, text) from public;

-- Takes it from them again. `who`: an id, or the address of a user who is there. Returns whether they were one.
-- HF007 (forbidden) for the last one.
create function backup.remove_admin(who text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  -- an administrator whose user is gone has no address any more
  person uuid := case
    when pg_catalog.btrim(who) ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then pg_catalog.btrim(who)::uuid
    else backup.user_of(who)
  end;
begin
  delete from backup.admins as a where a.user_id = person;
  return found;
end
$$;
comment on function backup.remove_admin(text) is 'Takes a user (id or address) from the administrators of the backups.';
revoke all on function backup.remove_admin(text) from public;

-- The administrators, oldest first. `email` is null for one whose user is gone; without a second factor nobody can use it.
create function backup.list_admins()
  returns table (user_id uuid, email text, second_factor boolean, added_at text, added_by text, note text)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
begin
  if pg_catalog.to_regclass('auth.users') is null or pg_catalog.to_regclass('auth.mfa_factors') is null then
    return query
      select a.user_id, null::text, false, pg_catalog.to_char(a.added_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        a.added_by, a.note
      from backup.admins as a order by a.added_at, a.user_id;
  else
    return query execute $sql$
      select a.user_id, u.email::text,
        exists (select from auth.mfa_factors as f where f.user_id = a.user_id and f.status = 'verified'),
        pg_catalog.to_char(a.added_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), a.added_by, a.note
      from backup.admins as a left join auth.users as u on u.id = a.user_id and u.deleted_at is null
      order by a.added_at, a.user_id
    $sql$;
  end if;
end
$$;
revoke all on function backup.list_admins() from public;

-- One at a time: of two who take each other away, the second sees what the first has done.
create function backup.before_admins() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if tg_op = 'TRUNCATE' then
    raise exception 'somebody has to remain who may administrate the backups'
      using errcode = 'HF007', hint = 'Remove them one by one: select backup.remove_admin(''<id>'');';
  elsif pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'administrators are changed in a transaction that is read committed' using errcode = 'HF007';
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:admins', 0));
  return null;
end
$$;
revoke all on function backup.before_admins() from public;

create function backup.after_admins() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if not exists (select from backup.admins) then
    raise exception 'the last administrator cannot be removed'
      using errcode = 'HF007', hint = 'Add another one first: select backup.add_admin(''<id or address>'');';
  end if;
  return null;
end
$$;
revoke all on function backup.after_admins() from public;

create function backup.audit_admin() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if tg_op in ('UPDATE', 'DELETE') and (tg_op = 'DELETE' or new.user_id <> old.user_id) then
    perform backup.audit('admin.removed', backup.person_hash(old.user_id::text), '{}');
  end if;
  if tg_op in ('INSERT', 'UPDATE') and (tg_op = 'INSERT' or new.user_id <> old.user_id) then
    perform backup.audit('admin.added', backup.person_hash(new.user_id::text), '{}');
  end if;
  return null;
end
$$;
revoke all on function backup.audit_admin() from public;

create trigger admins_one_at_a_time before insert or update or delete or truncate on backup.admins
  for each statement execute function backup.before_admins();
create trigger admins_remain after delete on backup.admins
  for each statement execute function backup.after_admins();
create trigger admins_in_the_audit after insert or update or delete on backup.admins
  for each row execute function backup.audit_admin();
-- always: a session under session_replication_role = replica would pass ordinary triggers
alter table backup.admins enable always trigger admins_one_at_a_time;
alter table backup.admins enable always trigger admins_remain;
alter table backup.admins enable always trigger admins_in_the_audit;
