-- What the security audit finds: what our own tables, functions and buckets are open to, who administrates them, how old keys
-- are, and what was altered since the installation. A finding is a row; a serious one is an alert too, and both end by
-- themselves once an audit finds it mended. Lock order: the advisory lock holdfast:security → backup.findings → backup.alerts.
-- What is looked at stands in the migration `checks`.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('admin_idle_days', 'integer', '90', 1, 3650, 'an administrator who was not seen for so long is a finding'),
  ('key_age_days', 'integer', '365', 1, 3650, 'a key of BACKUP_KEYS that is in use for so long is a finding');

-- Findings -----------------------------------------------------------------------------------------------------------

create table backup.findings (
  id bigint generated always as identity primary key,
  -- the function that finds it: where that could not look, its findings stay as they are
  check_name text not null,
  kind text not null,
  subject text not null,
  severity text not null,
  message text not null,
  first_seen timestamptz not null,
  last_seen timestamptz not null,
  resolved_at timestamptz,
  constraint kind_is_a_snake_case_word check (kind ~ '^[a-z][a-z_]*$'),
  constraint subject_is_short check (length(subject) between 1 and 300),
  constraint severity_is_known check (severity in ('info', 'warning', 'critical')),
  constraint last_seen_is_not_before_first_seen check (last_seen >= first_seen),
  constraint resolved_at_is_not_before_first_seen check (resolved_at >= first_seen)
);
comment on table backup.findings is 'What the security audit found; one unresolved row for a kind and a subject.';
create unique index findings_one_unresolved_row_a_subject on backup.findings (kind, subject) where resolved_at is null;
alter table backup.findings enable row level security;
revoke all on table backup.findings from public;

-- Facts that no SQL can see, as functions and the CLI told them: `key:<id>` for each key of BACKUP_KEYS, by its id alone;
-- `lock:<store>` {mode, days, keys} for what a store's object lock is set to, `keys` where v1/keys/ is under it; for the monitor
-- `clock:<whose>` {aheadSeconds} by how much a clock is ahead of the database's, and `store:first`, `store:second`
-- {label, failure}, `failure` null where it answers.
create table backup.told_facts (
  subject text primary key,
  facts jsonb not null,
  first_told_at timestamptz not null default backup.clock_now(),
  told_at timestamptz not null default backup.clock_now(),
  constraint subject_is_of_a_known_kind check (subject ~ '^(key|lock|clock|store):[^[:cntrl:]]{1,250}$'),
  constraint facts_are_an_object check (jsonb_typeof(facts) = 'object')
);
comment on table backup.told_facts is 'Facts about keys, stores and clocks, as functions and the CLI told them.';
alter table backup.told_facts enable row level security;
revoke all on table backup.told_facts from public;

create function backup.tell_fact(subject text, facts jsonb) returns void
language sql
volatile
set search_path = ''
as $$
  insert into backup.told_facts as t (subject, facts) values (tell_fact.subject, tell_fact.facts)
  on conflict on constraint told_facts_pkey do update set facts = excluded.facts, told_at = backup.clock_now()
$$;
revoke all on function backup.tell_fact(text, jsonb) from public;

-- Which keys BACKUP_KEYS holds, by id: from the first time on, their age counts.
create function backup.tell_keys(ids text[]) returns void
language sql
volatile
set search_path = ''
as $$
  select backup.tell_fact('key:' || k.id, '{}') from pg_catalog.unnest(tell_keys.ids) as k (id) order by k.id
$$;
revoke all on function backup.tell_keys(text[]) from public;

-- What was installed ---------------------------------------------------------------------------------------------------

-- Every object of ours as the last migration left it.
create table backup.installed_objects (
  kind text not null,
  identity text not null,
  definition_hash text not null,
  grants text[] not null,
  -- PostgreSQL writes definitions otherwise in another major version
  server_major integer not null,
  recorded_at timestamptz not null default backup.clock_now(),
  primary key (kind, identity)
);
comment on table backup.installed_objects is 'Our own objects as the last migration left them: hashes of definitions, and grants.';
alter table backup.installed_objects enable row level security;
revoke all on table backup.installed_objects from public;

-- Grants to others than the owner, as `role:privilege`, with `*` where it may be passed on.
create function backup.grants_to_others(acl aclitem[], owner oid, of_column text default '') returns text[]
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.array_agg(one.told order by one.told), '{}')
  from (
    select case a.grantee when 0 then 'public' else a.grantee::regrole::text end || ':' || pg_catalog.lower(a.privilege_type)
      || grants_to_others.of_column || case when a.is_grantable then '*' else '' end
    from pg_catalog.aclexplode(acl) as a where a.grantee <> owner
  ) as one (told)
$$;
revoke all on function backup.grants_to_others(aclitem[], oid, text) from public;

