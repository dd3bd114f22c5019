-- What the backup in store/ was taken of. Changing this file changes nothing: the store is written once.
create schema shop;
create type shop.status as enum ('new', 'paid', 'sent');
create domain shop.email as text check (value ~ '@');
create table shop.customers (
  id uuid primary key,
  name text not null,
  email shop.email unique,
  since timestamptz not null,
  credit numeric(14, 4),
  initials text generated always as (left(name, 1)) stored
);
comment on table shop.customers is 'people; it''s theirs';
create table shop.orders (
  id bigint generated always as identity primary key,
  customer uuid not null references shop.customers on delete cascade,
  status shop.status not null default 'new',
  details jsonb,
  ordered tstzrange,
  weight double precision,
  "Odd ""name""" text[]
);
create index orders_by_status on shop.orders (status) where status <> 'sent';
create table shop.events (at date not null, what text) partition by range (at);
create table shop.events_2025 partition of shop.events for values from ('2025-01-01') to ('2026-01-01');
create table shop.events_2026 partition of shop.events for values from ('2026-01-01') to ('2027-01-01');
create table shop.nothing ();
create table shop.empty (x integer);
create sequence shop.tickets increment 5 start 100;
insert into shop.customers
  select ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, 'customer ' || i || case i % 3 when 0 then E'\t\n\\' else ' ü' end,
         'c' || i || '@example.com', '2025-01-01Z'::timestamptz + i * interval '1 hour 1.000001 seconds',
         case when i % 7 = 0 then null when i % 7 = 1 then 'NaN' else i * 1.0001 end
    from generate_series(1, 40) i;
insert into shop.orders (customer, status, details, ordered, weight, "Odd ""name""")
  select ('00000000-0000-4000-8000-' || lpad((1 + i % 40)::text, 12, '0'))::uuid, (array['new', 'paid', 'sent'])[1 + i % 3]::shop.status,
         case i % 4 when 0 then null when 1 then 'null'::jsonb else jsonb_build_object('n', i, 'text', repeat('word ', i % 9)) end,
         tstzrange('2025-01-01Z', case when i % 2 = 0 then 'infinity'::timestamptz end),
         (array['-0', 'NaN', 'Infinity', '1e-300', '0.1'])[1 + i % 5]::float8, array['a', null, 'b"c']
    from generate_series(1, 120) i;
insert into shop.events select '2025-06-01'::date + i * 5, 'event ' || i from generate_series(1, 90) i;
insert into shop.nothing select from generate_series(1, 3);
select setval('shop.tickets', 145);
create view shop.open_orders as select * from shop.orders where status = 'new';
create materialized view shop.totals as select status, count(*) as orders from shop.orders group by status;
create function shop.touch() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger touch before update on shop.orders for each row execute function shop.touch();
alter table shop.customers enable row level security;
create policy own on shop.customers for select using (name = current_user);
grant usage on schema shop to public;
grant select on shop.orders to public;
