-- What an object is after a command: written to the DDL log by the event triggers, read by replays where the command's text
-- does not say it. JSON, in words of the server's own (pg_get_…); a null where there are none, and then no replay does it.

-- Under which settings the command's text was read, as 1020 has noted them: '{}' where it could not.
create function backup.session_settings() returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(nullif(pg_catalog.current_setting('holdfast.session', true), ''), '{}')::jsonb;
exception when others then
  return '{}'::jsonb;
end
$$;
revoke all on function backup.session_settings() from public;

-- The text of the query as the log keeps it: not where it is long and everything is described, since each command of a script
-- has a row with the whole of it.
create function backup.logged_query(objects jsonb) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when pg_catalog.length(pg_catalog.current_query()) < 8000 then pg_catalog.current_query()
    when exists (
      select from pg_catalog.jsonb_array_elements(objects) as o
      where o ->> 'made' is null and (o -> 'extension') is distinct from 'true'::jsonb
    ) then pg_catalog.left(pg_catalog.current_query(), 1000000)
    else ''
  end
$$;
revoke all on function backup.logged_query(jsonb) from public;

-- A table. A replay asks a target the same question with the same text, and compares.
create function backup.describe_table(described oid) returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'major', pg_catalog.current_setting('server_version_num')::integer / 10000,
    'name', c.oid::regclass::text,
    'schema', pg_catalog.quote_ident(n.nspname),
    'bareName', pg_catalog.quote_ident(c.relname),
    'kind', c.relkind,
    'persistence', c.relpersistence,
    'owner', pg_catalog.pg_get_userbyid(c.relowner),
    'partitionKey', case when c.relkind = 'p' then pg_catalog.pg_get_partkeydef(c.oid) end,
    'bound', case when c.relispartition then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end,
    'parents', coalesce((
      select pg_catalog.jsonb_agg(h.inhparent::regclass::text order by h.inhseqno)
      from pg_catalog.pg_inherits as h where h.inhrelid = c.oid
    ), '[]'),
    'partitions', case when c.relkind = 'p' then coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', p.oid::regclass::text, 'bound', pg_catalog.pg_get_expr(p.relpartbound, p.oid)
      ) order by h.inhrelid)
      from pg_catalog.pg_inherits as h join pg_catalog.pg_class as p on p.oid = h.inhrelid
      where h.inhparent = c.oid and p.relkind in ('r', 'p')
    ), '[]') end,
    'options', coalesce(pg_catalog.to_jsonb(c.reloptions), '[]'),
    'rowSecurity', c.relrowsecurity,
    'forceRowSecurity', c.relforcerowsecurity,
    'replicaIdentity', c.relreplident,
    'replicaIndex', (
      select pg_catalog.quote_ident(x.relname) from pg_catalog.pg_index as i
      join pg_catalog.pg_class as x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident
    ),
    'columns', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', a.attname,
        'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'collation', case when a.attcollation <> t.typcollation and a.attcollation <> 0
          then a.attcollation::regcollation::text end,
        'notNull', a.attnotnull,
        'generated', a.attgenerated,
        'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid),
        'isLocal', a.attislocal,
        'storage', case when a.attstorage <> t.typstorage then a.attstorage end,
        'compression', nullif(a.attcompression, ''),
        'statistics', nullif(a.attstattarget, -1),
        'comment', pg_catalog.col_description(c.oid, a.attnum),
        'identity', case when a.attidentity <> '' then (
          select pg_catalog.jsonb_build_object(
            'always', a.attidentity = 'a', 'sequence', q.seqrelid::regclass::text, 'start', q.seqstart::text,
            'increment', q.seqincrement::text, 'min', q.seqmin::text, 'max', q.seqmax::text, 'cache', q.seqcache::text,
            'cycle', q.seqcycle
          )
          from pg_catalog.pg_depend as o join pg_catalog.pg_sequence as q on q.seqrelid = o.objid
          where o.classid = 'pg_catalog.pg_class'::regclass and o.refclassid = 'pg_catalog.pg_class'::regclass
            and o.refobjid = c.oid and o.refobjsubid = a.attnum and o.deptype = 'i'
        ) end
      ) order by a.attnum)
      from pg_catalog.pg_attribute as a
      join pg_catalog.pg_type as t on t.oid = a.atttypid
      left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ), '[]'),
    'constraints', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', k.conname, 'text', pg_catalog.pg_get_constraintdef(k.oid),
        'inherited', k.conparentid <> 0 or (k.coninhcount > 0 and not k.conislocal)
      ) order by k.contype = 'f', k.conname)
      from pg_catalog.pg_constraint as k
      where k.conrelid = c.oid and k.contype in ('p', 'u', 'x', 'c', 'f')
    ), '[]'),
    'uniqueIndexes', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', pg_catalog.quote_ident(x.relname), 'key', (
          select pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid, k, false), ', ' order by k)
          from pg_catalog.generate_series(1, i.indnkeyatts) as k
        )
      ) order by x.relname)
      from pg_catalog.pg_index as i join pg_catalog.pg_class as x on x.oid = i.indexrelid
      where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
        and not exists (select from pg_catalog.pg_constraint as k where k.conindid = i.indexrelid and k.conrelid = c.oid)
    ), '[]'),
    'clusterIndex', (
      select pg_catalog.quote_ident(x.relname) from pg_catalog.pg_index as i
      join pg_catalog.pg_class as x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisclustered
    ),
    'triggers', coalesce((
      select pg_catalog.jsonb_object_agg(t.tgname, t.tgenabled)
      from pg_catalog.pg_trigger as t where t.tgrelid = c.oid and not t.tgisinternal
    ), '{}'),
    'rules', coalesce((
      select pg_catalog.jsonb_object_agg(r.rulename, r.ev_enabled) from pg_catalog.pg_rewrite as r where r.ev_class = c.oid
    ), '{}'),
    'comment', pg_catalog.obj_description(c.oid, 'pg_class')
  )
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where c.oid = described and c.relkind in ('r', 'p')
$$;
revoke all on function backup.describe_table(oid) from public;

