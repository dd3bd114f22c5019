-- People who call the functions, and calls that were refused: counted by caller, answered with a pause, told to the audit.
-- Lock order: backup.pauses → backup.refusals.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('refusals_allowed', 'integer', '10', 1, 1000,
    'the next refused call of one caller within refusal_seconds begins a pause'),
  ('refusal_seconds', 'integer', '300', 10, 86400, 'how long the refused calls of one caller are counted together'),
  ('pause_seconds', 'integer', '900', 10, 86400, 'how long a caller who was refused too often gets no other answer'),
  ('second_factor_seconds', 'integer', '900', 60, 86400,
    'how long ago the second factor may have been used for what reveals or changes data');

-- One row a caller who was refused lately. Callers are keyed hashes: of a person where the token was genuine, else of an
-- address.
create table backup.pauses (
  caller text primary key,
  counted_from timestamptz not null,
  refused integer not null,
  paused_until timestamptz,
  constraint caller_is_a_hash check (caller ~ '^(person|address):[0-9a-f]{64}$')
);
comment on table backup.pauses is 'Callers of the functions who were refused lately, as keyed hashes.';
create index pauses_by_age on backup.pauses (counted_from);

-- Refused calls that are not in the audit yet, one row a minute, function, reason and caller.
create table backup.refusals (
  minute timestamptz not null,
  function_name text not null,
  reason text not null,
  caller text not null,
  times bigint not null,
  primary key (minute, function_name, reason, caller)
);
comment on table backup.refusals is 'Refused calls of the last minutes, until the audit has them.';

alter table backup.pauses enable row level security;
alter table backup.refusals enable row level security;
revoke all on table backup.pauses, backup.refusals from public;

-- What stands for an address in these tables.
create function backup.address_hash(address text) returns text
language sql
stable
strict
set search_path = ''
as $$
  select pg_catalog.regexp_replace(backup.person_hash('address ' || address), '^person', 'address')
$$;
revoke all on function backup.address_hash(text) from public;

-- Seconds for which this caller gets no other answer than to wait; 0: none.
create function backup.pause_of(caller text) returns integer
language sql
volatile
set search_path = ''
as $$
  select coalesce((
    select pg_catalog.ceil(extract(epoch from p.paused_until - backup.clock_now()))::integer
    from backup.pauses as p where p.caller = pause_of.caller and p.paused_until > backup.clock_now()
  ), 0)
$$;
revoke all on function backup.pause_of(text) from public;

-- Counts a refused call. Returns the seconds of the caller's pause, 0 where none has begun. A pause is not made longer by
-- those who go on.
create function backup.refuse_call(caller text, function_name text, reason text) returns integer
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  -- what was counted before is over
  since constant timestamptz := moment - backup.setting_integer('refusal_seconds') * interval '1 second';
begin
  insert into backup.pauses as p (caller, counted_from, refused)
  values (refuse_call.caller, moment, 1)
  on conflict (caller) do update
    set refused = case when p.counted_from > since then p.refused + 1 else 1 end,
      counted_from = case when p.counted_from > since then p.counted_from else moment end,
      paused_until = case
        when p.paused_until > moment then p.paused_until
        when p.refused >= backup.setting_integer('refusals_allowed') and p.counted_from > since
        then moment + backup.setting_integer('pause_seconds') * interval '1 second'
      end;
  insert into backup.refusals as r (minute, function_name, reason, caller, times)
  values (pg_catalog.date_trunc('minute', moment), refuse_call.function_name, refuse_call.reason, refuse_call.caller, 1)
  on conflict (minute, function_name, reason, caller) do update set times = r.times + 1;
  return backup.pause_of(refuse_call.caller);
end
$$;
revoke all on function backup.refuse_call(text, text, text) from public;

-- A call whose caller is known by an address alone: nobody's signature held.
create function backup.refuse_address(address text, function_name text, reason text) returns integer
language sql
volatile
set search_path = ''
as $$
  select backup.refuse_call(backup.address_hash(address), function_name, reason)
$$;
revoke all on function backup.refuse_address(text, text, text) from public;

-- A call of somebody who was let in, and that asked for what cannot be, or several that were refused unheard, because their
-- person has to wait or too many did: it is told, and nobody is paused for it. `person`: null for a call that the worker
-- secret signed.
create function backup.note_refusal(person text, function_name text, reason text, times bigint default 1) returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.refusals as r (minute, function_name, reason, caller, times)
  values (
    pg_catalog.date_trunc('minute', backup.clock_now()), note_refusal.function_name, note_refusal.reason,
    coalesce(backup.person_hash(note_refusal.person), 'machine'), note_refusal.times
  )
  on conflict (minute, function_name, reason, caller) do update set times = r.times + excluded.times
$$;
revoke all on function backup.note_refusal(text, text, text, bigint) from public;

