/** Publications and subscriptions. */
import { z } from "zod";
import { type Collector, type CollectorContext, identityOf, ownObject } from "./collector.ts";
import { draft } from "./draft.ts";
import { platformOf } from "./platform.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";

export const collectReplication: Collector = async (context) => [
  ...(await publications(context)),
  ...(await subscriptions(context)),
];

const publications: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "publications",
    z.object({
      oid: z.string(),
      allTables: z.boolean(),
      insert: z.boolean(),
      update: z.boolean(),
      delete: z.boolean(),
      truncate: z.boolean(),
      viaRoot: z.boolean(),
    }),
    `select p.oid, p.puballtables as "allTables", p.pubinsert as "insert", p.pubupdate as "update",
            p.pubdelete as "delete", p.pubtruncate as "truncate", p.pubviaroot as "viaRoot"
       from pg_catalog.pg_publication p where p.oid >= 16384`,
  );
  const tables = await readRows(
    context.connection,
    "publication tables",
    z.object({
      oid: z.string(),
      publicationOid: z.string(),
      publication: z.string(),
      tableOid: z.string(),
      table: z.string(),
      columns: z.array(z.string()).nullable(),
      filter: z.string().nullable(),
    }),
    `select r.oid, r.prpubid as "publicationOid", p.pubname as publication, r.prrelid as "tableOid",
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as table,
            (select pg_catalog.json_agg(a.attname order by a.attnum) from pg_catalog.pg_attribute a
              where a.attrelid = r.prrelid and a.attnum = any (r.prattrs)) as columns,
            pg_catalog.pg_get_expr(r.prqual, r.prrelid) as filter
       from pg_catalog.pg_publication_rel r
       join pg_catalog.pg_publication p on p.oid = r.prpubid
       join pg_catalog.pg_class c on c.oid = r.prrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace`,
  );
  const schemas = await readRows(
    context.connection,
    "publication schemas",
    z.object({
      oid: z.string(),
      publicationOid: z.string(),
      publication: z.string(),
      schemaOid: z.string(),
      schema: z.string(),
    }),
    `select s.oid, s.pnpubid as "publicationOid", p.pubname as publication, s.pnnspid as "schemaOid", n.nspname as schema
       from pg_catalog.pg_publication_namespace s
       join pg_catalog.pg_publication p on p.oid = s.pnpubid
       join pg_catalog.pg_namespace n on n.oid = s.pnnspid`,
  );
  return [
    ...rows.flatMap((row) => {
      const object = ownObject(context, "pg_publication", row.oid);
      if (object === undefined) return [];
      const actions = (["insert", "update", "delete", "truncate"] as const).filter((action) => row[action]);
      const options = [`publish = '${actions.join(", ")}'`];
      if (row.viaRoot) options.push("publish_via_partition_root = true");
      return [draft(`pg_publication:${row.oid}`, "publication", "last", [
        `create publication ${identityOf(object)}${row.allTables ? " for all tables" : ""} with (${
          options.join(", ")
        })`,
      ], { ownerWord: "publication" })];
    }),
    ...tables.filter((row) => ownObject(context, "pg_publication_rel", row.oid) !== undefined).map((row) =>
      draft(`pg_publication_rel:${row.oid}`, "publication table", "last", [
        `alter publication ${quoteIdent(row.publication)} add table only ${row.table}` +
        (row.columns === null ? "" : ` (${row.columns.map(quoteIdent).join(", ")})`) +
        (row.filter === null ? "" : ` where (${row.filter})`),
      ], {
        after: [`pg_publication:${row.publicationOid}`, `pg_class:${row.tableOid}`],
        table: `pg_class:${row.tableOid}`,
        platform: platformOfBoth(context, row.publicationOid, row.tableOid),
      })
    ),
    ...schemas.filter((row) => ownObject(context, "pg_publication_namespace", row.oid) !== undefined).map((row) =>
      draft(`pg_publication_namespace:${row.oid}`, "publication schema", "last", [
        `alter publication ${quoteIdent(row.publication)} add tables in schema ${quoteIdent(row.schema)}`,
      ], { after: [`pg_publication:${row.publicationOid}`, `pg_namespace:${row.schemaOid}`], platform: null })
    ),
  ];
};

/** The platform's own table in its own publication. */
function platformOfBoth(context: CollectorContext, publicationOid: string, tableOid: string): string | null {
  const publication = ownObject(context, "pg_publication", publicationOid);
  const table = ownObject(context, "pg_class", tableOid);
  if (publication === undefined || table === undefined || platformOf(table) === null) return null;
  return platformOf(publication);
}

const subscriptions: Collector = async (context) => {
  const since16 = context.connection.serverVersion >= 160000;
  const since17 = context.connection.serverVersion >= 170000;
  const rows = await readRows(
    context.connection,
    "subscriptions",
    z.object({
      oid: z.string(),
      slot: z.string().nullable(),
      publications: z.array(z.string()),
      binary: z.boolean(),
      streaming: z.string(),
      twoPhase: z.boolean(),
      disableOnError: z.boolean(),
      synchronousCommit: z.string(),
      runAsOwner: z.boolean().nullable(),
      origin: z.string().nullable(),
      passwordRequired: z.boolean(),
      failover: z.boolean(),
    }),
    `select s.oid, s.subslotname as slot, s.subpublications as publications, s.subbinary as binary,
            case s.substream::text when 't' then 'on' when 'true' then 'on' when 'p' then 'parallel' else 'off' end
              as streaming, s.subtwophasestate <> 'd' as "twoPhase", s.subdisableonerr as "disableOnError",
            s.subsynccommit as "synchronousCommit", ${since16 ? "s.subrunasowner" : "null::bool"} as "runAsOwner",
            ${since16 ? "s.suborigin" : "null"} as origin,
            ${since16 ? "s.subpasswordrequired" : "true"} as "passwordRequired",
            ${since17 ? "s.subfailover" : "false"} as failover
       from pg_catalog.pg_subscription s
      where s.subdbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_subscription", row.oid);
    if (object === undefined) return [];
    const name = identityOf(object);
    context.notCaptured.push({
      catalog: "pg_subscription",
      identity: `connection of subscription ${name}`,
      reason: "credentials are left out; set it with ALTER SUBSCRIPTION … CONNECTION",
    });
    const options = [
      "connect = false",
      `slot_name = ${row.slot === null ? "none" : quoteLiteral(row.slot)}`,
      `synchronous_commit = ${quoteLiteral(row.synchronousCommit)}`,
    ];
    if (row.binary) options.push("binary = true");
    if (row.streaming !== "off") options.push(`streaming = ${row.streaming}`);
    if (row.twoPhase) options.push("two_phase = true");
    if (row.disableOnError) options.push("disable_on_error = true");
    if (row.runAsOwner === true) options.push("run_as_owner = true");
    if (row.origin !== null && row.origin !== "any") options.push(`origin = ${quoteLiteral(row.origin)}`);
    if (!row.passwordRequired) options.push("password_required = false");
    if (row.failover) options.push("failover = true");
    return [draft(`pg_subscription:${row.oid}`, "subscription", "last", [
      `create subscription ${name} connection 'dbname=left_out_of_the_backup' publication ${
        row.publications.map(quoteIdent).join(", ")
      } with (${options.join(", ")})`,
    ], { ownerWord: "subscription", held: "subscription" })];
  });
};
