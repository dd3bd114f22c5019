-- run as: postgres
-- The signatures of a hosted project's pg_net, without its worker, where there is none.
create schema if not exists net;
do $$
begin
  if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}',
      timeout_milliseconds integer default 5000) returns bigint language sql as 'select 1::bigint';
  end if;
end $$;
create schema corpus_webhooks;
create table corpus_webhooks.watched (id integer primary key);
create function corpus_webhooks.call_out() returns trigger language plpgsql as $$ begin perform net.http_post('http://localhost/hook'); return new; end $$;
create function corpus_webhooks.indirect() returns trigger language plpgsql as $$ begin perform corpus_webhooks.deeper(); return new; end $$;
create function corpus_webhooks.deeper() returns bigint language plpgsql as $$ begin return net.http_post(url := 'http://localhost/hook'); end $$;
create function corpus_webhooks.harmless() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger hook after insert on corpus_webhooks.watched for each row execute function corpus_webhooks.call_out();
create trigger hook_always after update on corpus_webhooks.watched for each row execute function corpus_webhooks.indirect();
alter table corpus_webhooks.watched enable always trigger hook_always;
create trigger hook_off after delete on corpus_webhooks.watched for each row execute function corpus_webhooks.call_out();
alter table corpus_webhooks.watched disable trigger hook_off;
create trigger quiet after insert on corpus_webhooks.watched for each row execute function corpus_webhooks.harmless();