-- Is it this transaction, or a part of it?
create function backup.is_of_this_transaction(id xid) returns boolean
language sql
stable
set search_path = ''
as $$
  select case
    when o.age > pg_catalog.age(o.xid8::xid) then false
    else pg_catalog.pg_xact_status((o.xid8::text::numeric + pg_catalog.age(o.xid8::xid) - o.age)::text::xid8) = 'in progress'
  end
  from (select pg_catalog.pg_current_xact_id() as xid8, pg_catalog.age(is_of_this_transaction.id) as age) as o
$$;
revoke all on function backup.is_of_this_transaction(xid) from public;

-- Who may do what with objects of users, one line an object and one a column: all that have a list of their own, or those of
-- which the list was written by transactions no older than `max_age` (as age() counts; null: all) in a command behind that of
-- the number `command`; of one kind (`table`, `routine`, `schema`, `type`), or `all`. `subject`: as GRANT names it. A replay asks
-- a target the same question with the same text.
create function backup.access_lists(max_age integer, command bigint, kind text)
returns table (subject text, column_name text, owner text, acl jsonb)
language sql
stable
set search_path = ''
as $$
  select l.subject, l.column_name, pg_catalog.pg_get_userbyid(l.owner)::text, coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'grantor', pg_catalog.pg_get_userbyid(x.grantor),
        'grantee', case when x.grantee <> 0 then pg_catalog.pg_get_userbyid(x.grantee) end,
        'privilege', x.privilege_type, 'grantable', x.is_grantable
      ))
      from pg_catalog.aclexplode(l.acl) as x
    ), '[]')
  from (
    select case when c.relkind = 'S' then 'sequence ' else 'table ' end || c.oid::regclass::text as subject, null::text as column_name,
      c.relowner as owner, coalesce(
        c.relacl, pg_catalog.acldefault(case when c.relkind = 'S' then 's'::"char" else 'r'::"char" end, c.relowner)
      ) as acl
    from pg_catalog.pg_class as c
    where kind in ('table', 'all') and c.oid >= 16384 and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
      and (max_age is null or pg_catalog.age(c.xmin) <= max_age and c.cmin::text::bigint > command)
    union all
    -- one without a list may have had one
    select 'table ' || c.oid::regclass::text, a.attname::text, c.relowner, a.attacl
    from pg_catalog.pg_attribute as a join pg_catalog.pg_class as c on c.oid = a.attrelid
    where kind in ('table', 'all') and a.attrelid >= 16384 and a.attnum > 0 and not a.attisdropped
      and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
      and case when max_age is null then a.attacl is not null
        else pg_catalog.age(a.xmin) <= max_age and a.cmin::text::bigint > command end
    union all
    select 'routine ' || p.oid::regprocedure::text, null, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
    from pg_catalog.pg_proc as p
    where kind in ('routine', 'all') and p.oid >= 16384 and (max_age is null or pg_catalog.age(p.xmin) <= max_age and p.cmin::text::bigint > command)
    union all
    select 'schema ' || n.oid::regnamespace::text, null, n.nspowner, coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
    from pg_catalog.pg_namespace as n
    where kind in ('schema', 'all') and n.oid >= 16384 and n.nspname !~ '^pg_'
      and (max_age is null or pg_catalog.age(n.xmin) <= max_age and n.cmin::text::bigint > command)
    union all
    select 'type ' || t.oid::regtype::text, null, t.typowner, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
    from pg_catalog.pg_type as t
    where kind in ('type', 'all') and t.oid >= 16384 and (max_age is null or pg_catalog.age(t.xmin) <= max_age and t.cmin::text::bigint > command) and (
      t.typtype in ('b', 'd', 'e', 'r') and t.typcategory <> 'A'
      or exists (select from pg_catalog.pg_class as c where c.oid = t.typrelid and c.relkind = 'c')
    )
  ) as l
