/** What random changes are made to: a small schema with something of every kind, as a role without special rights makes it. */

export const subjectSql = `
create schema shop;
create type shop.status as enum ('open', 'paid', 'sent');
create type shop.size as enum ('s', 'm', 'l');
create domain shop.price as numeric(10, 2) default 0 check (value >= 0);
create type shop.address as (street text, town text);
create sequence shop.numbers start with 100 increment by 5;
create function shop.next_code(prefix text) returns text language sql volatile as $$ select prefix || '-1' $$;
create function shop.is_town(t text) returns boolean language sql immutable as $$ select t <> '' $$;
create function shop.doubled(n integer) returns integer language sql immutable as $$ select n * 2 $$;
create table shop.customers (
  id bigint generated always as identity primary key,
  name text not null,
  town text not null default 'here' check (shop.is_town(town)),
  address shop.address,
  code text default shop.next_code('c'),
  email text unique,
  born date,
  note varchar(40),
  constraint name_is_short check (length(name) < 60)
);
create table shop.orders (
  id integer primary key default nextval('shop.numbers'),
  customer_id bigint not null references shop.customers (id) on delete cascade,
  status shop.status not null default 'open',
  sizes shop.size[] default '{}',
  total shop.price,
  amount integer,
  twice integer generated always as (shop.doubled(amount)) stored,
  made timestamptz not null default '2024-01-01',
  comment text
);
create table shop.lines (
  order_id integer not null references shop.orders (id),
  line integer not null,
  what text,
  primary key (order_id, line)
);
create table shop.log (id serial primary key, at timestamptz default '2024-01-01', what text) with (fillfactor = 80);
create table shop.visits (id integer not null, at date not null, who bigint references shop.customers (id), primary key (id, at))
  partition by range (at);
create table shop.visits_2024 partition of shop.visits for values from ('2024-01-01') to ('2025-01-01');
create table shop.visits_rest partition of shop.visits default;
create index visits_who on shop.visits (who);
create table shop.base (id integer primary key, kind text default 'base');
create table shop.special (extra text) inherits (shop.base);
create index orders_status on shop.orders (status) where status <> 'sent'::shop.status;
create index customers_town on shop.customers (lower(town), name);
create view shop.open_orders as select o.id, o.total, c.name from shop.orders o join shop.customers c on c.id = o.customer_id
  where o.status = 'open'::shop.status;
create view shop.open_names as select distinct name from shop.open_orders;
create materialized view shop.totals as select customer_id, sum(total) as total from shop.orders group by customer_id;
create unique index totals_key on shop.totals (customer_id);
create function shop.of_customer(c bigint) returns setof shop.orders language sql stable as $$ select * from shop.orders where customer_id = c $$;
create function shop.on_order() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger on_order before update of status on shop.orders for each row execute function shop.on_order();
create rule quiet as on delete to shop.log do instead nothing;
create statistics shop.on_orders on customer_id, status from shop.orders;
alter table shop.customers enable row level security;
alter table shop.orders enable row level security;
create policy own on shop.customers using (shop.is_town(town));
create policy never_sent on shop.orders as restrictive for select using (status <> 'sent'::shop.status);
create policy seen on shop.orders for select using (exists (select from shop.customers c where c.id = customer_id));
comment on table shop.orders is 'what was bought';
comment on column shop.customers.note is 'a note';
grant usage on schema shop to anon, authenticated;
grant select, insert on shop.orders to authenticated;
grant select (id, name) on shop.customers to anon;
grant execute on function shop.doubled(integer) to anon;
revoke execute on function shop.next_code(text) from public;
alter default privileges in schema shop grant select on tables to anon;
insert into shop.customers (name, town, email, note, address) select 'name ' || i, 'town ' || i, i || '@x', 'n' || i, row('a', 'b')::shop.address
  from generate_series(1, 20) i;
insert into shop.orders (customer_id, status, sizes, total, amount, comment)
  select 1 + i % 20, (array['open', 'paid', 'sent'])[1 + i % 3]::shop.status, '{s,m}', i, i, 'c' || i from generate_series(1, 60) i;
insert into shop.lines select id, l, 'what' from shop.orders, generate_series(1, 2) l;
insert into shop.log (what) select 'w' || i from generate_series(1, 10) i;
insert into shop.visits select i, date '2024-06-01' + i * 20, 1 + i % 20 from generate_series(1, 30) i;
insert into shop.base values (1), (2);
insert into shop.special values (3, 'special', 'x');
refresh materialized view shop.totals;
`;

/** The roles that the subject grants to, where the platform did not make them. */
export const rolesSql = `
do $$ declare r text; begin
  foreach r in array array['anon', 'authenticated', 'service_role', 'shop_owner', 'shop_reader'] loop
    if not exists (select from pg_roles where rolname = r) then execute format('create role %I nologin', r); end if;
  end loop;
end $$;
grant shop_owner to postgres;
`;

export interface Chance {
  integer(below: number): number;
}

/** Looks up what is there, so that a change finds something to act on. */
export type Ask = (sql: string) => Promise<readonly Readonly<Record<string, unknown>>[]>;

