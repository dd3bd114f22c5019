/**
 * Every object of the database (and the shared ones that concern it) that neither initdb nor an extension made.
 *
 * This list is the measure of completeness: what no collector turns into a definition is named in `notCaptured`.
 */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { notOfOwnPublication, notOwnEventTrigger, notOwnPublication } from "./own_objects.ts";
import { arrayText } from "./quote.ts";
import { readRows } from "./read_rows.ts";

/** The first oid that initdb does not use (FirstNormalObjectId in PostgreSQL's transam.h). */
export const firstUserOid = 16384;

interface CatalogSource {
  readonly catalog: string;
  /** Relation to read when it is not the catalog itself (views that hide secrets). */
  readonly from?: string;
  /** The class under which dependencies and names know the object. Default: the catalog. */
  readonly class?: string;
  readonly oid?: string;
  readonly name: string;
  readonly schema?: string;
  readonly owner?: string;
  readonly acl?: string;
  /** The object kind letter of `acldefault()`. */
  readonly aclKind?: string;
  /** The catalog's own kind letter: relkind, prokind, typtype, contype. */
  readonly sub?: string;
  /** Oid of the relation, domain or operator family that the object hangs on. */
  readonly parent?: string;
  readonly where?: string;
  readonly shared?: boolean;
  readonly since?: number;
}

/** One line a catalog. Catalogs without a line hold details of these rows (pg_enum, pg_range, pg_sequence, pg_aggregate …). */
export const catalogSources: readonly CatalogSource[] = [
  { catalog: "pg_namespace", name: "nspname", schema: "o.oid", owner: "nspowner", acl: "nspacl", aclKind: "'n'" },
  {
    catalog: "pg_class",
    name: "relname",
    schema: "relnamespace",
    owner: "relowner",
    acl: "relacl",
    aclKind: "case when relkind = 'S' then 's' else 'r' end",
    sub: "relkind",
    parent: "(select i.indrelid from pg_catalog.pg_index i where i.indexrelid = o.oid)",
    where: "relkind not in ('t', 'c')",
  },
  {
    catalog: "pg_type",
    name: "typname",
    schema: "typnamespace",
    owner: "typowner",
    acl: "typacl",
    aclKind: "'T'",
    sub: "typtype",
    where: `typtype <> 'm'
      and not exists (select from pg_catalog.pg_class c where c.oid = o.typrelid and c.relkind <> 'c')
      and not (typelem <> 0 and exists (select from pg_catalog.pg_type e where e.oid = o.typelem and e.typarray = o.oid))`,
  },
  {
    catalog: "pg_proc",
    name: "proname",
    schema: "pronamespace",
    owner: "proowner",
    acl: "proacl",
    aclKind: "'f'",
    sub: "prokind",
    where: notInternal("pg_proc"),
  },
  { catalog: "pg_operator", name: "oprname", schema: "oprnamespace", owner: "oprowner" },
  { catalog: "pg_opclass", name: "opcname", schema: "opcnamespace", owner: "opcowner" },
  { catalog: "pg_opfamily", name: "opfname", schema: "opfnamespace", owner: "opfowner" },
  // Members of our own families are details of those; these were added to somebody else's.
  { catalog: "pg_amop", name: "''", parent: "amopfamily", where: strangerIn("amopfamily", "pg_operator", "amopopr") },
  { catalog: "pg_amproc", name: "''", parent: "amprocfamily", where: strangerIn("amprocfamily", "pg_proc", "amproc") },
  { catalog: "pg_cast", name: "''", where: notInternal("pg_cast") },
  { catalog: "pg_conversion", name: "conname", schema: "connamespace", owner: "conowner" },
  { catalog: "pg_collation", name: "collname", schema: "collnamespace", owner: "collowner" },
  { catalog: "pg_ts_parser", name: "prsname", schema: "prsnamespace" },
  { catalog: "pg_ts_template", name: "tmplname", schema: "tmplnamespace" },
  { catalog: "pg_ts_dict", name: "dictname", schema: "dictnamespace", owner: "dictowner" },
  { catalog: "pg_ts_config", name: "cfgname", schema: "cfgnamespace", owner: "cfgowner" },
  { catalog: "pg_foreign_data_wrapper", name: "fdwname", owner: "fdwowner", acl: "fdwacl", aclKind: "'F'" },
  { catalog: "pg_foreign_server", name: "srvname", owner: "srvowner", acl: "srvacl", aclKind: "'S'" },
  { catalog: "pg_user_mapping", from: "pg_user_mappings", oid: "umid", name: "usename" },
  { catalog: "pg_language", name: "lanname", owner: "lanowner", acl: "lanacl", aclKind: "'l'" },
  { catalog: "pg_transform", name: "''" },
  { catalog: "pg_am", name: "amname" },
  { catalog: "pg_extension", name: "extname", owner: "extowner", schema: "extnamespace" },
  {
    catalog: "pg_event_trigger",
    name: "evtname",
    owner: "evtowner",
    where: notOwnEventTrigger("evtname", "evtfoid"),
  },
  { catalog: "pg_publication", name: "pubname", owner: "pubowner", where: notOwnPublication("pubname") },
  { catalog: "pg_publication_rel", name: "''", parent: "prrelid", where: notOfOwnPublication("prpubid") },
  { catalog: "pg_publication_namespace", name: "''", schema: "pnnspid" },
  {
    catalog: "pg_subscription",
    name: "subname",
    owner: "subowner",
    where: "subdbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())",
    shared: true,
  },
  { catalog: "pg_statistic_ext", name: "stxname", schema: "stxnamespace", owner: "stxowner", parent: "stxrelid" },
  { catalog: "pg_default_acl", name: "''", schema: "nullif(defaclnamespace, 0)", owner: "defaclrole" },
  { catalog: "pg_policy", name: "polname", parent: "polrelid" },
  { catalog: "pg_rewrite", name: "rulename", parent: "ev_class" },
  {
    catalog: "pg_trigger",
    name: "tgname",
    parent: "tgrelid",
    where:
      `not tgisinternal or (tgparentid <> 0 and exists (select from pg_catalog.pg_trigger p where p.oid = tgparentid
      and p.tgenabled <> o.tgenabled))`,
  },
  {
    catalog: "pg_constraint",
    name: "conname",
    schema: "connamespace",
    sub: "contype",
    parent: "coalesce(nullif(conrelid, 0), contypid)",
    // A partition's copy of a foreign key comes with its parent's; NOT NULL of a table (18 and newer) is the column's.
    where: "not (contype = 'f' and conparentid <> 0) and not (contype = 'n' and conrelid <> 0)",
  },
  { catalog: "pg_attrdef", name: "''", parent: "adrelid" },
  {
    catalog: "pg_largeobject_metadata",
    class: "pg_largeobject",
    name: "o.oid::text",
    owner: "lomowner",
    acl: "lomacl",
    aclKind: "'L'",
  },
  {
    catalog: "pg_authid",
    from: "pg_roles",
    name: "rolname",
    where: "rolname not like 'pg\\_%'",
    shared: true,
  },
  { catalog: "pg_tablespace", name: "spcname", owner: "spcowner", acl: "spcacl", aclKind: "'t'", shared: true },
  {
    catalog: "pg_database",
    name: "datname",
    owner: "datdba",
    acl: "datacl",
    aclKind: "'d'",
    where: "datname = pg_catalog.current_database()",
    shared: true,
  },
  // The bootstrap superuser owns every setting.
  { catalog: "pg_parameter_acl", name: "parname", owner: "10::oid", acl: "paracl", aclKind: "'p'", shared: true },
];

