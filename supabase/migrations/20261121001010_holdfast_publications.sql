-- What the server sends: two publications, one of inserts and truncates, one of updates and deletes of the tables whose
-- rows can be known again. They follow the catalog at each command (the event triggers of 1020) and at each drain.

-- Can an update or delete of this table name the row it means? A key that is not valid or deferrable makes the user's own
-- UPDATE fail once the table is published.
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
  elsif changes_listed and not backup.has_usable_identity(table_oid) then
    execute pg_catalog.format('alter publication %I drop table only %s', publications[2], target);
  end if;
end
$$;
revoke all on function backup.publish_table(oid, name[]) from public;

-- Puts the tables of a command where they belong, where that needs no wait: a new one before its first row is written, an
-- altered one as well: it may have lost the key that its updates are known by, or have got one. What was updated or deleted
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
    select distinct coalesce(i.indrelid, c.oid)
    from pg_catalog.jsonb_to_recordset(objects) as x (type text, oid oid)
    join pg_catalog.pg_class as c on c.oid = x.oid
    left join pg_catalog.pg_index as i on i.indexrelid = c.oid
    left join pg_catalog.pg_class as t on t.oid = i.indrelid
    where x.type in ('table', 'index') and c.relpersistence = 'p' and coalesce(t.relkind, c.relkind) = 'r'
  loop
    entry := pg_catalog.jsonb_build_object('type', 'table', 'identity', touched::regclass::text, 'oid', touched::bigint);
    begin
      got_identity := backup.has_usable_identity(touched) and not exists (
        select from pg_catalog.pg_publication_rel as l
        join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = touched and p.pubname = chain.publications[2]
      );
      perform backup.publish_table(touched, chain.publications);
      -- what this session did and has not told the server's counters yet is counted as well
      if not got_identity or 0 = coalesce(
        pg_catalog.pg_stat_get_tuples_updated(touched) + pg_catalog.pg_stat_get_tuples_deleted(touched)
          + pg_catalog.pg_stat_get_xact_tuples_updated(touched) + pg_catalog.pg_stat_get_xact_tuples_deleted(touched), 0
      ) then
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
-- `just_added`: the table was there before and its inserts were not published until now.
create function backup.publish_tables(publications name[])
returns table (schema_name name, table_name name, missing text, reason text, just_added boolean)
language plpgsql
volatile
set search_path = ''
as $$
declare
  everything boolean := (select p.puballtables from pg_catalog.pg_publication as p where p.pubname = publications[1]);
  listed record;
begin
  for listed in
    select c.oid, n.nspname, c.relname, c.relpersistence, c.relreplident, backup.has_usable_identity(c.oid) as usable,
      exists (
        select from pg_catalog.pg_publication_rel as l join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = c.oid and p.pubname = publications[1]
      ) as inserts_listed,
      exists (
        select from pg_catalog.pg_publication_rel as l join pg_catalog.pg_publication as p on p.oid = l.prpubid
        where l.prrelid = c.oid and p.pubname = publications[2]
      ) as changes_listed
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind = 'r' and c.oid >= 16384 and c.relpersistence <> 't' and backup.is_streamed_schema(n.nspname)
      and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
      )
    order by n.nspname, c.relname
  loop
    schema_name := listed.nspname;
    table_name := listed.relname;
    just_added := false;
    if listed.relpersistence = 'u' then
      missing := 'everything';
      reason := 'it is unlogged: its changes are not in the log';
      return next;
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
