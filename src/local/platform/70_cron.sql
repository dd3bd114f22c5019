-- The real pg_cron, in the one database that the server is set up for. postgres manages jobs through its functions only.

do $$
begin
  if pg_catalog.current_setting('cron.database_name', true) is distinct from pg_catalog.current_database() then
    return;
  end if;
  create extension pg_cron with schema pg_catalog;
  grant usage on schema cron to postgres with grant option;
  grant all on all tables in schema cron to postgres with grant option;
  grant all on all sequences in schema cron to postgres with grant option;
  grant execute on all functions in schema cron to postgres with grant option;
  revoke all on cron.job from postgres;
  grant select on cron.job to postgres with grant option;
end
$$;
