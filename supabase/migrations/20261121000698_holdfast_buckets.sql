-- The buckets of ours in Storage. A project's own policies may open every bucket (`using (true)`): restrictive ones of ours,
-- which all have to hold beside those, keep these closed to every role that row level security meets. The service role and
-- the owners of Storage's tables are not among them. A plain PostgreSQL has no schema storage, and gets none.

insert into backup.settings (name, kind, value, pattern, note) values
  ('buckets', 'text', 'holdfast-backups,holdfast-downloads,data-exports', '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(,[A-Za-z0-9][A-Za-z0-9._-]{0,62}){0,15}$',
    'buckets of ours in Storage, with commas: no policy of the project opens them');

create function backup.own_buckets() returns text[]
language sql
stable
-- definer because the policies that ask are evaluated for callers who may not read the settings
security definer
set search_path = ''
as $$
  select pg_catalog.string_to_array(s.value, ',') from backup.settings as s where s.name = 'buckets'
$$;
comment on function backup.own_buckets() is 'Buckets of Storage that are ours.';
revoke all on function backup.own_buckets() from public;
-- a policy's function is called by whoever reads the table; nobody may name what is in this schema
grant execute on function backup.own_buckets() to public;

-- Adds a bucket to those that are ours. Returns whether it was none of them before. HF003 for what is no bucket's name.
create function backup.use_bucket(bucket text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if bucket is null or bucket !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' then
    raise exception 'this is not the name of a bucket that Holdfast can use' using errcode = 'HF003';
  end if;
  update backup.settings as s set value = s.value || ',' || use_bucket.bucket, changed_at = backup.clock_now()
  where s.name = 'buckets' and not use_bucket.bucket = any (pg_catalog.string_to_array(s.value, ','));
  return found;
end
$$;
revoke all on function backup.use_bucket(text) from public;

-- 'guarded', 'missing' (there is no such policy, or another one of its name, or the table asks no policy at all), 'absent'
-- (no such table).
create function backup.bucket_guard_of(table_name text) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when pg_catalog.to_regclass(table_name) is null then 'absent'
    when exists (
      select
      from pg_catalog.pg_policy as p
      join pg_catalog.pg_class as c on c.oid = p.polrelid and c.relrowsecurity
      where p.polrelid = pg_catalog.to_regclass(table_name) and p.polname = 'holdfast_buckets'
        and not p.polpermissive and p.polcmd = '*' and p.polroles = array[0]::oid[] and p.polwithcheck is null
        and pg_catalog.pg_get_expr(p.polqual, p.polrelid) = pg_catalog.format(
          '((%s = ANY (( SELECT backup.own_buckets() AS own_buckets)::text[])) IS NOT TRUE)',
          case table_name when 'storage.buckets' then 'id' else 'bucket_id' end
        )
    ) then 'guarded'
    else 'missing'
  end
$$;
revoke all on function backup.bucket_guard_of(text) from public;

-- Makes the policies that are missing. On a hosted project each of these commands locks two dozen of the platform's tables
-- until commit: for an installation, never for a routine job. What may not be made, or whose tables are in use for too long,
-- is left to the next call; bucket_guard_of() and `audit security` tell.
create function backup.guard_buckets() returns void
language plpgsql
volatile
set search_path = ''
set lock_timeout = '3s'
as $$
declare
  guard record;
begin
  for guard in
    select g.* from (values ('storage.objects', 'bucket_id'), ('storage.buckets', 'id')) as g (table_name, bucket)
    where backup.bucket_guard_of(g.table_name) = 'missing'
  loop
    begin
      execute pg_catalog.format('drop policy if exists holdfast_buckets on %s', guard.table_name);
      execute pg_catalog.format(
        'create policy holdfast_buckets on %s as restrictive for all to public
         using ((%I = any ((select backup.own_buckets())::text[])) is not true)',
        guard.table_name, guard.bucket
      );
      perform backup.audit('install.guarded', guard.table_name, '{}');
    exception when insufficient_privilege or lock_not_available or deadlock_detected then
      raise notice 'no policy of ours on %: %', guard.table_name, sqlerrm;
    end;
  end loop;
end
$$;
revoke all on function backup.guard_buckets() from public;

do $$
begin
  perform backup.guard_buckets();
end
$$;
