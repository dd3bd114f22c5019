-- run as: superuser
-- Roles belong to the server: made only when they are not there yet.
do $$
declare
  name text;
begin
  foreach name in array array['corpus_owner', 'corpus_reader', 'corpus_writer', 'corpus_login', 'Corpus "odd" rôle'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = name) then
      execute format('create role %I', name);
    end if;
  end loop;
end $$;
alter role corpus_login login noinherit connection limit 3 valid until '2040-01-02 03:04:05+00';
alter role corpus_login set statement_timeout to '5s';
alter role corpus_login set search_path to "Odd schéma", public, "$user";
alter role "Corpus ""odd"" rôle" createdb;
grant corpus_reader to corpus_writer;
grant corpus_owner, corpus_reader, corpus_writer, "Corpus ""odd"" rôle" to postgres with admin option;
comment on role corpus_owner is 'owns things; it''s a role';
do $$
begin
  execute format('alter database %I set "corpus.setting" to %L', current_database(), 'a ''quoted'' \ value');
  execute format('alter database %I set search_path to public, extensions', current_database());
  execute format('alter role corpus_login in database %I set work_mem to %L', current_database(), '8MB');
  execute format('grant create, temporary on database %I to corpus_owner', current_database());
  execute format('revoke temporary on database %I from public', current_database());
  execute format('comment on database %I is %L', current_database(), 'the corpus');
end $$;
