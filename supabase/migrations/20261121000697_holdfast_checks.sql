-- What the security audit looks at, one function a subject. Each returns what is wrong now: kind, subject, severity (`info`:
-- to know, no alert) and a sentence with the way out. Nothing is changed here. People stand as keyed hashes in the subject,
-- which the audit log repeats, and by id in the message, which only administrators read.

-- Our own objects against what the last migration left: a body that was changed, a trigger that was taken from the audit log, a
-- grant that was added.
create function backup.check_objects() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
declare
  major constant integer := pg_catalog.current_setting('server_version_num')::integer / 10000;
begin
  if not exists (select from backup.installed_objects as i where i.server_major = major) then
    return query select 'install_unrecorded', 'install', 'warning', pg_catalog.format(
      'what was installed is not recorded for PostgreSQL %s; once you have looked: select backup.record_install();', major
    );
    return;
  end if;
  return query
  select
    case when p.identity is null then 'object_missing' when i.identity is null then 'object_unknown' else 'object_altered' end,
    coalesce(i.kind, p.kind) || ' ' || coalesce(i.identity, p.identity),
    'critical',
    case
      when p.identity is null then 'it was installed and is not there any more'
      when i.identity is null then 'it stands among our own objects and was never installed'
      else 'it is not as it was installed'
    end || '; install the release again, or say that it shall be so: select backup.record_install();'
  from backup.installed_objects as i
  full join backup.present_objects() as p on p.kind = i.kind and p.identity = i.identity
  where (i.definition_hash is distinct from p.definition_hash)
    -- names in `public` are the project's to give
    and not (i.identity is null and p.kind in ('function', 'relation') and p.identity !~ '^backup\.');
  return query
  select 'grant_unexpected', p.kind || ' ' || p.identity, 'critical',
    pg_catalog.format('others may do more here than was installed: %s; revoke it', pg_catalog.array_to_string(array(
      select g.told from pg_catalog.unnest(p.grants) as g (told) where not g.told = any (i.grants) order by g.told
    ), ', '))
  from backup.installed_objects as i
  join backup.present_objects() as p on p.kind = i.kind and p.identity = i.identity
  where not p.grants <@ i.grants;
end
$$;
revoke all on function backup.check_objects() from public;

-- Row level security of ours, functions that run as their owner, roles that pass it all by, and event triggers before ours.
create function backup.check_access() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
declare
  exposed constant text[] := coalesce((
    select pg_catalog.regexp_split_to_array(pg_catalog.substr(one.setting, pg_catalog.length('pgrst.db_schemas=') + 1), '\s*,\s*')
    from pg_catalog.pg_db_role_setting as s cross join pg_catalog.unnest(s.setconfig) as one (setting)
    where s.setrole = pg_catalog.to_regrole('authenticator')::oid and one.setting ~ '^pgrst\.db_schemas='
    order by s.setdatabase desc limit 1
  ), array['public', 'graphql_public']);