-- Our own objects as they are now: the schema, its tables with their columns, constraints and indexes, its views and sequences,
-- its functions, triggers, rules and policies, views and functions public.backup_…, and the event triggers.
create function backup.present_objects() returns table (kind text, identity text, definition_hash text, grants text[])
language sql
stable
set search_path = ''
as $$
  select o.kind, o.identity, pg_catalog.md5(o.definition), o.grants
  from (
    select 'schema', n.nspname::text, n.nspowner::regrole::text,
      backup.grants_to_others(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)), n.nspowner)
    from pg_catalog.pg_namespace as n where n.nspname = 'backup'
    union all
    select 'function', p.oid::regprocedure::text, pg_catalog.concat_ws(' ', pg_catalog.pg_get_functiondef(p.oid), p.proowner::regrole),
      backup.grants_to_others(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner)
    from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    where (n.nspname = 'backup' or (n.nspname = 'public' and p.proname ~ '^backup_')) and p.prokind in ('f', 'p')
    union all
    select 'relation', c.oid::regclass::text,
      pg_catalog.concat_ws(' ', c.relkind, c.relowner::regrole, c.reloptions::text,
        case when c.relkind = 'v' then pg_catalog.pg_get_viewdef(c.oid) end,
        (select pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
              a.attgenerated, pg_catalog.pg_get_expr(e.adbin, e.adrelid)), ', ' order by a.attnum)
          from pg_catalog.pg_attribute as a
          left join pg_catalog.pg_attrdef as e on e.adrelid = a.attrelid and e.adnum = a.attnum
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p')),
        (select pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', k.conname, pg_catalog.pg_get_constraintdef(k.oid)), ', ' order by k.conname)
          from pg_catalog.pg_constraint as k where k.conrelid = c.oid),
        (select pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', pg_catalog.pg_get_indexdef(x.indexrelid), x.indisvalid), ', '
            order by pg_catalog.pg_get_indexdef(x.indexrelid))
          from pg_catalog.pg_index as x where x.indrelid = c.oid)),
      backup.grants_to_others(
        coalesce(c.relacl, pg_catalog.acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner)), c.relowner
      ) || coalesce((
        select pg_catalog.array_agg(g.told order by g.told)
        from pg_catalog.pg_attribute as a,
          pg_catalog.unnest(backup.grants_to_others(a.attacl, c.relowner, '(' || a.attname || ')')) as g (told)
        where a.attrelid = c.oid and a.attacl is not null and not a.attisdropped
      ), '{}')
    from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      and (n.nspname = 'backup' or (n.nspname = 'public' and c.relkind = 'v' and c.relname ~ '^backup_'))
    union all
    select 'trigger', pg_catalog.format('%I on %s', t.tgname, t.tgrelid::regclass),
      pg_catalog.concat_ws(' ', pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled), '{}'::text[]
    from pg_catalog.pg_trigger as t join pg_catalog.pg_class as c on c.oid = t.tgrelid
    where c.relnamespace = 'backup'::regnamespace and not t.tgisinternal
    union all
    select 'rule', pg_catalog.format('%I on %s', w.rulename, w.ev_class::regclass),
      pg_catalog.concat_ws(' ', pg_catalog.pg_get_ruledef(w.oid), w.ev_enabled), '{}'::text[]
    from pg_catalog.pg_rewrite as w join pg_catalog.pg_class as c on c.oid = w.ev_class
    where c.relnamespace = 'backup'::regnamespace and w.rulename <> '_RETURN'
    union all
    select 'policy', pg_catalog.format('%I on %s', p.polname, p.polrelid::regclass),
      pg_catalog.concat_ws(' | ', p.polcmd, p.polpermissive, pg_catalog.pg_get_expr(p.polqual, p.polrelid),
        pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
        (select pg_catalog.string_agg(r.oid::regrole::text, ',' order by r.oid::regrole::text)
           from pg_catalog.unnest(p.polroles) as r (oid))), '{}'::text[]
    from pg_catalog.pg_policy as p join pg_catalog.pg_class as c on c.oid = p.polrelid
    where c.relnamespace = 'backup'::regnamespace
    union all
    select 'event trigger', e.evtname::text,
      pg_catalog.concat_ws(' ', e.evtevent, e.evtfoid::regprocedure, e.evtenabled, e.evttags::text), '{}'::text[]
    from pg_catalog.pg_event_trigger as e where e.evtname ~ '^!holdfast_after_'
  ) as o (kind, identity, definition, grants)
$$;
revoke all on function backup.present_objects() from public;

-- The end of every installation and upgrade: what is there now is what shall be there. Returns how many objects there are.
create function backup.record_install() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  recorded bigint;
begin
  delete from backup.installed_objects;
  insert into backup.installed_objects (kind, identity, definition_hash, grants, server_major)
  select o.kind, o.identity, o.definition_hash, o.grants, pg_catalog.current_setting('server_version_num')::integer / 10000
  from backup.present_objects() as o;
  get diagnostics recorded = row_count;
  perform backup.audit('install.recorded', 'install', pg_catalog.jsonb_build_object(
    'objects', recorded,
    'hash', (
      select pg_catalog.md5(pg_catalog.string_agg(o.kind || o.identity || o.definition_hash || o.grants::text, ',' order by o.kind, o.identity))
      from backup.installed_objects as o
    )
  ));
  return recorded;