const grantFormat = z.object({
  grantor: z.string(),
  /** Null is PUBLIC. */
  grantee: z.string().nullable(),
  privilege: z.string(),
  grantable: z.boolean(),
});
export type Grant = z.infer<typeof grantFormat>;

export const objectKeyOf = (catalog: string, oid: string): string => `${catalog}:${oid}`;

const catalogObjectFormat = z.object({
  catalog: z.string(),
  oid: z.string(),
  /** Words of `pg_identify_object`: `table`, `function`, `foreign-data wrapper` … */
  type: z.string().nullable(),
  identity: z.string().nullable(),
  schema: z.string().nullable(),
  name: z.string(),
  owner: z.string().nullable(),
  sub: z.string().nullable(),
  parent: z.string().nullable(),
  extension: z.string().nullable(),
  /** Made by the extension's own script: in the same transaction as its members. */
  madeWithExtension: z.boolean(),
  acl: z.array(grantFormat).nullable(),
  baseAcl: z.array(grantFormat).nullable(),
  comment: z.string().nullable(),
});

/** A row of a catalog, described the same way whatever the catalog. */
export type CatalogObject = z.infer<typeof catalogObjectFormat>;

export interface Inventory {
  readonly objects: ReadonlyMap<string, CatalogObject>;
  /** Objects that hang on an extension's table but are no members of it. */
  readonly onExtensions: readonly CatalogObject[];
}

