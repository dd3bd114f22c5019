-- The audit log: what was done, by whom, to what. Rows are added and never change.
-- Chaining them by hash happens outside the act's transaction and writes beside this table, never into it.

-- HMAC-SHA256 (RFC 2104) from core functions alone: a plain PostgreSQL has no pgcrypto, and a project may keep it in
-- any schema. The key may have any length.
create function backup.hmac_sha256(message bytea, key bytea) returns bytea
language plpgsql
immutable
strict
set search_path = ''
as $$
declare
  block bytea := case when length(key) > 64 then pg_catalog.sha256(key) else key end;
  inner_pad bytea;
  outer_pad bytea;
begin
  block := block || pg_catalog.decode(pg_catalog.repeat('00', 64 - length(block)), 'hex');
  inner_pad := block;
  outer_pad := block;
  for i in 0..63 loop
    inner_pad := set_byte(inner_pad, i, get_byte(block, i) # 54);
    outer_pad := set_byte(outer_pad, i, get_byte(block, i) # 92);
  end loop;
  return pg_catalog.sha256(outer_pad || pg_catalog.sha256(inner_pad || message));
end
$$;
revoke all on function backup.hmac_sha256(bytea, bytea) from public;

-- One row, made at install. It only hides people in the audit; it opens no backup.
create table backup.audit_key (
  singleton boolean primary key default true,
  key bytea not null,
  constraint there_is_one_audit_key check (singleton),
  constraint key_has_32_bytes check (length(key) = 32)
);
comment on table backup.audit_key is 'Key of the hashes that stand for people in the audit log.';
alter table backup.audit_key enable row level security;
revoke all on table backup.audit_key from public;

insert into backup.audit_key (key)
select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- What stands for a person in the audit log: the same for the same id, meaningless without the key.
create function backup.person_hash(person_id text) returns text
language sql
stable
strict
set search_path = ''
as $$
  select 'person:' || pg_catalog.encode(backup.hmac_sha256(pg_catalog.convert_to(person_id, 'UTF8'), k.key), 'hex')
  from backup.audit_key as k
$$;
revoke all on function backup.person_hash(text) from public;

create table backup.audit_log (
  id bigint generated always as identity primary key,
  -- the transaction that wrote the row: the chainer takes rows only once none older can still appear
  transaction_id xid8 not null default pg_current_xact_id(),
  recorded_at timestamptz not null default backup.clock_now(),
  actor text not null,
  action text not null,
  subject text not null,
  detail jsonb not null default '{}',
  constraint action_is_two_dotted_words check (action ~ '^[a-z][a-z_]*\.[a-z][a-z_]*$'),
  constraint subject_is_short check (length(subject) between 1 and 300),
  constraint detail_is_an_object check (jsonb_typeof(detail) = 'object')
);
comment on table backup.audit_log is 'Append-only. People appear as keyed hashes, never by name, id or address.';
create index audit_log_by_subject on backup.audit_log (subject, id);
alter table backup.audit_log enable row level security;
revoke all on table backup.audit_log from public;

create function backup.refuse_audit_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'the audit log only grows: % is refused', lower(tg_op)
    using errcode = 'HF007', hint = 'Write a further row that corrects the earlier one.';
end
$$;
revoke all on function backup.refuse_audit_change() from public;

create trigger audit_log_only_grows
  before update or delete or truncate on backup.audit_log
  for each statement execute function backup.refuse_audit_change();
-- always: a session under session_replication_role = replica would pass an ordinary trigger
alter table backup.audit_log enable always trigger audit_log_only_grows;

-- Adds one row in the caller's transaction and returns its id. `action` is two dotted words, such as `run.requested`.
-- The actor is the signed-in person's hash when the call came through the API, else the database role.
create function backup.audit(action text, subject text, detail jsonb default '{}') returns bigint
language sql
volatile
set search_path = ''
as $$
  insert into backup.audit_log (actor, action, subject, detail)
  values (
    coalesce(
      backup.person_hash(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'),
      'role:' || session_user
    ),
    action,
    subject,
    coalesce(detail, '{}')
  )
  returning id
$$;
revoke all on function backup.audit(text, text, jsonb) from public;
