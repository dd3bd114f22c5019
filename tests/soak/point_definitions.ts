/** What the objects of schema `app` are, apart from their rows, as PostgreSQL itself writes them. */
import type { Session } from "./point_client.ts";

/** Of a relation or a function: who may do what, the owner's rights included. */
const rights = (acl: string, kind: string, owner: string) =>
  `(select string_agg(concat_ws('/', x.grantee::regrole, x.privilege_type, x.is_grantable), ' ' order by x.grantee::regrole::text, x.privilege_type)
      from aclexplode(coalesce(${acl}, acldefault('${kind}', ${owner}))) as x)`;

const parts = [
  `select concat_ws(' ', c.relkind, 'app.' || c.relname || ':', 'owner', c.relowner::regrole, 'security', c.relrowsecurity,
     c.relforcerowsecurity, 'identity', c.relreplident, c.relpersistence, c.reloptions, 'partition', c.relispartition,
     pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'), ${rights("c.relacl", "r", "c.relowner")})
   from pg_class as c where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')`,
  `select concat_ws(' ', 'column', 'app.' || c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
     a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
   from pg_class as c join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
   left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
   where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p')`,
  `select concat_ws(' ', pg_get_indexdef(i.indexrelid), 'valid', i.indisvalid, 'identity', i.indisreplident)
   from pg_index as i join pg_class as c on c.oid = i.indexrelid where c.relnamespace = 'app'::regnamespace`,
  `select concat_ws(' ', 'constraint', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), 'valid', k.convalidated)
   from pg_constraint as k where k.connamespace = 'app'::regnamespace and k.conrelid <> 0`,
  `select concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled) from pg_trigger as t join pg_class as c on c.oid = t.tgrelid
   where c.relnamespace = 'app'::regnamespace and not t.tgisinternal`,
  `select concat_ws(' ', 'policy', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[],
     pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
   from pg_policy as p join pg_class as c on c.oid = p.polrelid where c.relnamespace = 'app'::regnamespace`,
  `select concat_ws(' ', 'view', 'app.' || c.relname, pg_get_viewdef(c.oid)) from pg_class as c
   where c.relnamespace = 'app'::regnamespace and c.relkind in ('v', 'm')`,
  `select concat_ws(' ', pg_get_functiondef(f.oid), 'owner', f.proowner::regrole, ${
    rights("f.proacl", "f", "f.proowner")
  })
   from pg_proc as f where f.pronamespace = 'app'::regnamespace and f.prokind = 'f'
     and not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = f.oid and d.deptype = 'e')`,
  `select concat_ws(' ', 'enum', t.oid::regtype, (select string_agg(e.enumlabel, ',' order by e.enumsortorder)
     from pg_enum as e where e.enumtypid = t.oid))
   from pg_type as t where t.typnamespace = 'app'::regnamespace and t.typtype = 'e'`,
  `select concat_ws(' ', 'extension', e.extname, e.extversion) from pg_extension as e where e.extnamespace = 'app'::regnamespace`,
];

/** A line for each object, sorted; one of a table has its name with the schema in it. */
export async function readDefinitions(session: Session): Promise<readonly string[]> {
  const rows = await session.query(parts.map((part) => `select * from (${part}) as one (line)`).join(" union all "));
  return rows.map(({ line }) => String(line)).sort();
}

/** Lines that only one side has, for people; those that name a table of `without` apart. */
export function compareDefinitions(
  expected: readonly string[],
  found: readonly string[],
  without: readonly string[],
): string[] {
  const counts = (line: string) => !without.some((table) => new RegExp(`${table.replace(".", "\\.")}\\b`).test(line));
  const alone = (some: readonly string[], others: readonly string[], word: string) =>
    some.filter((line) => counts(line) && !others.includes(line)).map((line) => `${word}: ${line.slice(0, 300)}`);
  return [...alone(expected, found, "missing"), ...alone(found, expected, "surplus")];
}
