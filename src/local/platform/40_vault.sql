-- Stands in for supabase_vault, whose library is not packaged: the same tables, functions, signatures and grants, sealed
-- with AES-256-CBC and HMAC-SHA256 from pgcrypto instead of libsodium. As there, the root key is no row: it is the file
-- vault.key in the data directory, so neither a dump nor a backup holds it.

create table vault.secrets (
  id uuid not null default gen_random_uuid() primary key,
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea default extensions.gen_random_bytes(16),
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);
comment on table vault.secrets is 'Table with encrypted `secret` column for storing sensitive information on disk.';
create unique index secrets_name_idx on vault.secrets (name) where name is not null;

-- definer because only a superuser may read files; nobody but the functions below may call it
create function vault._derived_key(purpose text) returns bytea
language sql stable security definer set search_path = ''
as $$
  select extensions.hmac(pg_catalog.convert_to(purpose, 'UTF8'), pg_catalog.pg_read_binary_file('vault.key'), 'sha256')
$$;

create function vault._crypto_aead_det_noncegen() returns bytea
language sql volatile set search_path = ''
as $$
  select extensions.gen_random_bytes(16)
$$;

-- definer because it needs the root key
create function vault._crypto_aead_det_encrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null
) returns bytea
language plpgsql stable security definer set search_path = ''
as $$
declare
  sealed bytea := extensions.encrypt_iv(message, vault._derived_key('seal'), nonce, 'aes-cbc/pad:pkcs');
begin
  return extensions.hmac(context || nonce || additional || sealed, vault._derived_key('mac'), 'sha256') || sealed;
end
$$;

-- definer because it needs the root key
create function vault._crypto_aead_det_decrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null
) returns bytea
language plpgsql stable security definer set search_path = ''
as $$
declare
  sealed bytea := pg_catalog.substr(message, 33);
begin
  if extensions.hmac(context || nonce || additional || sealed, vault._derived_key('mac'), 'sha256')
    is distinct from pg_catalog.substr(message, 1, 32)
  then
    raise exception 'vault: this secret was not sealed with this server''s root key, or it was changed';
  end if;
  return extensions.decrypt_iv(sealed, vault._derived_key('seal'), nonce, 'aes-cbc/pad:pkcs');
end
$$;

create view vault.decrypted_secrets as
  select
    s.id, s.name, s.description, s.secret,
    pg_catalog.convert_from(
      vault._crypto_aead_det_decrypt(
        message => pg_catalog.decode(s.secret, 'base64'),
        additional => pg_catalog.convert_to(s.id::text, 'utf8'),
        key_id => 0,
        context => 'pgsodium'::bytea,
        nonce => s.nonce
      ),
      'utf8'
    ) as decrypted_secret,
    s.key_id, s.nonce, s.created_at, s.updated_at
  from vault.secrets s;

-- definer because callers may not write the table
create function vault.create_secret(
  new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null
) returns uuid
language plpgsql security definer set search_path = ''
as $$
declare
  new_id uuid := pg_catalog.gen_random_uuid();
  new_nonce bytea := vault._crypto_aead_det_noncegen();
begin
  insert into vault.secrets (id, secret, name, description, nonce)
  values (
    new_id,
    pg_catalog.encode(
      vault._crypto_aead_det_encrypt(
        message => pg_catalog.convert_to(new_secret, 'utf8'),
        additional => pg_catalog.convert_to(new_id::text, 'utf8'),
        key_id => 0,
        context => 'pgsodium'::bytea,
        nonce => new_nonce
      ),
      'base64'
    ),
    new_name, new_description, new_nonce
  );
  return new_id;
end
$$;

-- definer because callers may not write the table
create function vault.update_secret(
  secret_id uuid, new_secret text default null, new_name text default null, new_description text default null,
  new_key_id uuid default null
) returns void
language plpgsql security definer set search_path = ''
as $$
begin
  update vault.secrets s
  set secret = case when new_secret is null then s.secret else pg_catalog.encode(
        vault._crypto_aead_det_encrypt(
          message => pg_catalog.convert_to(new_secret, 'utf8'),
          additional => pg_catalog.convert_to(s.id::text, 'utf8'),
          key_id => 0,
          context => 'pgsodium'::bytea,
          nonce => s.nonce
        ),
        'base64'
      ) end,
      name = coalesce(new_name, s.name),
      description = coalesce(new_description, s.description),
      updated_at = pg_catalog.now()
  where s.id = secret_id;
end
$$;

revoke execute on all functions in schema vault from public;
grant usage on schema vault to postgres with grant option;
grant usage on schema vault to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant execute on function
  vault.create_secret(text, text, text, uuid), vault.update_secret(uuid, text, text, text, uuid),
  vault._crypto_aead_det_decrypt(bytea, bytea, bigint, bytea, bytea)
to postgres with grant option;
grant execute on function
  vault.create_secret(text, text, text, uuid), vault.update_secret(uuid, text, text, text, uuid),
  vault._crypto_aead_det_decrypt(bytea, bytea, bigint, bytea, bytea)
to service_role;