const types = [
  "text",
  "integer",
  "bigint",
  "varchar(5)",
  "numeric(6,1)",
  "boolean",
  "timestamptz",
  "jsonb",
  "shop.status",
];

/** One change as SQL, or null where there is nothing for it; many are refused by the server, which is as good as none. */
export async function randomChange(chance: Chance, ask: Ask, serial: number): Promise<string | null> {
  const pick = <T>(list: readonly T[]): T | undefined => list[chance.integer(list.length)];
  const text = async (sql: string) => String(pick(await ask(sql))?.["x"] ?? "");
  const table = () =>
    text(
      `select c.oid::regclass::text as x from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and n.nspname in ('shop', 'public') and not c.relname like 'backup%' order by 1`,
    );
  const column = (of: string) =>
    text(
      `select quote_ident(attname) as x from pg_attribute where attrelid = '${of}'::regclass and attnum > 0 and not attisdropped order by attnum`,
    );
  const object = (sql: string) => text(sql);
  const type = () => pick(types) ?? "text";
  const role = () => pick(["anon", "authenticated", "service_role", "shop_reader", "public"]) ?? "anon";
  const t = await table();
  if (t === "") return null;
  const c = await column(t);
  const name = `new_${serial}`;
  const cascade = chance.integer(2) === 0 ? "" : " cascade";
  const constraint = () =>
    object(`select format('alter table %s drop constraint %I', conrelid::regclass, conname) as x from pg_constraint k
      join pg_namespace n on n.oid = k.connamespace where conrelid <> 0 and nspname in ('shop', 'public') order by 1`);
  const fn = () =>
    object(
      `select oid::regprocedure::text as x from pg_proc where pronamespace in ('shop'::regnamespace, 'public'::regnamespace)
      and prokind = 'f' and prolang <> 13 order by 1`,
    );
  const makers: (() => Promise<string | null> | string | null)[] = [
    () => `alter table ${t} add column ${name} ${type()}`,
    () => `alter table ${t} add column ${name} integer not null default ${serial}`,
    () => `alter table ${t} add column ${name} bigint generated by default as identity`,
    () => `alter table ${t} add column ${name} serial`,
    () => `alter table ${t} drop column ${c}${cascade}`,
    () => `alter table ${t} drop column ${c} cascade`,
    () => `alter table ${t} rename column ${c} to ${name}`,
    async () => {
      const other = await column(t);
      return `alter table ${t} rename column ${c} to held_${serial}; alter table ${t} rename column ${other} to ${c}; alter table ${t} rename column held_${serial} to ${other}`;
    },
    () =>
      `alter table ${t} alter column ${c} drop default; alter table ${t} alter column ${c} type text using ${c}::text`,
    () => `alter table ${t} alter column ${c} type ${type()}`,
    () => `alter table ${t} alter column ${c} type varchar(80)`,
    () => `alter table ${t} alter column ${c} set default null`,
    () => `alter table ${t} alter column ${c} set default '7'`,
    () => `alter table ${t} alter column ${c} drop not null`,
    () => `alter table ${t} alter column ${c} set not null`,
    () => `alter table ${t} alter column ${c} drop expression`,
    () => `alter table ${t} alter column ${c} drop identity if exists`,
    () => `alter table ${t} alter column ${c} set generated by default`,
    () => `alter table ${t} alter column ${c} set statistics ${serial}`,
    () => `alter table ${t} alter column ${c} set storage external`,
    () => `alter table ${t} set (fillfactor = ${50 + chance.integer(40)})`,
    () => `alter table ${t} set (autovacuum_enabled = false)`,
    () => `alter table ${t} replica identity full`,
    () => `alter table ${t} rename to ${name}`,
    () => `alter table ${t} set schema ${pick(["shop", "public"])}`,
    () => `drop table ${t}${cascade}`,
    () =>
      `create table shop.${name} (id integer primary key, c ${type()}, ref bigint references shop.customers (id)); insert into shop.${name} values (1)`,
    () => `create table shop.${name} as select * from ${t}`,
    () => `create table shop.${name} (like ${t} including all)`,
    () => `create table shop.${name} () inherits (${t})`,
    () => `alter table shop.visits detach partition ${t}`,
    () =>
      `create table shop.${name} partition of shop.visits for values from ('${2030 + serial}-01-01') to ('${
        2031 + serial
      }-01-01')`,
    () => `alter table shop.special no inherit shop.base`,
    () => `create index ${name} on ${t} (${c})`,
    () => `create unique index ${name} on ${t} (${c})`,
    () => `alter table ${t} add constraint ${name} unique (${c})`,
    () => `alter table ${t} add constraint ${name} check (${c} is not null) not valid`,
    async () => `alter table ${t} add constraint ${name} foreign key (${c}) references ${await table()}`,
    constraint,
    async () => `${await constraint()} cascade`,
    async () => {
      const i = await object(
        `select indexrelid::regclass::text as x from pg_index i join pg_class c on c.oid = indrelid join pg_namespace n on n.oid = relnamespace where nspname in ('shop', 'public') order by 1`,
      );
      return pick([`drop index ${i}`, `alter index ${i} rename to ${name}`]) ?? null;
    },
    () => `create policy ${name} on ${t} using (true)`,
    () => `create policy ${name} on ${t} as restrictive for select to anon using (${c} is not null)`,
    () =>
      object(
        `select format('drop policy %I on %s', polname, polrelid::regclass) as x from pg_policy p join pg_class c on c.oid = polrelid join pg_namespace n on n.oid = relnamespace where nspname in ('shop', 'public') order by 1`,
      ),
    () =>
      object(
        `select format('alter policy %I on %s to anon', polname, polrelid::regclass) as x from pg_policy p join pg_class c on c.oid = polrelid join pg_namespace n on n.oid = relnamespace where nspname in ('shop', 'public') order by 1`,
      ),
    () => `alter table ${t} ${pick(["disable", "enable", "force", "no force"])} row level security`,
    () =>
      `create or replace function shop.doubled(n integer) returns integer language sql immutable as $$ select n * ${serial} $$`,
    () => `create function shop.${name}(n integer default 1) returns integer language sql as $$ select n $$`,
    async () => `drop function ${await fn()} cascade`,
    async () =>
      `alter function ${await fn()} ${pick(["strict", "security definer", "set search_path = ''", "cost 7"])}`,
    async () => `alter function ${await fn()} rename to ${name}`,
    () =>
      `drop function shop.is_town(text) cascade; create function shop.is_town(town text) returns boolean language sql as $$ select true $$`,
    () =>
      `drop function shop.next_code(text) cascade; create function shop.next_code(p text) returns text language sql as $$ select 'x' $$; alter table shop.customers alter code set default shop.next_code('d')`,
    () => `create view shop.${name} as select * from ${t}`,
    async () =>
      `drop view ${await object(
        `select oid::regclass::text as x from pg_class where relkind = 'v' and relnamespace in ('shop'::regnamespace, 'public'::regnamespace) and relname not like 'backup%' order by 1`,
      )} cascade`,
    () =>
      `create or replace view shop.open_names as select distinct name from shop.open_orders where total > ${serial}`,
    () => `alter view shop.open_names set (security_invoker = true)`,
    () => `drop materialized view shop.totals; create materialized view shop.totals as select 1 as customer_id`,
    () => `alter type shop.status add value '${name}'`,
    () => `alter type shop.status rename value '${pick(["open", "paid", "sent"])}' to '${name}'`,
    () =>
      `drop type shop.size cascade; create type shop.size as enum ('xl'); alter table shop.orders add column sizes shop.size[]`,
    () => `alter domain shop.price add constraint ${name} check (value < 100000)`,
    () =>
      `alter domain shop.price ${
        pick(["drop default", "set default 5", "set not null", "drop constraint price_check"])
      }`,
    () => `alter type shop.address add attribute ${name} text`,
    () =>
      `alter sequence shop.numbers ${
        pick(["increment by 7", "cache 9", "maxvalue 99999", "cycle", "owned by shop.orders.id"])
      }`,
    () => `create sequence shop.${name}`,
    () => `grant ${pick(["select", "insert", "all", "update", "truncate"])} on ${t} to ${role()}`,
    () => `grant select (${c}) on ${t} to ${role()} with grant option`,
    () => `revoke all on ${t} from ${role()} cascade`,
    async () => `revoke execute on function ${await fn()} from ${role()} cascade`,
    async () => `grant execute on function ${await fn()} to ${role()}`,
    () => `alter table ${t} owner to shop_owner`,
    async () => `alter function ${await fn()} owner to shop_owner`,
    () => `grant usage on schema shop to shop_reader; grant create on schema shop to shop_owner`,
    () => `revoke usage on schema shop from anon`,
    () =>
      `alter default privileges in schema ${pick(["shop", "public"])} ${
        pick(["grant insert", "grant all"])
      } on tables to ${role()}`,
    () => `alter default privileges in schema shop revoke select on tables from anon`,
    () => `comment on table ${t} is '${name}'`,
    () => `comment on column ${t}.${c} is '${name}'`,
    () => `comment on column ${t}.${c} is null`,
    () => `comment on function shop.doubled(integer) is 'it''s \\ ${name}'`,
    () => `create trigger ${name} after insert on ${t} for each row execute function shop.on_order()`,
    () => `alter table shop.orders ${pick(["disable", "enable always", "enable replica"])} trigger on_order`,
    () => `drop trigger on_order on shop.orders`,
    () => `alter table shop.log ${pick(["disable", "enable always"])} rule quiet`,
    () => `drop statistics shop.on_orders`,
    () => `create publication ${name} for table ${t} with (publish = 'insert')`,
    () => `create schema ${name}; create table ${name}.t (id integer)`,
    () => `cluster ${t} using ${name}`,
    () => `delete from ${t}`,
    () => `update ${t} set ${c} = null`,
    () => `alter table ${t} set unlogged`,
    () => `create role role_${serial}_of_test; drop role role_${serial}_of_test`,
  ];
  const maker = pick(makers);
  return maker === undefined ? null : await maker();
}
