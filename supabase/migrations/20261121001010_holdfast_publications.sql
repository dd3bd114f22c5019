-- What the server sends: two publications, one of inserts and truncates, one of updates and deletes of the tables whose
-- rows can be known again. They follow the catalog at each command (the event triggers of 1020) and at each drain.

-- Can an update or delete of this table name the row it means? A key that is not valid or deferrable makes the user's own
-- UPDATE fail once the table is published; a generated column of a key is not in the stream.
create function backup.has_usable_identity(table_oid oid) returns boolean
language sql
stable
set search_path = ''
as $$
  select c.relpersistence = 'p' and (
    c.relreplident = 'f' or exists (
      select from pg_catalog.pg_index as i
      where i.indrelid = c.oid and i.indisvalid and i.indimmediate
        and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
        and not exists (
          select from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k (number, place)
          join pg_catalog.pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.number and a.attgenerated <> ''
          where k.place <= i.indnkeyatts
        )
    )
  )
  from pg_catalog.pg_class as c
  where c.oid = table_oid
$$;
revoke all on function backup.has_usable_identity(oid) from public;

-- Are inserts of every table published, a new one's from its first row on?
create function backup.publishes_everything() returns boolean
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select p.puballtables from backup.chains as c join pg_catalog.pg_publication as p on p.pubname = c.publications[1]
    where c.ended_at is null
  ), false)
$$;
revoke all on function backup.publishes_everything() from public;

-- Is a command to be logged? What happens before a chain begins is in the full backup that it waits for. A transaction with a
-- snapshot of before does not see that one has begun; a row too many is in no stream.
create function backup.logs_ddl() returns boolean
language sql
stable
set search_path = ''
as $$
  select d.logs_ddl or pg_catalog.current_setting('transaction_isolation') <> 'read committed' from backup.drain as d
$$;
revoke all on function backup.logs_ddl() from public;

