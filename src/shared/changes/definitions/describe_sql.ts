/** Questions about definitions that a replay asks its target: the bodies of two functions of the migrations, which a test compares. */

/** One row and column, of the table with the oid `described`; none where it is no table. */
export const describeTableSql = `
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
`;

/** `subject`, `column_name`, `owner`, `acl`; of all objects where `max_age` is null, and of every kind where `kind` is `all`. */
export const accessListsSql = `
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
`;
