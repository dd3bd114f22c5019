-- Owners. REASSIGN OWNED fires no event trigger: each drain compares whose everything is with what it was at the last one, and
-- writes to the log what no command of the log did.

create table backup.known_owners (
  class_id oid not null,
  object_id oid not null,
  owner oid not null,
  primary key (class_id, object_id)
);
comment on table backup.known_owners is 'Whose the objects of this database were at the last drain.';
alter table backup.known_owners enable row level security;
revoke all on table backup.known_owners from public;

-- Objects of users and their owners. What the server's first superuser owns is not among them.
create function backup.object_owners() returns table (class_id oid, object_id oid, owner oid)
language sql
stable
set search_path = ''
as $$
  select s.classid, s.objid, s.refobjid
  from pg_catalog.pg_shdepend as s
  join pg_catalog.pg_database as d on d.oid = s.dbid and d.datname = pg_catalog.current_database()
  where s.deptype = 'o' and s.objsubid = 0 and s.objid >= 16384
$$;
revoke all on function backup.object_owners() from public;

-- Whose an object is by a row of the log, as a replay makes it; null: the row says nothing of that. `present`: whose it is now,
-- which is believed of a text that gives it away.
create function backup.owner_by_log(said backup.ddl_log, made jsonb, present name) returns name
language sql
stable
set search_path = ''
as $$
  select case
    when said.what <> 'command' then null
    when coalesce(made #>> '{table,owner}', made ->> 'owner', made ->> 'given') is not null
      then coalesce(made #>> '{table,owner}', made ->> 'owner', made ->> 'given')::name
    when pg_catalog.strpos(made ->> 'sql' || ';', ' authorization ' || pg_catalog.quote_ident(present) || ';') > 0 then present
    when said.tag ~ '^CREATE ' then said.role_name
    when said.tag ~ '^ALTER ' and coalesce(said.settings ->> 'statement', said.query) ~* '\mowner\s+to\M' then present
  end
$$;
revoke all on function backup.owner_by_log(backup.ddl_log, jsonb, name) from public;

-- Owners that changed since this was called last and are others than the log says, a row each; returns how many. Sequences of
-- columns go with their tables; an extension keeps the owner that it was restored with; what is new and not in the log is not
-- restored. The first call after a chain has begun only looks.
create function backup.log_owners(token bigint) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  given jsonb;
  since timestamptz;
  told integer := 0;
begin
  perform backup.hold_drain(token, interval '90 seconds');
  select d.owners_read_at into since from backup.drain as d;
  for given in
    with changed as materialized (
      select class_id, object_id, k.owner is null as is_new, pg_catalog.pg_get_userbyid(coalesce(n.owner, 10)) as owner
      from backup.known_owners as k full join backup.object_owners() as n using (class_id, object_id)
      where since is not null and n.owner is distinct from k.owner
    ), by_log as materialized (
      select distinct on (c.class_id, c.object_id) c.class_id, c.object_id, b.owner
      from backup.ddl_log as l
      cross join lateral pg_catalog.jsonb_array_elements(l.objects) as o (object)
      join changed as c on c.object_id::bigint = (o.object ->> 'oid')::bigint
      cross join lateral backup.owner_by_log(l, o.object -> 'made', c.owner) as b (owner)
      -- a transaction that was open at the last call has earlier rows
      where l.logged_at > since - interval '1 day' and exists (select from changed) and b.owner is not null
      order by c.class_id, c.object_id, l.id desc
    )
    select pg_catalog.jsonb_build_object(
      'type', i.type, 'identity', i.identity, 'schema', i.schema, 'oid', c.object_id::bigint,
      'made', pg_catalog.jsonb_build_object('given', c.owner)
    )
    from changed as c
    left join by_log as b on b.class_id = c.class_id and b.object_id = c.object_id
    cross join lateral pg_catalog.pg_identify_object(c.class_id, c.object_id, 0) as i
    where b.owner is distinct from c.owner and (b.owner is not null or not c.is_new) and i.identity is not null
      and i.type not in ('extension', 'index', 'toast table') and backup.is_logged_object(i.type, i.schema, i.identity)
      and not exists (
        select from pg_catalog.pg_depend as d
        where i.type = 'sequence' and d.classid = c.class_id and d.objid = c.object_id and d.deptype in ('a', 'i')
          and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjsubid > 0
      )
    order by c.class_id, c.object_id
  loop
    told := told + 1;
    perform backup.log_ddl('command', 'REASSIGN OWNED', pg_catalog.jsonb_build_array(given), pg_catalog.jsonb_build_object(
      'caller', 'drain', 'since', pg_catalog.to_char(since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    ));
  end loop;
  delete from backup.known_owners as k
  where not exists (select from backup.object_owners() as n where n.class_id = k.class_id and n.object_id = k.object_id);
  insert into backup.known_owners as k (class_id, object_id, owner)
  select n.class_id, n.object_id, n.owner from backup.object_owners() as n
  on conflict on constraint known_owners_pkey do update set owner = excluded.owner where k.owner <> excluded.owner;
  update backup.drain as d set owners_read_at = pg_catalog.clock_timestamp() where d.token = log_owners.token;
  return told;
end
$$;
revoke all on function backup.log_owners(bigint) from public;
