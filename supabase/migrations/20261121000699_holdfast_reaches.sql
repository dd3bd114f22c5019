-- What of the project's own reaches into schema backup past its policies: views, functions, tables that inherit. A grant is not
-- needed for that: in `public` a project gives everything new to the roles of the API by default.

-- Roles of the API that may use a schema.
create function backup.roles_that_use(schema oid) returns setof oid
language sql
stable
set search_path = ''
as $$
  select r.oid from pg_catalog.pg_roles as r
  where r.rolname in ('anon', 'authenticated', 'service_role')
    and pg_catalog.has_schema_privilege(r.oid, roles_that_use.schema, 'usage')
$$;
revoke all on function backup.roles_that_use(oid) from public;

create function backup.check_reaches() returns table (kind text, subject text, severity text, message text)
language plpgsql
stable
set search_path = ''
as $$
declare
  home constant oid := 'backup'::regnamespace;
  -- whoever names one of these means ours: `backup.` alone may be an alias
  ours constant text := (
    select pg_catalog.string_agg(n.name, '|')
    from (
      select c.relname::text from pg_catalog.pg_class as c where c.relnamespace = home and c.relkind in ('r', 'p', 'v')
      union
      select p.proname from pg_catalog.pg_proc as p where p.pronamespace = home
    ) as n (name)
  );
begin
  -- A view reads as its owner does, who passes policies by; so does one that reads a view of ours, which asks as its caller.
  return query
  with recursive reached (oid) as (
    select c.oid from pg_catalog.pg_class as c where c.relnamespace = home
    union
    select w.ev_class
    from reached as r
    join pg_catalog.pg_depend as d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = r.oid
      and d.classid = 'pg_catalog.pg_rewrite'::regclass
    join pg_catalog.pg_rewrite as w on w.oid = d.objid
  )
  select 'table_shown', v.oid::regclass::text, 'critical', pg_catalog.format(
    '%s may read this view, which shows tables of ours as its owner sees them; drop it, or revoke it',
    pg_catalog.string_agg(u.role::regrole::text, ' and ' order by u.role::regrole::text)
  )
  from reached as r
  join pg_catalog.pg_class as v on v.oid = r.oid and v.relkind in ('v', 'm') and v.relnamespace <> home
  cross join lateral backup.roles_that_use(v.relnamespace) as u (role)
  where pg_catalog.has_any_column_privilege(u.role, v.oid, 'select')
    and not exists (
      select from pg_catalog.pg_options_to_table(v.reloptions) as o
      where o.option_name = 'security_invoker' and o.option_value::boolean
    )
    and not exists (
      select from backup.installed_objects as i where i.kind = 'relation' and i.identity = v.oid::regclass::text
    )
  group by v.oid;

  -- Its text is all that can be looked at: what it puts together by parts is not seen.
  return query
  select 'definer_reaches', p.oid::regprocedure::text, 'critical', pg_catalog.format(
    '%s may call this function, which runs as %s and names tables or functions of ours; revoke it, or drop it',
    pg_catalog.string_agg(u.role::regrole::text, ' and ' order by u.role::regrole::text), p.proowner::regrole
  )
  from pg_catalog.pg_proc as p
  cross join lateral backup.roles_that_use(p.pronamespace) as u (role)
  where p.prosecdef and p.pronamespace <> home and p.prorettype not in ('trigger'::regtype, 'pg_catalog.event_trigger'::regtype)
    and pg_catalog.has_function_privilege(u.role, p.oid, 'execute')
    and pg_catalog.concat_ws(' ', p.prosrc, pg_catalog.pg_get_function_sqlbody(p.oid))
      ~* pg_catalog.format('\m"?backup"?\s*\.\s*"?(%s)\M', ours)
    and not exists (
      select from backup.installed_objects as i where i.kind = 'function' and i.identity = p.oid::regprocedure::text
    )
  group by p.oid, p.proowner;

  return query
  select 'table_inherited', h.inhrelid::regclass::text, 'critical', pg_catalog.format(
    'rows of this table count as rows of %1$s, past its triggers and policies; alter table %2$s no inherit %1$s;',
    h.inhparent::regclass, h.inhrelid::regclass
  )
  from pg_catalog.pg_inherits as h
  join pg_catalog.pg_class as parent on parent.oid = h.inhparent and parent.relnamespace = home
  join pg_catalog.pg_class as child on child.oid = h.inhrelid and child.relnamespace <> home;

  return query
  select 'grant_by_default', 'schema backup', 'critical', pg_catalog.format(
    'what the next release makes here would be open: %s; take it back with alter default privileges',
    pg_catalog.string_agg(distinct g.told, ', ' order by g.told)
  )
  from pg_catalog.pg_default_acl as d
  cross join lateral pg_catalog.unnest(backup.grants_to_others(d.defaclacl, d.defaclrole)) as g (told)
  where d.defaclnamespace = home
  having count(*) > 0;
end
$$;
revoke all on function backup.check_reaches() from public;
