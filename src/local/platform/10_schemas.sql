-- Schemas, their owners, and the extensions that every project starts with.

do $$
begin
  execute pg_catalog.format('alter database %I owner to postgres', pg_catalog.current_database());
  execute pg_catalog.format('grant all on database %I to dashboard_user', pg_catalog.current_database());
end
$$;

create schema extensions;
create schema auth authorization supabase_auth_admin;
create schema storage authorization supabase_storage_admin;
create schema realtime authorization supabase_admin;
create schema vault;
create schema net;
create schema supabase_functions authorization supabase_admin;

create extension pgcrypto with schema extensions;
create extension "uuid-ossp" with schema extensions;
create extension pg_stat_statements with schema extensions;

grant usage on schema public to anon, authenticated, service_role;
grant all on schema public to postgres;
grant usage on schema extensions to anon, authenticated, service_role, dashboard_user;
grant usage, create on schema extensions to postgres;
grant usage on schema auth to postgres, anon, authenticated, service_role;
grant all on schema auth to dashboard_user;
grant usage on schema storage to postgres, anon, authenticated, service_role;
grant all on schema storage to dashboard_user;
grant usage on schema realtime to postgres, anon, authenticated, service_role;
grant all on schema realtime to supabase_realtime_admin;

-- What postgres makes in public is granted to nobody by default, service_role included.

create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;