$$;
revoke all on function backup.access_lists(integer, bigint, text) from public;

-- Values that rows have which were there before their column: computed once, by the command that added it.
create function backup.missing_values(altered oid) returns jsonb
language sql
stable
set search_path = ''
as $$
  with recursive family (oid) as (
    select altered
    union
    select h.inhrelid from family as f join pg_catalog.pg_inherits as h on h.inhparent = f.oid
  )
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'table', a.attrelid::regclass::text, 'column', a.attname, 'value', pg_catalog.array_to_string(a.attmissingval, '')
  ))
  from family as f
  join pg_catalog.pg_attribute as a on a.attrelid = f.oid and a.atthasmissing and not a.attisdropped
$$;
revoke all on function backup.missing_values(oid) from public;

-- What the extension got from this transaction by ALTER EXTENSION … ADD, as that command names it: '[]' where the extension
-- itself was altered, or gave something away.
create function backup.new_members(extension oid) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.format('%s %s', m.type, m.identity) order by m.identity), '[]')
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_depend as d on d.refclassid = 'pg_catalog.pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
  cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) as m
  where e.oid = new_members.extension and pg_catalog.age(d.xmin) <= pg_catalog.age(pg_catalog.pg_current_xact_id()::xid)
    and pg_catalog.age(e.xmin) > pg_catalog.age(pg_catalog.pg_current_xact_id()::xid)
$$;
revoke all on function backup.new_members(oid) from public;