export async function readInventory(connection: Connection, leaveOutSchemas: readonly string[]): Promise<Inventory> {
  const sources = catalogSources.filter((source) => connection.serverVersion >= (source.since ?? 0));
  const rows = await readRows(
    connection,
    "objects",
    catalogObjectFormat,
    `with members as materialized (
       select d.classid, d.objid, x.extname, d.refobjid, d.xmin as made
         from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid
        where d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::regclass
     ), object as (${sources.map(selectOf).join("\nunion all\n")})
     select o.catalog, o.oid, i.type, i.identity, n.nspname as schema, o.name, r.rolname as owner, o.sub,
            o.parent_class || ':' || o.parent as parent, coalesce(m.extname, p.extname) as extension,
            case when p.refobjid is null then false else
              exists (select from members s where s.refobjid = p.refobjid and s.made::text = o.made) end as "madeWithExtension",
            ${grantsOf("o.acl")} as acl,
            case when o.acl is not null or o.catalog = 'pg_namespace' then
              ${grantsOf('pg_catalog.acldefault(o.acl_kind::"char", o.owner)')} end as "baseAcl",
            case when o.shared then pg_catalog.shobj_description(o.oid, o.catalog)
                 else pg_catalog.obj_description(o.oid, o.catalog) end as comment
       from object o
       left join members m on m.classid = o.classid and m.objid = o.oid
       left join members p on p.classid = o.parent_class::regclass and p.objid = o.parent
       left join pg_catalog.pg_class pc on o.parent_class = 'pg_class' and pc.oid = o.parent
       left join pg_catalog.pg_type pt on o.parent_class = 'pg_type' and pt.oid = o.parent
       left join pg_catalog.pg_namespace n on n.oid = coalesce(o.schema, pc.relnamespace, pt.typnamespace)
       left join pg_catalog.pg_roles r on r.oid = o.owner
       cross join lateral pg_catalog.pg_identify_object(o.classid, o.oid, 0) i
      where (o.oid >= ${firstUserOid} or (o.catalog = 'pg_namespace' and o.name = 'public')
             or o.catalog = 'pg_authid' or o.catalog = 'pg_database')
        and m.objid is null
        and (n.nspname is null or (n.nspname !~ '^pg_(temp|toast)' and n.nspname <> all ($1::text[])))`,
    [arrayText(leaveOutSchemas)],
  );
  const objects = new Map<string, CatalogObject>();
  const onExtensions: CatalogObject[] = [];
  for (const row of rows) {
    if (row.extension !== null) onExtensions.push(row);
    else objects.set(objectKeyOf(row.catalog, row.oid), row);
  }
  return { objects, onExtensions };
}

/** Keys of relations, types and functions in schemas that are left out: what is made of them is left out as well. */
export async function readLeftOut(connection: Connection, schemas: readonly string[]): Promise<Set<string>> {
  const rows = await readRows(
    connection,
    "objects of schemas that are left out",
    z.object({ catalog: z.string(), oid: z.string() }),
    `select o.catalog, o.oid
       from (select 'pg_class' as catalog, c.oid, c.relnamespace as schema from pg_catalog.pg_class c
             union all select 'pg_type', t.oid, t.typnamespace from pg_catalog.pg_type t
             union all select 'pg_proc', p.oid, p.pronamespace from pg_catalog.pg_proc p) o
       join pg_catalog.pg_namespace n on n.oid = o.schema
      where n.nspname = any ($1::text[])`,
    [arrayText(schemas)],
  );
  return new Set(rows.map((row) => objectKeyOf(row.catalog, row.oid)));
}

/** The constructors and casts of a range come with it. */
function notInternal(catalog: string): string {
  return `not exists (select from pg_catalog.pg_depend i where i.classid = 'pg_catalog.${catalog}'::regclass
    and i.objid = o.oid and i.deptype = 'i' and i.refclassid = 'pg_catalog.pg_type'::regclass)`;
}

/** A member of a family of the system or an extension, unless it brings an extension's own operator or function. */
function strangerIn(family: string, catalog: string, member: string): string {
  const isExtension = (classes: string, oid: string) =>
    `exists (select from pg_catalog.pg_depend f where f.classid = 'pg_catalog.${classes}'::regclass and f.objid = ${oid}
      and f.deptype = 'e')`;
  return `(${family} < 16384 or ${isExtension("pg_opfamily", family)}) and not (${isExtension(catalog, member)})`;
}

function selectOf(source: CatalogSource): string {
  const parentClass = source.parent === undefined
    ? "null"
    : source.catalog === "pg_constraint"
    ? "case when conrelid <> 0 then 'pg_class' else 'pg_type' end"
    : source.catalog === "pg_amop" || source.catalog === "pg_amproc"
    ? "'pg_opfamily'"
    : "'pg_class'";
  return `select '${source.catalog}' as catalog, 'pg_catalog.${source.class ?? source.catalog}'::regclass as classid,
    o.${source.oid ?? "oid"} as oid, (${source.name})::text as name, ${source.schema ?? "null::oid"} as schema,
    ${source.owner ?? "null::oid"} as owner, ${source.acl ?? "null::aclitem[]"} as acl,
    ${source.aclKind ?? "null"} as acl_kind, (${source.sub ?? "null"})::text as sub,
    (${source.parent ?? "null"})::oid as parent, ${parentClass} as parent_class,
    ${source.shared ? "true" : "false"} as shared, ${source.parent === undefined ? "null" : "o.xmin::text"} as made
    from pg_catalog.${source.from ?? source.catalog} o where ${source.where ?? "true"}`;
}

/** A JSON array of the entries of an aclitem[]; null for null. */
export function grantsOf(acl: string): string {
  return `(case when ${acl} is not null then (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'grantor', pg_catalog.pg_get_userbyid(e.grantor),
      'grantee', case when e.grantee <> 0 then pg_catalog.pg_get_userbyid(e.grantee) end,
      'privilege', e.privilege_type, 'grantable', e.is_grantable)), '[]')
    from pg_catalog.aclexplode(${acl}) e) end)`;
}
