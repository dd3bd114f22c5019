-- Stands in for pg_net, which is not packaged: the same tables, types, signatures and grants. The requests are sent by
-- src/local/pg_net_worker.ts instead of a background worker.

create domain net.http_method as text check (value ilike any (array['get', 'post', 'delete']));
create type net.request_status as enum ('PENDING', 'SUCCESS', 'ERROR');
create type net.http_response as (status_code integer, headers jsonb, body text);
create type net.http_response_result as (status net.request_status, message text, response net.http_response);

create unlogged table net.http_request_queue (
  id bigserial not null,
  method net.http_method not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer not null
);

create unlogged table net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);
create index _http_response_created_idx on net._http_response (created);

-- A notification is delivered at commit and never for what was rolled back, which is when a request may be sent.
create function net._wake() returns trigger
language plpgsql set search_path = ''
as $$
begin
  perform pg_catalog.pg_notify('net_worker', '');
  return null;
end
$$;
create trigger wake_worker after insert on net.http_request_queue
  for each statement execute function net._wake();

create function net._urlencode_string(string character varying) returns text
language sql immutable strict set search_path = ''
as $$
  select coalesce(
    string_agg(
      case
        when c ~ '[A-Za-z0-9_.~-]' then c
        else pg_catalog.regexp_replace(pg_catalog.upper(pg_catalog.encode(pg_catalog.convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g')
      end,
      '' order by n
    ),
    ''
  )
  from pg_catalog.regexp_split_to_table(string, '') with ordinality as parts (c, n)
  where c <> ''
$$;

create function net._encode_url_with_params_array(url text, params_array text[]) returns text
language sql immutable set search_path = ''
as $$
  select case
    when coalesce(pg_catalog.array_length(params_array, 1), 0) = 0 then url
    else url || case when pg_catalog.strpos(url, '?') > 0 then '&' else '?' end || pg_catalog.array_to_string(params_array, '&')
  end
$$;

create function net._enqueue(method text, url text, params jsonb, headers jsonb, body bytea, timeout_milliseconds integer)
returns bigint
language plpgsql volatile set search_path = ''
as $$
declare
  encoded text[];
  request_id bigint;
begin
  select pg_catalog.array_agg(net._urlencode_string(key) || '=' || net._urlencode_string(value))
  into encoded
  from pg_catalog.jsonb_each_text(params);

  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values (method, net._encode_url_with_params_array(url, encoded), headers, body, timeout_milliseconds)
  returning id into request_id;
  return request_id;
end
$$;

-- definer as in pg_net, so that every role that may call it may write the queue
create function net.http_get(
  url text, params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds integer default 5000
) returns bigint
language sql volatile strict parallel safe security definer set search_path = ''
as $$
  select net._enqueue('GET', url, params, headers, null, timeout_milliseconds)
$$;

-- definer as in pg_net, so that every role that may call it may write the queue
create function net.http_delete(
  url text, params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds integer default 5000,
  body jsonb default null
) returns bigint
language sql volatile parallel safe security definer set search_path = ''
as $$
  select net._enqueue('DELETE', url, params, headers, pg_catalog.convert_to(body::text, 'UTF8'), timeout_milliseconds)
$$;

-- definer as in pg_net, so that every role that may call it may write the queue
create function net.http_post(
  url text, body jsonb default '{}', params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds integer default 5000
) returns bigint
language plpgsql volatile parallel safe security definer set search_path = ''
as $$
declare
  content_type text;
begin
  select h.value into content_type
  from pg_catalog.jsonb_each_text(coalesce(headers, '{}')) h
  where pg_catalog.lower(h.key) = 'content-type'
  limit 1;
  if content_type is null then
    headers := coalesce(headers, '{}') || '{"Content-Type": "application/json"}';
  elsif content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  return net._enqueue('POST', url, params, headers, pg_catalog.convert_to(body::text, 'UTF8'), timeout_milliseconds);
end
$$;

-- definer as in pg_net: with `async => false` it waits for the answer, up to its caller's statement_timeout
create function net._http_collect_response(request_id bigint, async boolean default true)
returns net.http_response_result
language plpgsql volatile parallel safe security definer set search_path = ''
as $$
declare
  answer net._http_response;
begin
  loop
    select * into answer from net._http_response r where r.id = request_id;
    exit when found or async;
    if not exists (select from net.http_request_queue q where q.id = request_id) then
      select * into answer from net._http_response r where r.id = request_id;
      exit;
    end if;
    perform pg_catalog.pg_sleep(0.05);
  end loop;
  if answer.id is null then
    if exists (select from net.http_request_queue q where q.id = request_id) then
      return ('PENDING', 'request is pending processing', null)::net.http_response_result;
    end if;
    return ('ERROR', 'request matching request_id not found', null)::net.http_response_result;
  end if;
  if answer.timed_out or answer.error_msg is not null then
    return ('ERROR', coalesce(answer.error_msg, 'request timed out'), null)::net.http_response_result;
  end if;
  return (
    'SUCCESS', 'ok', (answer.status_code, answer.headers, answer.content)::net.http_response
  )::net.http_response_result;
end
$$;

-- definer as in pg_net; kept there for callers of old
create function net.http_collect_response(request_id bigint, async boolean default true)
returns net.http_response_result
language sql volatile parallel safe security definer set search_path = ''
as $$
  select net._http_collect_response(request_id, async)
$$;

revoke execute on function net._enqueue(text, text, jsonb, jsonb, bytea, integer) from public;

-- As in pg_net everybody with the schema sees the queue, headers included.
grant usage on schema net to postgres, anon, authenticated, service_role, supabase_functions_admin;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;