-- When the second factor of these claims was used last; null: it was not.
create function backup.second_factor_at(claims jsonb) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select max(pg_catalog.to_timestamp((used.entry ->> 'timestamp')::double precision))
  from pg_catalog.jsonb_array_elements(
    case when pg_catalog.jsonb_typeof(claims -> 'amr') = 'array' then claims -> 'amr' else '[]' end
  ) as used (entry)
  where used.entry ->> 'method' in ('totp', 'mfa/phone', 'mfa/webauthn')
    and used.entry ->> 'timestamp' ~ '^[0-9]{1,12}$'
$$;
revoke all on function backup.second_factor_at(jsonb) from public;

-- When the person of these claims last proved who they are, by whatever they sign in with; null: nothing says so. A token that was
-- renewed proves nothing.
create function backup.signed_in_at(claims jsonb) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select max(pg_catalog.to_timestamp((used.entry ->> 'timestamp')::double precision))
  from pg_catalog.jsonb_array_elements(
    case when pg_catalog.jsonb_typeof(claims -> 'amr') = 'array' then claims -> 'amr' else '[]' end
  ) as used (entry)
  where used.entry ->> 'method' not in ('token_refresh', 'anonymous')
    and used.entry ->> 'timestamp' ~ '^[0-9]{1,12}$'
$$;
revoke all on function backup.signed_in_at(jsonb) from public;

-- May the person whose genuine token has these claims do this? `needs`: `own session` (anybody who is signed in, for what is
-- theirs), `fresh sign-in` (the same, signed in within second_factor_seconds), `second factor`, `fresh second factor` (used within
-- second_factor_seconds), or `machines`: no person may. Says `accepted`, and then every act of this session is theirs in the
-- audit; else, counted, why not: `paused`, `session_over` (signed out, banned or deleted since), `sign_in_old`, `not_admin`,
-- `one_factor`, `factor_old`, `machines_only`.
create function backup.accept_person(
  claims jsonb, function_name text, needs text, out verdict text, out pause integer
)
language plpgsql
volatile
set search_path = ''
as $$
declare
  person constant text := claims ->> 'sub';
  caller constant text := backup.person_hash(person);
  moment constant timestamptz := backup.clock_now();
  since constant timestamptz := moment - backup.setting_integer('second_factor_seconds') * interval '1 second';
  level text;
begin
  if caller is null then
    raise exception 'a token without a subject is nobody''s' using errcode = 'HF006';
  end if;
  pause := backup.pause_of(caller);
  if pause > 0 then
    verdict := 'paused';
  else
    level := backup.session_level(claims);
    verdict := case
      when level is null then 'session_over'
      when needs = 'own session' then 'accepted'
      when needs = 'fresh sign-in' then case
        when backup.signed_in_at(claims) between since and moment + interval '1 minute' then 'accepted' else 'sign_in_old'
      end
      when not exists (select from backup.admins as a where a.user_id::text = person) then 'not_admin'
      when claims ->> 'aal' is distinct from 'aal2' or level <> 'aal2' then 'one_factor'
      when needs = 'second factor' then 'accepted'
      when needs is distinct from 'fresh second factor' then 'machines_only'
      when backup.second_factor_at(claims) between since and moment + interval '1 minute' then 'accepted'
      else 'factor_old'
    end;
  end if;
  if verdict = 'accepted' then
    perform pg_catalog.set_config(
      'request.jwt.claims',
      pg_catalog.jsonb_build_object(
        'sub', person, 'role', 'authenticated', 'aal', case when needs in ('own session', 'fresh sign-in') then 'aal1' else 'aal2' end
      )::text,
      false
    );
  else
    pause := backup.refuse_call(caller, accept_person.function_name, verdict);
  end if;
end
$$;
revoke all on function backup.accept_person(jsonb, text, text) from public;

-- Each minute: what was refused until the last full minute goes into the audit, one row a function and reason; counts of
-- yesterday are forgotten. Returns how many rows the audit got.
create function backup.audit_refusals() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  told record;
  written integer := 0;
begin
  for told in
    with gone as (
      delete from backup.refusals as r
      where r.minute < pg_catalog.date_trunc('minute', backup.clock_now())
      returning r.*
    )
    select g.minute, g.function_name, g.reason, pg_catalog.sum(g.times) as times, pg_catalog.count(*) as callers,
      (pg_catalog.array_agg(g.caller order by g.times desc, g.caller))[1:5] as most
    from gone as g
    group by g.minute, g.function_name, g.reason
    order by g.minute, g.function_name, g.reason
  loop
    perform backup.audit(
      'call.refused', 'function:' || told.function_name,
      pg_catalog.jsonb_build_object(
        'minute', told.minute, 'reason', told.reason, 'times', told.times, 'callers', told.callers, 'most', told.most
      )
    );
    written := written + 1;
  end loop;
  delete from backup.pauses as p
  where p.counted_from < backup.clock_now() - interval '1 day'
    and (p.paused_until is null or p.paused_until < backup.clock_now());
  return written;
end
$$;
revoke all on function backup.audit_refusals() from public;
