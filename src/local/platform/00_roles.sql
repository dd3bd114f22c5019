-- The roles of a hosted project, with its attributes, memberships and settings. Passwords are set apart, by the stack.
-- Roles belong to the whole cluster: a second database finds them there already.

do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('postgres', 'login createrole createdb replication bypassrls'),
      ('anon', 'nologin noinherit'),
      ('authenticated', 'nologin noinherit'),
      ('service_role', 'nologin noinherit bypassrls'),
      ('authenticator', 'login noinherit'),
      ('supabase_auth_admin', 'login noinherit createrole'),
      ('supabase_storage_admin', 'login noinherit createrole'),
      ('supabase_functions_admin', 'nologin noinherit createrole'),
      ('supabase_realtime_admin', 'nologin noinherit'),
      ('supabase_replication_admin', 'login replication'),
      ('supabase_read_only_user', 'login bypassrls'),
      ('dashboard_user', 'nologin createrole createdb replication'),
      ('pgbouncer', 'login')
    ) as roles (name, attributes)
  loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
      execute pg_catalog.format('create role %I %s', wanted.name, wanted.attributes);
    end if;
  end loop;
end
$$;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres with admin option;
-- From 16 on CREATEROLE does not reach the settings of roles that one does not administrate; hosted projects on 17 have this.
do $$
begin
  if pg_catalog.current_setting('server_version_num')::integer >= 160000 then
    grant authenticator to postgres with admin option;
  end if;
end
$$;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres with admin option;
grant supabase_realtime_admin to postgres;
-- Storage runs each statement under the caller's role, which it reaches through authenticator.
grant authenticator to supabase_storage_admin;
grant pg_read_all_data to supabase_read_only_user;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = '60s';
alter role supabase_storage_admin set search_path = storage;

-- Stands in for supautils, which lets postgres set this by a SET statement only; a grant allows set_config() too.
grant set on parameter session_replication_role to postgres;
-- Stands in for supautils too: settings of PostgREST may be set for the platform's roles.
grant set on parameter "pgrst.db_pre_request" to postgres;
