/** Foreign-data wrappers, servers and user mappings. Foreign tables are tables. */
import { z } from "zod";
import { type Collector, type CollectorContext, identityOf, ownObject } from "./collector.ts";
import { draft } from "./draft.ts";
import { foreignOptions } from "./options.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";

const options = z.array(z.string()).nullable();

export const collectForeign: Collector = async (context) => {
  const wrappers = await readRows(
    context.connection,
    "foreign-data wrappers",
    z.object({ oid: z.string(), handler: z.string(), validator: z.string(), options }),
    `select f.oid, f.fdwhandler::regproc::text as handler, f.fdwvalidator::regproc::text as validator,
            f.fdwoptions as options from pg_catalog.pg_foreign_data_wrapper f where f.oid >= 16384`,
  );
  const servers = await readRows(
    context.connection,
    "foreign servers",
    z.object({
      oid: z.string(),
      type: z.string().nullable(),
      version: z.string().nullable(),
      wrapper: z.string(),
      options,
    }),
    `select s.oid, s.srvtype as type, s.srvversion as version, f.fdwname as wrapper, s.srvoptions as options
       from pg_catalog.pg_foreign_server s join pg_catalog.pg_foreign_data_wrapper f on f.oid = s.srvfdw`,
  );
  const mappings = await readMappings(context);
  return [
    ...wrappers.flatMap((row) => {
      const object = ownObject(context, "pg_foreign_data_wrapper", row.oid);
      if (object === undefined) return [];
      return [draft(`pg_foreign_data_wrapper:${row.oid}`, "foreign data wrapper", "pre-data", [
        `create foreign data wrapper ${identityOf(object)}` + (row.handler === "-" ? "" : ` handler ${row.handler}`) +
        (row.validator === "-" ? "" : ` validator ${row.validator}`) + foreignOptions(row.options),
      ], { ownerWord: "foreign data wrapper" })];
    }),
    ...servers.flatMap((row) => {
      const object = ownObject(context, "pg_foreign_server", row.oid);
      if (object === undefined) return [];
      return [draft(`pg_foreign_server:${row.oid}`, "server", "pre-data", [
        `create server ${identityOf(object)}` + (row.type === null ? "" : ` type ${quoteLiteral(row.type)}`) +
        (row.version === null ? "" : ` version ${quoteLiteral(row.version)}`) +
        ` foreign data wrapper ${quoteIdent(row.wrapper)}` + foreignOptions(row.options),
      ], { ownerWord: "server" })];
    }),
    ...mappings.filter((row) => ownObject(context, "pg_user_mapping", row.oid) !== undefined).map((row) => {
      if (row.options === null || row.leftOut.length > 0) {
        context.notCaptured.push({
          catalog: "pg_user_mapping",
          identity: `${row.options === null ? "options" : row.leftOut.join(", ")} of ${row.user} on server ${
            quoteIdent(row.server)
          }`,
          reason: row.options === null ? "this role may not read them" : "credentials are left out",
        });
      }
      const user = row.user === "public" ? "public" : quoteIdent(row.user);
      return draft(`pg_user_mapping:${row.oid}`, "user mapping", "pre-data", [
        `create user mapping for ${user} server ${quoteIdent(row.server)}${foreignOptions(row.options)}`,
      ], { after: [`pg_foreign_server:${row.serverOid}`] });
    }),
  ];
};

const mappingFormat = z.object({
  oid: z.string(),
  serverOid: z.string(),
  server: z.string(),
  user: z.string(),
  /** Null when not readable. */
  options,
  leftOut: z.array(z.string()),
});

/** Option names that look like a credential; those options never leave the server. */
const credentials = "'pass|secret|token|credential|key'";

async function readMappings({ connection }: CollectorContext): Promise<z.infer<typeof mappingFormat>[]> {
  const asked = await connection.query(
    "select pg_catalog.has_table_privilege('pg_catalog.pg_user_mapping', 'select')::text as yes",
  );
  // The view hides options from most roles, the table is for roles that may read everything.
  const source = asked[0]?.["yes"] === "true"
    ? `(select m.oid as umid, m.umserver as srvid, s.srvname, coalesce(r.rolname, 'public') as usename, m.umoptions,
               true as readable
          from pg_catalog.pg_user_mapping m join pg_catalog.pg_foreign_server s on s.oid = m.umserver
          left join pg_catalog.pg_roles r on r.oid = m.umuser)`
    : `(select v.*, v.umoptions is not null as readable from pg_catalog.pg_user_mappings v)`;
  const names = (test: string, what: string) =>
    `(select coalesce(pg_catalog.json_agg(${what}), '[]') from pg_catalog.unnest(m.umoptions) o
       where pg_catalog.split_part(o, '=', 1) ${test} ${credentials})`;
  return await readRows(
    connection,
    "user mappings",
    mappingFormat,
    `select m.umid as oid, m.srvid as "serverOid", m.srvname as server, m.usename as "user",
            case when m.readable then ${names("!~*", "o")} end as options,
            ${names("~*", "pg_catalog.split_part(o, '=', 1)")} as "leftOut"
       from ${source} m order by m.srvname, m.usename`,
  );
}