end
$$;
revoke all on function backup.record_install() from public;

-- The audit ------------------------------------------------------------------------------------------------------------

-- Looks at everything, and returns how many findings are open that are more than information. A finding that is still there
-- is kept, one that is gone is resolved, and so is its alert. A check that fails is a finding itself; what it found before
-- stays.
create function backup.audit_security() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment constant timestamptz := backup.clock_now();
  checks constant text[] := array[
    'check_objects', 'check_access', 'check_reaches', 'check_buckets', 'check_admins', 'check_keys', 'check_locks', 'check_secrets', 'check_jobs'
  ];
  this_check text;
  told jsonb;
  one record;
  fresh integer := 0;
  mended integer := 0;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:security', 0));
  foreach this_check in array checks loop
    begin
      execute pg_catalog.format('select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c)), ''[]'') from backup.%I() as c', this_check)
      into told;
    exception when others then
      insert into backup.findings as f (check_name, kind, subject, severity, message, first_seen, last_seen)
      values ('audit_security', 'check_failed', this_check, 'critical',
        pg_catalog.format('a check of the security audit failed: %s (SQLSTATE %s)', pg_catalog.left(sqlerrm, 300), sqlstate), moment, moment)
      on conflict (kind, subject) where resolved_at is null do update set last_seen = moment, message = excluded.message;
      continue;
    end;
    for one in
      select distinct on (c.kind, c.subject) c.kind, pg_catalog.left(c.subject, 250) as subject, c.severity, c.message
      from pg_catalog.jsonb_to_recordset(told) as c (kind text, subject text, severity text, message text)
      order by c.kind, c.subject
    loop
      insert into backup.findings as f (check_name, kind, subject, severity, message, first_seen, last_seen)
      values (this_check, one.kind, one.subject, one.severity, one.message, moment, moment)
      on conflict (kind, subject) where resolved_at is null do update
        set last_seen = greatest(f.last_seen, moment), severity = excluded.severity, message = excluded.message;
    end loop;
    update backup.findings as f set resolved_at = greatest(moment, f.first_seen)
    where f.resolved_at is null and f.last_seen < moment
      and (f.check_name = this_check or (f.kind = 'check_failed' and f.subject = this_check));
  end loop;
  select count(*) filter (where f.resolved_at is null), count(*) filter (where f.resolved_at is not null) into fresh, mended
  from backup.findings as f where f.first_seen = moment or f.resolved_at = moment;
  for one in
    select f.* from backup.findings as f where f.resolved_at is null or f.resolved_at = moment order by f.id
  loop
    if one.resolved_at is null and one.severity <> 'info' then
      perform backup.raise_alert('security_finding', one.kind || ':' || one.subject, one.message, one.severity);
    else
      perform backup.resolve_alert('security_finding', one.kind || ':' || one.subject);
    end if;
  end loop;
  perform backup.audit('security.audited', 'install', pg_catalog.jsonb_build_object('new', fresh, 'resolved', mended));
  return (select count(*) from backup.findings as f where f.resolved_at is null and f.severity <> 'info');
end
$$;
comment on function backup.audit_security() is 'Looks at access, buckets, administrators, keys and our own objects; findings stand in public.backup_findings.';
revoke all on function backup.audit_security() from public;

-- A step of the watchdog: while something serious is open, it is looked at again each hour, so that an alert ends once its
-- cause is gone, and not a month later. Returns how many are open.
create function backup.watch_findings() returns integer
language plpgsql
volatile
set search_path = ''
as $$
begin
  if (select max(f.last_seen) from backup.findings as f where f.resolved_at is null and f.severity <> 'info')
    < backup.clock_now() - interval '1 hour'
  then
    return backup.audit_security();
  end if;
  return (select count(*) from backup.findings as f where f.resolved_at is null and f.severity <> 'info');
end
$$;
revoke all on function backup.watch_findings() from public;

-- What administrators see through the API --------------------------------------------------------------------------------

create view public.backup_findings with (security_invoker = true) as
select f.id, f.kind, f.subject, f.severity, f.message, f.first_seen, f.last_seen, f.resolved_at
from backup.findings as f;
comment on view public.backup_findings is 'Holdfast: what the security audit found. Administrators with a second factor only.';
revoke all on table public.backup_findings from public;

do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    continue when pg_catalog.to_regrole(api_role) is null;
    execute pg_catalog.format('revoke all on table public.backup_findings from %I', api_role);
  end loop;
  if pg_catalog.to_regrole('authenticated') is null then
    return;
  end if;
  create policy administrators_read_findings on backup.findings
    for select to authenticated using ((select backup.is_admin()));
  grant execute on function backup.is_admin() to authenticated;
  grant select (id, kind, subject, severity, message, first_seen, last_seen, resolved_at) on backup.findings to authenticated;
  grant select on table public.backup_findings to authenticated;
end
$$;
