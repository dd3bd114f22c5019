/** Grants on objects of extensions and of the system that differ from what their makers gave (pg_init_privs). */
import { z } from "zod";
import type { Collector } from "./collector.ts";
import { grantTarget } from "./designation.ts";
import { draft } from "./draft.ts";
import { grantsOf } from "./inventory.ts";
import { platformOf, platformOfRole } from "./platform.ts";
import { accessStatements, grantOn } from "./privileges.ts";
import { readRows } from "./read_rows.ts";

const grants = z.array(
  z.object({ grantor: z.string(), grantee: z.string().nullable(), privilege: z.string(), grantable: z.boolean() }),
);

const sources = [
  {
    catalog: "pg_class",
    name: "relname",
    schema: "relnamespace",
    owner: "relowner",
    acl: "relacl",
    kind: "case when relkind = 'S' then 's'::\"char\" else 'r'::\"char\" end",
    sub: "relkind",
  },
  {
    catalog: "pg_proc",
    name: "proname",
    schema: "pronamespace",
    owner: "proowner",
    acl: "proacl",
    kind: "'f'::\"char\"",
    sub: "prokind",
  },
  {
    catalog: "pg_type",
    name: "typname",
    schema: "typnamespace",
    owner: "typowner",
    acl: "typacl",
    kind: "'T'::\"char\"",
    sub: "typtype",
  },
  {
    catalog: "pg_namespace",
    name: "nspname",
    schema: "o.oid",
    owner: "nspowner",
    acl: "nspacl",
    kind: "'n'::\"char\"",
    sub: "null",
  },
  {
    catalog: "pg_language",
    name: "lanname",
    schema: "null::oid",
    owner: "lanowner",
    acl: "lanacl",
    kind: "'l'::\"char\"",
    sub: "null",
  },
  {
    catalog: "pg_foreign_data_wrapper",
    name: "fdwname",
    schema: "null::oid",
    owner: "fdwowner",
    acl: "fdwacl",
    kind: "'F'::\"char\"",
    sub: "null",
  },
];

export const collectExtensionPrivileges: Collector = async ({ connection }) => {
  const rows = await readRows(
    connection,
    "grants on objects of extensions",
    z.object({
      catalog: z.string(),
      oid: z.string(),
      type: z.string(),
      identity: z.string(),
      schema: z.string().nullable(),
      name: z.string(),
      owner: z.string(),
      sub: z.string().nullable(),
      extensionOid: z.string().nullable(),
      actual: grants,
      base: grants,
    }),
    `with changed as (${
      sources.map(({ catalog, name, schema, owner, acl, kind, sub }) =>
        `select '${catalog}' as catalog, 'pg_catalog.${catalog}'::regclass as classid, o.oid, o.${name}::text as name,
                ${schema} as schema, o.${owner} as owner, (${sub})::text as sub, d.refobjid as extension,
                coalesce(o.${acl}, pg_catalog.acldefault(${kind}, o.${owner})) as actual,
                coalesce(p.initprivs, pg_catalog.acldefault(${kind}, o.${owner})) as base
           from pg_catalog.${catalog} o
           left join pg_catalog.pg_init_privs p
             on p.classoid = 'pg_catalog.${catalog}'::regclass and p.objoid = o.oid and p.objsubid = 0
           left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.${catalog}'::regclass and d.objid = o.oid
             and d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::regclass
          where (o.oid < 16384 or d.objid is not null) and p.initprivs is distinct from o.${acl}
            and not ('${catalog}' = 'pg_namespace' and o.${name} = 'public')`
      ).join("\nunion all\n")
    })
     select c.catalog, c.oid, i.type, i.identity, n.nspname as schema, c.name, pg_catalog.pg_get_userbyid(c.owner) as owner,
            c.sub, c.extension as "extensionOid", ${grantsOf("c.actual")} as actual, ${grantsOf("c.base")} as base
       from changed c left join pg_catalog.pg_namespace n on n.oid = c.schema
       cross join lateral pg_catalog.pg_identify_object(c.classid, c.oid, 0) i
      where n.nspname is null or n.nspname !~ '^pg_(temp|toast)'
      order by i.type, i.identity`,
  );
  return rows.flatMap((row) => {
    const target = grantTarget({
      ...row,
      parent: null,
      extension: null,
      madeWithExtension: false,
      acl: row.actual,
      baseAcl: row.base,
      comment: null,
    });
    if (target === null) return [];
    const statements = accessStatements(
      { owner: row.owner, actual: row.actual, base: row.base, column: null },
      grantOn(target),
    );
    if (statements.length === 0) return [];
    const service = platformOf({ catalog: row.catalog, schema: row.schema, name: row.name, owner: row.owner }) ??
      (row.owner === "postgres" ? null : platformOfRole(row.owner));
    return [draft(`granted:${row.catalog}:${row.oid}`, "extension privileges", "post-data", [], {
      identity: `privileges of ${row.type} ${row.identity}`,
      after: row.extensionOid === null ? [] : [`pg_extension:${row.extensionOid}`],
      privileges: statements,
      platform: service,
    })];
  });
};
