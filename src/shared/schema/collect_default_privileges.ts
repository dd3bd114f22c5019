/** ALTER DEFAULT PRIVILEGES, and what undoes it on a target before objects are made there. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { type Collector, ownObject } from "./collector.ts";
import { draft } from "./draft.ts";
import { type Grant, grantsOf } from "./inventory.ts";
import { platformOfRole } from "./platform.ts";
import { accessStatements, type GrantText } from "./privileges.ts";
import { quoteIdent } from "./quote.ts";
import { readRows } from "./read_rows.ts";

const grants = z.array(
  z.object({ grantor: z.string(), grantee: z.string().nullable(), privilege: z.string(), grantable: z.boolean() }),
);

const rowFormat = z.object({
  oid: z.string(),
  role: z.string(),
  schema: z.string().nullable(),
  schemaOid: z.string(),
  type: z.string(),
  acl: grants,
  base: grants,
});

const objectWords: Readonly<Record<string, string>> = {
  r: "tables",
  S: "sequences",
  f: "functions",
  T: "types",
  n: "schemas",
  L: "large objects",
};

async function read(connection: Connection): Promise<z.infer<typeof rowFormat>[]> {
  const base =
    `pg_catalog.acldefault(case d.defaclobjtype when 'S' then 's'::"char" else d.defaclobjtype end, d.defaclrole)`;
  return await readRows(
    connection,
    "default privileges",
    rowFormat,
    `select d.oid, r.rolname as role, n.nspname as schema, d.defaclnamespace as "schemaOid", d.defaclobjtype as type,
            ${grantsOf("d.defaclacl")} as acl,
            case when d.defaclnamespace = 0 then ${grantsOf(base)} else '[]'::json end as base
       from pg_catalog.pg_default_acl d join pg_catalog.pg_roles r on r.oid = d.defaclrole
       left join pg_catalog.pg_namespace n on n.oid = d.defaclnamespace
      order by r.rolname, n.nspname nulls first, d.defaclobjtype`,
  );
}

const alterText = (row: z.infer<typeof rowFormat>): GrantText => {
  const scope = row.schema === null ? "" : ` in schema ${quoteIdent(row.schema)}`;
  const words = objectWords[row.type] ?? "tables";
  return (verb, privileges, tail) =>
    `alter default privileges for role ${quoteIdent(row.role)}${scope} ${verb} ${privileges} on ${words} ${tail}`;
};

/** Everything is granted by the role itself in a default access list. */
function bySelf(list: readonly Grant[], role: string): Grant[] {
  return list.map((grant) => ({ ...grant, grantor: role }));
}

export const collectDefaultPrivileges: Collector = async (context) =>
  (await read(context.connection)).filter((row) => ownObject(context, "pg_default_acl", row.oid) !== undefined).map(
    (row) => {
      const list = {
        owner: row.role,
        actual: bySelf(row.acl, row.role),
        base: bySelf(row.base, row.role),
        column: null,
      };
      return draft(`pg_default_acl:${row.oid}`, "default privileges", "last", accessStatements(list, alterText(row)), {
        after: row.schema === null ? [] : [`pg_namespace:${row.schemaOid}`],
        platform: row.role === "postgres" ? null : platformOfRole(row.role),
      });
    },
  );

/**
 * Statements that take back the default privileges of `role` on a target, so that restored objects get the captured grants and no
 * others. The captured default privileges come back in section `last`.
 */
export async function neutralDefaultPrivileges(connection: Connection, role: string): Promise<string[]> {
  const rows = (await read(connection)).filter((row) => row.role === role);
  return rows.flatMap((row) =>
    accessStatements(
      { owner: role, actual: bySelf(row.base, role), base: bySelf(row.acl, role), column: null },
      alterText(row),
    )
  );
}