-- The publications of the stream, made where they are missing: inserts and truncates of all tables where the server lets
-- us, else by list; updates and deletes by list. Returns whether inserts are of all tables.
create function backup.make_publications(publications name[]) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  update backup.drain as d set logs_ddl = true where not d.logs_ddl;
  if not exists (select from pg_catalog.pg_publication as p where p.pubname = publications[1]) then
    begin
      execute pg_catalog.format('create publication %I for all tables with (publish = ''insert, truncate'')', publications[1]);
    exception when insufficient_privilege then
      execute pg_catalog.format('create publication %I with (publish = ''insert, truncate'')', publications[1]);
      execute pg_catalog.format('alter publication %I add table only backup.ddl_log', publications[1]);
    end;
  end if;
  if not exists (select from pg_catalog.pg_publication as p where p.pubname = publications[2]) then
    execute pg_catalog.format('create publication %I with (publish = ''update, delete'')', publications[2]);
  end if;
  return (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
end
$$;
revoke all on function backup.make_publications(name[]) from public;

-- Since when the server's counters of tables count: another text after a reset of them, and after a crash.
create function backup.counting_since() returns text
language sql
volatile
set search_path = ''
as $$
  select pg_catalog.concat_ws(' ', extract(epoch from b.stats_reset), extract(epoch from d.stats_reset))
  from pg_catalog.pg_stat_bgwriter as b, pg_catalog.pg_stat_database as d
  where d.datname = pg_catalog.current_database()
$$;
revoke all on function backup.counting_since() from public;

-- Updates and deletes of a table that the stream may not have: all that the server has counted, with what this session did and
-- has not told the counters yet, less what was counted when it was published no more.
create function backup.counted_unseen(table_oid oid) returns bigint
language sql
volatile
set search_path = ''
as $$
  select coalesce(
      pg_catalog.pg_stat_get_tuples_updated(table_oid) + pg_catalog.pg_stat_get_tuples_deleted(table_oid)
        + pg_catalog.pg_stat_get_xact_tuples_updated(table_oid) + pg_catalog.pg_stat_get_xact_tuples_deleted(table_oid), 0
    ) - coalesce((
      select u.updated + u.deleted from backup.unlisted_tables as u
      where u.table_oid = counted_unseen.table_oid and u.counting_since = backup.counting_since()
    ), 0)
$$;
revoke all on function backup.counted_unseen(oid) from public;

-- Puts a table where it belongs: its updates and deletes into the list where its rows can be known again, else out of it;
-- its inserts into the list of inserts where there is no publication of all tables.
create function backup.publish_table(table_oid oid, publications name[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  target regclass := table_oid::regclass;
  everything boolean := (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
  inserts_listed boolean;
  changes_listed boolean;
begin
  select coalesce(pg_catalog.bool_or(p.pubname = publications[1]), false),
    coalesce(pg_catalog.bool_or(p.pubname = publications[2]), false)
  into inserts_listed, changes_listed
  from pg_catalog.pg_publication_rel as l
  join pg_catalog.pg_publication as p on p.oid = l.prpubid
  where l.prrelid = table_oid;
  if not everything and not inserts_listed then
    execute pg_catalog.format('alter publication %I add table only %s', publications[1], target);
  end if;
  if backup.has_usable_identity(table_oid) and not changes_listed then
    execute pg_catalog.format('alter publication %I add table only %s', publications[2], target);
    delete from backup.unlisted_tables as u where u.table_oid = publish_table.table_oid;
  elsif changes_listed and not backup.has_usable_identity(table_oid) then
    execute pg_catalog.format('alter publication %I drop table only %s', publications[2], target);
    insert into backup.unlisted_tables as u (table_oid, updated, deleted, counting_since)
    values (
      publish_table.table_oid,
      pg_catalog.pg_stat_get_tuples_updated(table_oid) + pg_catalog.pg_stat_get_xact_tuples_updated(table_oid),
      pg_catalog.pg_stat_get_tuples_deleted(table_oid) + pg_catalog.pg_stat_get_xact_tuples_deleted(table_oid),
      backup.counting_since()
    )
    on conflict on constraint unlisted_tables_pkey do update
    set updated = excluded.updated, deleted = excluded.deleted, counting_since = excluded.counting_since;
  end if;
end
$$;
revoke all on function backup.publish_table(oid, name[]) from public;

-- Puts the tables of a command where they belong, where that needs no wait: a new one before its first row is written, an
-- altered one as well: it may have lost the key that its updates are known by, or have got one; of a partitioned one all
-- partitions. What was updated or deleted
-- without one is in no segment, and no list of a drain tells of it any more: the log says so, and where the counters know of
-- none, that other sessions may have told them nothing yet. `objects`: as in the log.
create function backup.publish_touched(objects jsonb, tag text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  chain backup.chains;
  touched oid;
  got_identity boolean;
  unseen bigint;
  missed jsonb := '[]'::jsonb;
  doubted jsonb := '[]'::jsonb;
  entry jsonb;
  old_timeout text := pg_catalog.current_setting('lock_timeout');
begin
  select c.* into chain from backup.chains as c where c.ended_at is null;
  if chain.id is null then
    return;
  end if;
  perform pg_catalog.set_config('lock_timeout', '500ms', true);
  for touched in
    with recursive family (oid, relkind, is_named) as (
      select t.oid, t.relkind, true
      from pg_catalog.jsonb_to_recordset(objects) as x (type text, oid oid)
      left join pg_catalog.pg_index as i on i.indexrelid = x.oid
      join pg_catalog.pg_class as t on t.oid = coalesce(i.indrelid, x.oid)
      where x.type in ('table', 'index') and t.relpersistence = 'p' and t.relkind in ('r', 'p')
      union
      select c.oid, c.relkind, false
      from family as f
      join pg_catalog.pg_inherits as h on f.relkind = 'p' and h.inhparent = f.oid
      join pg_catalog.pg_class as c on c.oid = h.inhrelid and c.relkind in ('r', 'p')
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and backup.is_streamed_schema(n.nspname)
    )
    select distinct f.oid from family as f
    where f.relkind = 'r' and (
      f.is_named or backup.has_usable_identity(f.oid) <> exists (
        select from pg_catalog.pg_publication_rel as l
        join pg_catalog.pg_publication as p on p.oid = l.prpubid and p.pubname = chain.publications[2]
        where l.prrelid = f.oid
      )
    )
  loop
    entry := pg_catalog.jsonb_build_object('type', 'table', 'identity', touched::regclass::text, 'oid', touched::bigint);
    begin
      got_identity := backup.has_usable_identity(touched) and not exists (
        select from pg_catalog.pg_publication_rel as l
        join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = touched and p.pubname = chain.publications[2]
      );
      unseen := case when got_identity then backup.counted_unseen(touched) else 0 end;
      perform backup.publish_table(touched, chain.publications);
      if unseen = 0 then
        doubted := doubted || case when got_identity and tag not like 'CREATE TABLE%' then entry else '[]' end;
        continue;
      end if;
    exception when others then
      -- another transaction makes a table as well, or the platform refuses: the drain adds it, the log says since when not
      null;
    end;
    missed := missed || entry;
  end loop;
  perform pg_catalog.set_config('lock_timeout', old_timeout, true);
  if missed <> '[]' then
    perform backup.log_ddl('uncovered', publish_touched.tag, missed);
  end if;
  if doubted <> '[]' then
    perform backup.log_ddl('doubted', publish_touched.tag, doubted);
  end if;
end
$$;
revoke all on function backup.publish_touched(jsonb, text) from public;

-- Makes the lists agree with the catalog; one line a table whose changes the stream does not carry whole, with a reason.
-- `just_added`: the table was there before and its inserts were not published until now. `seen_updated`, `seen_deleted`: so
-- many of what the server counts of it are in the stream. `unlogged_file`: of an unlogged one, which TRUNCATE changes.
create function backup.publish_tables(publications name[])
returns table (
  table_oid oid, schema_name name, table_name name, missing text, reason text, just_added boolean, of_extension boolean,
  seen_updated bigint, seen_deleted bigint, unlogged_file oid
)
language plpgsql
volatile
set search_path = ''
as $$
declare
  everything boolean := (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
  listed record;
  moved regclass;
begin
  delete from backup.unlisted_tables as u where not exists (select from pg_catalog.pg_class as c where c.oid = u.table_oid);
  -- nobody looks any more whether one that was moved out has an identity: its own UPDATE would fail one day
  for moved in
    select l.prrelid::regclass
    from pg_catalog.pg_publication_rel as l
    join pg_catalog.pg_publication as p on p.oid = l.prpubid and p.pubname = publications[2]
    join pg_catalog.pg_class as c on c.oid = l.prrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where not backup.is_streamed_schema(n.nspname)
  loop
    begin
      perform pg_catalog.set_config('lock_timeout', '2s', true);
      execute pg_catalog.format('alter publication %I drop table only %s', publications[2], moved);
    exception when others then
      null;
    end;
  end loop;
  for listed in
    select c.oid, n.nspname, c.relname, c.relpersistence, c.relreplident, backup.has_usable_identity(c.oid) as usable,
      exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
      ) as is_member,
      exists (
        select from pg_catalog.pg_publication_rel as l join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = c.oid and p.pubname = publications[1]
      ) as inserts_listed,
      exists (
        select from pg_catalog.pg_publication_rel as l join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = c.oid and p.pubname = publications[2]
      ) as changes_listed,
      u.updated, u.deleted
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    left join backup.unlisted_tables as u on u.table_oid = c.oid and u.counting_since = (select backup.counting_since())
    where c.relkind = 'r' and c.oid >= 16384 and c.relpersistence <> 't' and backup.is_streamed_schema(n.nspname)
    order by n.nspname, c.relname
  loop
    table_oid := listed.oid;
    schema_name := listed.nspname;
    table_name := listed.relname;
    just_added := false;
    of_extension := listed.is_member;
    unlogged_file := case when listed.relpersistence = 'u' then pg_catalog.pg_relation_filenode(listed.oid) end;
    seen_updated := listed.updated;
    seen_deleted := listed.deleted;
    if listed.relpersistence = 'u' then
      missing := 'everything';
      reason := 'it is unlogged: its changes are not in the log';
      return next;
      continue;
    end if;
    if listed.is_member then
      -- it is its extension's to publish; whether a backup has rows of it, a restore knows
      if not (listed.usable and listed.changes_listed and (everything or listed.inserts_listed)) then
        missing := case when everything or listed.inserts_listed then 'updates and deletes' else 'everything' end;
        reason := 'it belongs to an extension';
        return next;
      end if;
      continue;
    end if;
    if (everything or listed.inserts_listed) and listed.changes_listed = listed.usable then
      if not listed.usable then
        missing := 'updates and deletes';
        reason := 'it has no usable replica identity';
        return next;
      end if;
      continue;
    end if;
    begin
      perform pg_catalog.set_config('lock_timeout', '2s', true);
      perform backup.publish_table(listed.oid, publications);
      if not (everything or listed.inserts_listed) or (listed.usable and not listed.changes_listed) then
        missing := case when everything or listed.inserts_listed then 'updates and deletes' else 'everything' end;
        reason := 'it was not published until now';
        just_added := true;
        return next;
      end if;
      if not listed.usable then
        missing := 'updates and deletes';
        reason := 'it has no usable replica identity';
        just_added := false;
        -- taken out of the list just now
        select u.updated, u.deleted into seen_updated, seen_deleted from backup.unlisted_tables as u
        where u.table_oid = listed.oid and u.counting_since = backup.counting_since();
        return next;
      end if;
    exception when others then
      missing := case when everything then 'updates and deletes' else 'everything' end;
      reason := 'it cannot be published: ' || sqlerrm;
      return next;
    end;
  end loop;
end
$$;
revoke all on function backup.publish_tables(name[]) from public;

-- A table that a command took to where no changes are recorded, by itself or with its schema: the log closes it. Its command has
-- no other row there. One that was there before is in no backup, and a restore passes over it.
create function backup.after_move() returns event_trigger
language plpgsql
volatile
-- definer because DDL by any role is logged, and nobody else may write the log
security definer
set search_path = ''
set quote_all_identifiers = off
as $$
declare
  objects jsonb;
begin
  if not backup.logs_ddl() then
    return;
  end if;
  select pg_catalog.jsonb_agg(
    pg_catalog.jsonb_build_object('type', 'table', 'identity', c.oid::regclass::text, 'oid', c.oid::bigint) order by c.oid
  )
  into objects
  from pg_catalog.pg_event_trigger_ddl_commands() as d
  join pg_catalog.pg_class as c on case d.object_type when 'table' then c.oid when 'schema' then c.relnamespace end = d.objid
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where d.object_type in ('table', 'schema') and c.relkind = 'r' and c.relpersistence <> 't'
    and not backup.is_streamed_schema(n.nspname)
    and (
      pg_catalog.current_query() ~* case d.object_type when 'table' then '\mset\s+schema\M' else '\mrename\s+to\M' end
      or exists (
        select from pg_catalog.pg_publication_rel as l
        join pg_catalog.pg_publication as p on p.oid = l.prpubid
        join backup.chains as o on o.ended_at is null and p.pubname = any (o.publications)
        where l.prrelid = c.oid
      )
    );
  if objects is not null then
    perform backup.log_ddl('uncovered', tg_tag, objects);
  end if;
exception when others then
  perform backup.log_unlogged(tg_tag);
end
$$;
revoke all on function backup.after_move() from public;

do $$
begin
  create event trigger "!holdfast_after_move" on ddl_command_end when tag in ('ALTER TABLE', 'ALTER SCHEMA')
    execute function backup.after_move();
  alter event trigger "!holdfast_after_move" enable always;
exception when insufficient_privilege then
  -- the triggers of 1020 say so
  null;
end
$$;