-- One object of a command: {table} | {sequence} | {labels} | {populated, sql} | {sql} | {access} | {members} | {part}: made with
-- another object of the command. With `owner` where it has one of its own. Null: no replay can make it without the text.
-- `caller`: who gave the command, `client` or `code`.
create function backup.describe_object(
  class_id oid, object_id oid, sub_id integer, type text, identity text, tag text, caller text
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  creates boolean := tag !~ '^ALTER ';
  made jsonb;
begin
  if tag = 'COMMENT' then
    return pg_catalog.jsonb_build_object('sql', pg_catalog.format(
      'comment on %s %s is %L',
      case
        when type like '% column' then 'column'
        when type in ('table constraint', 'domain constraint') then 'constraint'
        when type = 'statistics object' then 'statistics'
        else type
      end,
      case
        when type = 'domain constraint' then (
          select pg_catalog.format('%I on domain %s', k.conname, k.contypid::regtype)
          from pg_catalog.pg_constraint as k where k.oid = object_id
        )
        else identity
      end,
      case when sub_id <> 0 then pg_catalog.col_description(object_id, sub_id)
        else pg_catalog.obj_description(object_id, class_id::regclass::name) end
    ));
  elsif tag = 'ALTER EXTENSION' then
    select pg_catalog.jsonb_build_object('extension', pg_catalog.quote_ident(e.extname), 'members', m.members)
    into made
    from pg_catalog.pg_extension as e cross join lateral backup.new_members(e.oid) as m (members)
    where type = 'extension' and e.oid = object_id and m.members <> '[]';
    return made;
  elsif tag in ('GRANT', 'REVOKE') then
    if type not in ('TABLE', 'COLUMN', 'SEQUENCE', 'FUNCTION', 'PROCEDURE', 'ROUTINE', 'SCHEMA', 'TYPE', 'DOMAIN') then
      return null;
    end if;
    -- one by itself says all, where it is known which names it could see: none of a temporary table
    if backup.session_settings() <> '{}' and caller = 'client'
      and not exists (select from pg_catalog.pg_class as c where c.relnamespace = pg_catalog.pg_my_temp_schema())
      and pg_catalog.current_query() ~* '^\s*(grant|revoke)\M'
      and pg_catalog.strpos(pg_catalog.rtrim(pg_catalog.current_query(), E' \t\r\n;'), ';') = 0
    then
      return null;
    end if;
    -- the server does not say of what: all that this transaction wrote since it was listed last
    select pg_catalog.jsonb_build_object('access', coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(l.*)), '[]'))
    into made
    from backup.access_lists(pg_catalog.age(pg_catalog.pg_current_xact_id()::xid), coalesce((
      select g.command
      from (
        select d.id, d.xmin, d.cmin::text::bigint as command, d.tag, d.objects
        from backup.ddl_log as d order by d.id desc limit 100
      ) as g
      where g.tag in ('GRANT', 'REVOKE') and g.objects @> '[{"made": {"access": []}}]'
        and backup.is_of_this_transaction(g.xmin)
      order by g.id desc limit 1
    ), -1), case
      when type in ('TABLE', 'COLUMN', 'SEQUENCE') then 'table' when type = 'SCHEMA' then 'schema'
      when type in ('TYPE', 'DOMAIN') then 'type' else 'routine'
    end) as l;
    return made;
  end if;
  -- what else was altered by a command may have had another name before
  if not creates and type not in ('table', 'table column', 'index', 'sequence', 'type', 'domain') then
    return null;
  end if;
  -- a snapshot of before does not show what others have committed since, unless nobody else could see the object: columns of
  -- the system are written once, with their table
  if not creates and type <> 'index' and pg_catalog.current_setting('transaction_isolation') <> 'read committed' and not exists (
    select from pg_catalog.pg_attribute as a
    where class_id = 'pg_catalog.pg_class'::regclass and a.attrelid = object_id and a.attnum = -1
      and backup.is_of_this_transaction(a.xmin)
  ) then
    return null;
  end if;
  case type
    when 'table' then
      made := pg_catalog.jsonb_build_object('table', backup.describe_table(object_id));
      if made ->> 'table' is null then
        return null;
      end if;
    when 'table column' then
      -- renamed
      select pg_catalog.jsonb_build_object('table', backup.describe_table(a.attrelid), 'renamed', a.attname)
      into made from pg_catalog.pg_attribute as a where a.attrelid = object_id and a.attnum = sub_id;
      if made ->> 'table' is null then
        return null;
      end if;
    when 'index' then
      select case
          -- of an altered table it comes with the table's constraints, or was there
          when not creates or c.relispartition or exists (select from pg_catalog.pg_constraint as k where k.conindid = c.oid and k.conrelid = i.indrelid)
            then pg_catalog.jsonb_build_object('part', true)
          -- one of a partitioned table reads ONLY, also where it was made for the partitions as well
          when c.relkind = 'I' and i.indisvalid and tag <> 'REINDEX' then pg_catalog.jsonb_build_object(
            'owner', pg_catalog.pg_get_userbyid(c.relowner),
            'sql', pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(c.oid), ' ON ONLY ', ' ON ')
          )
          else pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(c.relowner), 'sql', case
            -- one whose building had failed is in no copy
            when tag = 'REINDEX' then pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(c.oid), 'INDEX ', 'INDEX IF NOT EXISTS ')
            else pg_catalog.pg_get_indexdef(c.oid)
          end)
        end
      into made
      from pg_catalog.pg_class as c join pg_catalog.pg_index as i on i.indexrelid = c.oid where c.oid = object_id;
    when 'sequence' then
      select case when d.deptype = 'i' then pg_catalog.jsonb_build_object('part', true)
        else pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(c.relowner), 'sequence', pg_catalog.jsonb_build_object(
          'type', pg_catalog.format_type(s.seqtypid, null), 'persistence', c.relpersistence, 'start', s.seqstart::text,
          'increment', s.seqincrement::text, 'min', s.seqmin::text, 'max', s.seqmax::text, 'cache', s.seqcache::text,
          'cycle', s.seqcycle,
          'ownedBy', d.refobjid::regclass::text || '.' || pg_catalog.quote_ident(a.attname)
        )) end
      into made
      from pg_catalog.pg_sequence as s
      join pg_catalog.pg_class as c on c.oid = s.seqrelid
      left join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
        and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
      left join pg_catalog.pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      where s.seqrelid = object_id;
    when 'view' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(c.relowner),
        'sql', pg_catalog.format(
          'create or replace view %s%s as %s', c.oid::regclass,
          ' with (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')', pg_catalog.pg_get_viewdef(c.oid)
        )
      ) into made from pg_catalog.pg_class as c where c.oid = object_id;
    when 'materialized view' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(c.relowner), 'populated', c.relispopulated,
        'sql', pg_catalog.format(
          'create materialized view if not exists %s%s as %s with no data', c.oid::regclass,
          ' with (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')',
          pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), E'; \n')
        )
      ) into made from pg_catalog.pg_class as c where c.oid = object_id;
    when 'function', 'procedure' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(p.proowner), 'sql', pg_catalog.pg_get_functiondef(p.oid)
      ) into made from pg_catalog.pg_proc as p where p.oid = object_id and p.prokind <> 'a';
    when 'trigger' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(c.relowner),
        'sql', pg_catalog.format(
          'drop trigger if exists %I on %s; %s', t.tgname, c.oid::regclass, pg_catalog.pg_get_triggerdef(t.oid)
        )
      ) into made
      from pg_catalog.pg_trigger as t join pg_catalog.pg_class as c on c.oid = t.tgrelid where t.oid = object_id;
    when 'rule' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(c.relowner),
        'sql', pg_catalog.format('drop rule if exists %I on %s; %s', r.rulename, c.oid::regclass, pg_catalog.pg_get_ruledef(r.oid))
      ) into made
      from pg_catalog.pg_rewrite as r join pg_catalog.pg_class as c on c.oid = r.ev_class where r.oid = object_id;
    when 'policy' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(c.relowner),
        'sql', pg_catalog.format(
          'create policy %I on %s as %s for %s to %s%s%s', p.polname, c.oid::regclass,
          case when p.polpermissive then 'permissive' else 'restrictive' end,
          case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
          (
            select pg_catalog.string_agg(case when r = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r)) end, ', ')
            from pg_catalog.unnest(p.polroles) as r
          ),
          ' using (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')',
          ' with check (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')'
        )
      ) into made
      from pg_catalog.pg_policy as p join pg_catalog.pg_class as c on c.oid = p.polrelid where p.oid = object_id;
    when 'schema' then
      select pg_catalog.jsonb_build_object('sql', pg_catalog.format(
        'create schema if not exists %I authorization %I', n.nspname, pg_catalog.pg_get_userbyid(n.nspowner)
      )) into made from pg_catalog.pg_namespace as n where n.oid = object_id;
    when 'type', 'domain' then
      select pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(t.typowner)) || case
          -- renamed, moved or given away, unless this transaction made it: its labels do not say so
          when t.typtype = 'e' and not creates and backup.is_of_this_transaction(t.xmin) and not exists (
            select from pg_catalog.pg_depend as d
            where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.objsubid = 0
              and d.refclassid = 'pg_catalog.pg_namespace'::regclass and backup.is_of_this_transaction(d.xmin)
          ) then null
          when t.typtype = 'e' then pg_catalog.jsonb_build_object('labels', coalesce((
            select pg_catalog.jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum as e where e.enumtypid = t.oid
          ), '[]'))
          when t.typtype = 'c' and creates then pg_catalog.jsonb_build_object('sql', pg_catalog.format(
            'create type %s as (%s)', t.oid::regtype, (
              select pg_catalog.string_agg(pg_catalog.format(
                '%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                case when a.attcollation <> b.typcollation and a.attcollation <> 0 then ' collate ' || a.attcollation::regcollation end
              ), ', ' order by a.attnum)
              from pg_catalog.pg_attribute as a join pg_catalog.pg_type as b on b.oid = a.atttypid
              where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
            )
          ))
          when t.typtype = 'd' and creates then pg_catalog.jsonb_build_object('sql', pg_catalog.format(
            'create domain %s as %s%s%s%s%s', t.oid::regtype, pg_catalog.format_type(t.typbasetype, t.typtypmod),
            case when t.typcollation <> b.typcollation and t.typcollation <> 0 then ' collate ' || t.typcollation::regcollation end,
            ' default ' || pg_catalog.pg_get_expr(t.typdefaultbin, 'pg_catalog.pg_type'::regclass),
            case when t.typnotnull then ' not null' end, (
              select pg_catalog.string_agg(
                pg_catalog.format(' constraint %I %s', k.conname, pg_catalog.pg_get_constraintdef(k.oid)), '' order by k.conname
              )
              from pg_catalog.pg_constraint as k where k.contypid = t.oid and k.contype = 'c'
            )
          ))
        end
      into made
      from pg_catalog.pg_type as t left join pg_catalog.pg_type as b on b.oid = t.typbasetype where t.oid = object_id;
    when 'statistics object' then
      select pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(s.stxowner), 'sql', pg_catalog.pg_get_statisticsobjdef(s.oid)
      ) into made from pg_catalog.pg_statistic_ext as s where s.oid = object_id;
    when 'extension' then
      select pg_catalog.jsonb_build_object('version', e.extversion, 'sql', pg_catalog.format(
        'create extension if not exists %I schema %I', e.extname, n.nspname
      )) into made
      from pg_catalog.pg_extension as e join pg_catalog.pg_namespace as n on n.oid = e.extnamespace where e.oid = object_id;
    else
      return null;
  end case;
  return made;
exception when others then
  return null;
end
$$;
revoke all on function backup.describe_object(oid, oid, integer, text, text, text, text) from public;