begin
  return query
  select 'table_unprotected', c.oid::regclass::text, 'critical',
    pg_catalog.format('row level security is off: alter table %s enable row level security;', c.oid::regclass)
  from pg_catalog.pg_class as c
  where c.relnamespace = 'backup'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity;
  if 'backup' = any (exposed) then
    return query select 'schema_exposed', 'schema backup', 'critical',
      'the API shows schema backup; take it out of the exposed schemas';
  end if;
  return query
  select 'definer_unpinned', p.oid::regprocedure::text, 'critical',
    'this function of ours runs as its owner under the caller''s search_path; install the release again'
  from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
  where p.prosecdef and (n.nspname = 'backup' or (n.nspname = 'public' and p.proname ~ '^backup_'))
    and not coalesce(p.proconfig, '{}') @> array['search_path=""'];
  return query
  select 'definer_exposed', p.oid::regprocedure::text, 'info',
    pg_catalog.format('%s may call this function, which runs as %s%s; make sure that it checks its caller',
      pg_catalog.string_agg(r.rolname, ' and ' order by r.rolname), p.proowner::regrole,
      case when not exists (select from pg_catalog.unnest(p.proconfig) as one (setting) where one.setting ~ '^search_path=')
        then ' under the caller''s search_path' else '' end)
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
  join pg_catalog.pg_roles as r on r.rolname in ('anon', 'authenticated')
    and pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage') and pg_catalog.has_function_privilege(r.oid, p.oid, 'execute')
  where p.prosecdef and n.nspname = any (exposed) and p.prorettype <> 'trigger'::regtype
    and not exists (
      select from backup.installed_objects as i where i.kind = 'function' and i.identity = p.oid::regprocedure::text
    )
    and not exists (
      select from pg_catalog.pg_depend as d
      where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
  group by p.oid, p.proowner, p.proconfig;
  return query
  select 'role_passes_policies', 'role ' || r.rolname, 'critical',
    'this role of the API passes row level security by, or may act as one that does'
  from pg_catalog.pg_roles as r
  where r.rolname in ('anon', 'authenticated')
    and (r.rolbypassrls or r.rolsuper or exists (
      select from pg_catalog.pg_roles as other
      where (other.rolbypassrls or other.rolsuper) and other.oid <> r.oid and pg_catalog.pg_has_role(r.oid, other.oid, 'member')
    ));
  return query
  select 'event_trigger_before_ours', e.evtname::text, 'warning',
    pg_catalog.format('it runs before !holdfast_after_ddl and may hide a change of definitions from it; it calls %s', e.evtfoid::regprocedure)
  from pg_catalog.pg_event_trigger as e
  join pg_catalog.pg_roles as r on r.oid = e.evtowner
  where e.evtevent in ('ddl_command_end', 'sql_drop', 'table_rewrite') and e.evtenabled <> 'D'
    and e.evtname < '!holdfast_after_'
    -- the platform's own are not the project's to change
    and (
      r.oid = (select n.nspowner from pg_catalog.pg_namespace as n where n.nspname = 'backup')
      or not (r.rolsuper or r.rolname ~ '^supabase_')
    )
    and exists (select from pg_catalog.pg_event_trigger as ours where ours.evtname ~ '^!holdfast_after_');
end
$$;
revoke all on function backup.check_access() from public;

-- Our buckets in Storage: those of the setting, and those that bear our names whether or not it still has them.
create function backup.check_buckets() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('storage.buckets') is null or pg_catalog.to_regclass('storage.objects') is null then
    return;
  end if;
  return query execute $sql$
    select 'bucket_public', 'bucket:' || b.id, 'critical',
      'everybody may read this bucket by its address; make it private at once'
    from storage.buckets as b
    where b.public and (b.id = any (backup.own_buckets()) or b.id in ('holdfast-backups', 'holdfast-downloads', 'data-exports'))
    union all
    select 'bucket_unguarded', 'bucket:' || b.id, 'critical', pg_catalog.format(
      'the setting `buckets` has lost this bucket of ours, so that a policy of the project may open it; select backup.use_bucket(%L);', b.id
    )
    from storage.buckets as b
    where b.id in ('holdfast-backups', 'holdfast-downloads', 'data-exports') and not b.id = any (backup.own_buckets())
  $sql$;
  return query
  select 'bucket_unguarded', t.name, 'critical',
    'the policy holdfast_buckets is not as it was installed: a policy of the project may open our buckets; select backup.guard_buckets();'
  from pg_catalog.unnest(array['storage.objects', 'storage.buckets']) as t (name)
  where backup.bucket_guard_of(t.name) = 'missing';
  return query
  select 'policy_reaches_bucket', pg_catalog.format('%I on %s', p.polname, p.polrelid::regclass), 'critical',
    'this policy of the project names no bucket, so that it opens ours as well'
  from pg_catalog.pg_policy as p
  where p.polrelid in (pg_catalog.to_regclass('storage.objects'), pg_catalog.to_regclass('storage.buckets'))
    and p.polpermissive and backup.bucket_guard_of(p.polrelid::regclass::text) = 'missing'
    and pg_catalog.concat_ws(' ', pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
      !~ case when p.polrelid = pg_catalog.to_regclass('storage.objects') then '\mbucket_id\M' else '\mid\M' end
    and p.polroles && array[0, pg_catalog.to_regrole('anon')::oid, pg_catalog.to_regrole('authenticated')::oid];
end
$$;
revoke all on function backup.check_buckets() from public;

-- Who administrates: with a second factor, an account that is there, and seen lately.
create function backup.check_admins() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
declare
  idle constant bigint := backup.setting_integer('admin_idle_days');
begin
  if pg_catalog.to_regclass('auth.users') is null or pg_catalog.to_regclass('auth.mfa_factors') is null then
    return;
  end if;
  if not exists (select from backup.admins) then
    return query select 'admin_none', 'administrators', 'warning',
      'nobody may administrate the backups through the API: select backup.add_admin(''<id or address>'');';
  end if;
  return query execute $sql$
    select
      case when not a.there then 'admin_gone' when not a.factor then 'admin_without_factor' else 'admin_unseen' end,
      backup.person_hash(a.user_id::text),
      case when a.there then 'warning' else 'critical' end,
      pg_catalog.format(
        case
          when not a.there then 'administrator %s has no account any more, or is banned; backup.remove_admin(''%s'') takes it away'
          when not a.factor then 'administrator %s has no second factor, without which nothing can be done: enrol one, or backup.remove_admin(''%s'')'
          else 'administrator %s was not seen for a long time; still needed? else backup.remove_admin(''%s'')'
        end, a.user_id, a.user_id)
    from (
      select a.user_id,
        u.id is not null and u.deleted_at is null and (u.banned_until is null or u.banned_until <= backup.clock_now()) as there,
        exists (select from auth.mfa_factors as f where f.user_id = a.user_id and f.status = 'verified') as factor,
        greatest(u.last_sign_in_at, a.added_at, (
          select max(greatest(s.created_at, s.updated_at)) from auth.sessions as s where s.user_id = a.user_id
        )) as seen_at
      from backup.admins as a left join auth.users as u on u.id = a.user_id
    ) as a
    where not a.there or not a.factor or a.seen_at < backup.clock_now() - $1 * interval '1 day'
  $sql$ using idle;
end
$$;
revoke all on function backup.check_admins() from public;

-- Keys that are in use for too long: those that were told within a day of the last telling.
create function backup.check_keys() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select 'key_old', t.subject, 'warning', pg_catalog.format(
    'this key of BACKUP_KEYS is in use since %s; put a new one before it, run `keys rotate`, then take it out and rotate again',
    pg_catalog.to_char(t.first_told_at at time zone 'UTC', 'YYYY-MM-DD')
  )
  from backup.told_facts as t
  where t.subject ~ '^key:'
    and t.told_at >= (select max(l.told_at) from backup.told_facts as l where l.subject ~ '^key:') - interval '1 day'
    -- a recovery key lies on paper: it is tried (`keys check`), not replaced
    and t.subject !~ '^key:r-'
    and t.first_told_at < backup.clock_now() - backup.setting_integer('key_age_days') * interval '1 day';
end
$$;
revoke all on function backup.check_keys() from public;

-- Object locks of stores, as they were told.
create function backup.check_locks() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select 'lock_on_keys', t.subject, 'critical',
    'v1/keys/ is under an object lock: no epoch can be shredded while it lasts; set the lock per object, and not on v1/keys/'
  from backup.told_facts as t where t.subject ~ '^lock:' and (t.facts ->> 'keys')::boolean
  union all
  select 'lock_too_long', t.subject, 'critical', pg_catalog.format(
    'the object lock lasts %s days: at most 29 are taken, as nothing that was locked can be erased before', t.facts ->> 'days'
  )
  from backup.told_facts as t where t.subject ~ '^lock:' and (t.facts ->> 'days')::numeric > 29
  union all
  select 'lock_absent', t.subject, 'info', 'the store has no object lock: whoever holds its credentials can delete every backup'
  from backup.told_facts as t where t.subject ~ '^lock:' and coalesce(t.facts ->> 'mode', 'none') = 'none';
end
$$;
revoke all on function backup.check_locks() from public;

-- The worker secret in Vault, of which nothing but its length is said.
create function backup.check_secrets() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
declare
  worker_secret text;
  has_url boolean;
begin
  if pg_catalog.to_regclass('vault.decrypted_secrets') is null then
    return;
  end if;
  execute 'select exists (select from vault.decrypted_secrets as s where s.name = $1 and s.decrypted_secret <> $2)'
    into has_url using 'holdfast_project_url', '';
  execute 'select s.decrypted_secret from vault.decrypted_secrets as s where s.name = $1'
    into worker_secret using 'holdfast_worker_secret';
  if coalesce(worker_secret, '') = '' then
    return query select 'secret_missing', 'holdfast_worker_secret', case when has_url then 'critical' else 'info' end,
      'Vault has no secret of this name: the database calls no function, and the CLI has to take the backups';
  elsif pg_catalog.length(worker_secret) < 32 then
    return query select 'secret_short', 'holdfast_worker_secret', 'critical',
      'it is shorter than 32 characters and can be guessed; make one with: openssl rand -base64 48';
  end if;
end
$$;
revoke all on function backup.check_secrets() from public;

-- Our cron jobs: each there, as apply_schedules() made it, and no other one of our name.
create function backup.check_jobs() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('cron.job') is null then
    return;
  end if;
  return query execute $sql$
    select
      case when s.name is null then 'job_unknown' when j.jobid is null then 'job_missing' else 'job_changed' end,
      coalesce(j.jobname::text, 'holdfast-' || s.name),
      case when s.name is null then 'warning' else 'critical' end,
      case
        when s.name is null then 'this job has a name like ours and is none of ours'
        when j.jobid is null then 'the job is gone, so that nothing runs by itself: select * from backup.apply_schedules();'
        when not j.active then 'the job is switched off'
        when j.command <> backup.job_command(s.kind, s.name) then 'the job does something else than was installed'
        when j.username <> 'postgres' and j.username <> (select n.nspowner::regrole::text from pg_catalog.pg_namespace as n where n.nspname = 'backup')
          then 'the job runs as another role'
        else 'the job runs in another database'
      end
    from (select s.* from backup.schedules as s where s.enabled and s.paused_until is null) as s
    full join (select j.* from cron.job as j where j.jobname ~ '^holdfast-' and j.jobname !~ '^holdfast-smoke-[0-9a-f]{8}$') as j
      on j.jobname = 'holdfast-' || s.name
    where s.name is null or j.jobid is null or not j.active or j.command <> backup.job_command(s.kind, s.name)
      or j.database <> pg_catalog.current_database()
      or (j.username <> 'postgres' and j.username <> (select n.nspowner::regrole::text from pg_catalog.pg_namespace as n where n.nspname = 'backup'))
  $sql$;
end
$$;
revoke all on function backup.check_jobs() from public;
