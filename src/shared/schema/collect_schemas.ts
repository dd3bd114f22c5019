/** Schemas, extensions and the database itself. */
import { z } from "zod";
import { type Collector, identityOf, ownObject } from "./collector.ts";
import { onThisDatabase } from "./collect_roles.ts";
import { draft } from "./draft.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";

// deno-lint-ignore require-await
export const collectSchemas: Collector = async ({ objects }) =>
  [...objects.values()].filter((object) => object.catalog === "pg_namespace").map((object) =>
    draft(`pg_namespace:${object.oid}`, "schema", "pre-data", [`create schema if not exists ${identityOf(object)}`], {
      ownerWord: "schema",
    })
  );

export const collectExtensions: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "extensions",
    z.object({ oid: z.string(), name: z.string(), schema: z.string() }),
    `select x.oid, x.extname as name, n.nspname as schema
       from pg_catalog.pg_extension x join pg_catalog.pg_namespace n on n.oid = x.extnamespace`,
  );
  return rows.filter((row) => ownObject(context, "pg_extension", row.oid) !== undefined).map((row) =>
    draft(`pg_extension:${row.oid}`, "extension", "pre-data", [
      `create extension if not exists ${quoteIdent(row.name)} with schema ${quoteIdent(row.schema)}`,
    ])
  );
};

/** The database's connection limit, comment and grants; its name and owner are the target's own. */
export const collectDatabase: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "database",
    z.object({ oid: z.string(), limit: z.number(), comment: z.string().nullable() }),
    `select d.oid, d.datconnlimit as "limit", pg_catalog.shobj_description(d.oid, 'pg_database') as comment
       from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`,
  );
  return rows.map((row) =>
    draft(`pg_database:${row.oid}`, "database", "last", [
      ...(row.limit === -1 ? [] : [onThisDatabase("alter", `connection limit ${row.limit}`)]),
      ...(row.comment === null ? [] : [onThisDatabase("comment on", `is ${quoteLiteral(row.comment)}`)]),
    ], { identity: "database", platform: null })
  );
};
