/** Enums, composites, domains, ranges and shell types. */
import { z } from "zod";
import { type Collector, type CollectorContext, identityOf, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import type { Relations } from "./relations.ts";

export function typeCollector(relations: Relations): Collector {
  return async (context) => [
    ...(await enums(context)),
    ...composites(context, relations),
    ...(await domains(context)),
    ...(await ranges(context)),
    ...(await otherTypes(context)),
  ];
}

async function enums(context: CollectorContext): Promise<Draft[]> {
  const rows = await readRows(
    context.connection,
    "enums",
    z.object({ oid: z.string(), labels: z.array(z.string()).nullable() }),
    `select t.oid, (select pg_catalog.json_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e
       where e.enumtypid = t.oid) as labels
       from pg_catalog.pg_type t where t.typtype = 'e'`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_type", row.oid);
    if (object === undefined) return [];
    const labels = (row.labels ?? []).map(quoteLiteral);
    const statement = `create type ${identityOf(object)} as enum (${labels.join(", ")})`;
    return [draft(`pg_type:${row.oid}`, "enum", "pre-data", [statement], { ownerWord: "type" })];
  });
}

function composites(context: CollectorContext, relations: Relations): Draft[] {
  return [...relations.byOid.values()].filter((relation) => relation.relkind === "c").flatMap((relation) => {
    const object = ownObject(context, "pg_type", relation.rowType);
    if (object === undefined) return [];
    const attributes = (relations.columns.get(relation.oid) ?? []).map((column) =>
      `${quoteIdent(column.name)} ${column.type}${column.collation === null ? "" : ` collate ${column.collation}`}`
    );
    const statement = `create type ${identityOf(object)} as (${attributes.join(", ")})`;
    const covers = [`pg_class:${relation.oid}`];
    return [draft(`pg_type:${relation.rowType}`, "composite type", "pre-data", [statement], {
      covers,
      ownerWord: "type",
    })];
  });
}

async function domains(context: CollectorContext): Promise<Draft[]> {
  const rows = await readRows(
    context.connection,
    "domains",
    z.object({
      oid: z.string(),
      base: z.string(),
      collation: z.string().nullable(),
      default: z.string().nullable(),
      notNull: z.boolean(),
      constraints: z.array(
        z.object({
          oid: z.string(),
          name: z.string(),
          kind: z.string(),
          definition: z.string(),
          validated: z.boolean(),
        }),
      ).nullable(),
    }),
    `select t.oid, pg_catalog.format_type(t.typbasetype, t.typtypmod) as base,
            case when t.typcollation <> b.typcollation and t.typcollation <> 0 then
              pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) end as collation,
            coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 'pg_catalog.pg_type'::regclass), t.typdefault) as default,
            t.typnotnull as "notNull",
            (select pg_catalog.json_agg(pg_catalog.json_build_object('oid', k.oid, 'name', k.conname,
               'kind', k.contype, 'definition', pg_catalog.pg_get_constraintdef(k.oid), 'validated', k.convalidated)
               order by k.conname) from pg_catalog.pg_constraint k where k.contypid = t.oid) as constraints
       from pg_catalog.pg_type t
       join pg_catalog.pg_type b on b.oid = t.typbasetype
       left join pg_catalog.pg_collation co on co.oid = t.typcollation
       left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
      where t.typtype = 'd'`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_type", row.oid);
    if (object === undefined) return [];
    const name = identityOf(object);
    const constraints = row.constraints ?? [];
    const inline = constraints.filter((constraint) => constraint.validated);
    const namedNotNull = inline.some((constraint) => constraint.kind === "n");
    const key = `pg_type:${row.oid}`;
    const made = draft(key, "domain", "pre-data", [
      `create domain ${name} as ${row.base}` + (row.collation === null ? "" : ` collate ${row.collation}`) +
      (row.default === null ? "" : ` default ${row.default}`) + (row.notNull && !namedNotNull ? " not null" : "") +
      inline.map((constraint) => ` constraint ${quoteIdent(constraint.name)} ${constraint.definition}`).join(""),
    ], { covers: inline.map((constraint) => `pg_constraint:${constraint.oid}`), ownerWord: "domain" });
    const later = constraints.filter((constraint) => !constraint.validated).map((constraint) =>
      draft(`pg_constraint:${constraint.oid}`, "domain constraint", "post-data", [
        `alter domain ${name} add constraint ${quoteIdent(constraint.name)} ${constraint.definition}`,
      ], { after: [key] })
    );
    return [made, ...later];
  });
}

async function ranges(context: CollectorContext): Promise<Draft[]> {
  const rows = await readRows(
    context.connection,
    "ranges",
    z.object({
      oid: z.string(),
      subtype: z.string(),
      opclass: z.string(),
      defaultOpclass: z.boolean(),
      collation: z.string().nullable(),
      canonical: z.string(),
      difference: z.string(),
      multirange: z.string(),
      multirangeOid: z.string(),
    }),
    `select t.oid, pg_catalog.format_type(r.rngsubtype, null) as subtype,
            pg_catalog.quote_ident(opn.nspname) || '.' || pg_catalog.quote_ident(op.opcname) as opclass,
            op.opcdefault as "defaultOpclass",
            case when r.rngcollation <> st.typcollation then
              pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) end as collation,
            r.rngcanonical::text as canonical, r.rngsubdiff::text as difference,
            pg_catalog.format_type(r.rngmultitypid, null) as multirange, r.rngmultitypid as "multirangeOid"
       from pg_catalog.pg_range r
       join pg_catalog.pg_type t on t.oid = r.rngtypid
       join pg_catalog.pg_type st on st.oid = r.rngsubtype
       join pg_catalog.pg_opclass op on op.oid = r.rngsubopc
       join pg_catalog.pg_namespace opn on opn.oid = op.opcnamespace
       left join pg_catalog.pg_collation co on co.oid = r.rngcollation
       left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_type", row.oid);
    if (object === undefined || row.canonical !== "-") return [];
    const parts = [`subtype = ${row.subtype}`, `multirange_type_name = ${row.multirange}`];
    if (!row.defaultOpclass) parts.push(`subtype_opclass = ${row.opclass}`);
    if (row.collation !== null) parts.push(`collation = ${row.collation}`);
    if (row.difference !== "-") parts.push(`subtype_diff = ${row.difference}`);
    return [draft(`pg_type:${row.oid}`, "range", "pre-data", [
      `create type ${identityOf(object)} as range (${parts.join(", ")})`,
    ], { covers: [`pg_type:${row.multirangeOid}`], ownerWord: "type", ownedTypes: [row.multirange] })];
  });
}

/** Shell types are captured; base types need C functions and a superuser, and are listed by the inventory. */
async function otherTypes(context: CollectorContext): Promise<Draft[]> {
  const rows = await readRows(
    context.connection,
    "shell types",
    z.object({ oid: z.string() }),
    `select t.oid from pg_catalog.pg_type t where not t.typisdefined`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_type", row.oid);
    return object === undefined ? [] : [
      draft(`pg_type:${row.oid}`, "shell type", "pre-data", [`create type ${identityOf(object)}`], {
        ownerWord: "type",
      }),
    ];
  });
}
