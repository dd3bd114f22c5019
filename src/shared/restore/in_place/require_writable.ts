/** Whether the tables whose rows go back may be written: known before a project is closed for it. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";

/** `oids`: of tables in which rows differ. Errors: `database_denied`, with the first of them; those of the connection. */
export async function requireWritable(connection: Connection, oids: readonly string[]): Promise<void> {
  const rows = await connection.query(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name, pg_catalog.quote_ident(r.rolname) as owner,
            pg_catalog.quote_ident(current_user) as me
       from pg_catalog.pg_class as c
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
       join pg_catalog.pg_roles as r on r.oid = c.relowner
      where c.oid = any ($1::pg_catalog.oid[]) and not (
        pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
        and pg_catalog.has_table_privilege(c.oid, 'insert') and pg_catalog.has_table_privilege(c.oid, 'update')
        and pg_catalog.has_table_privilege(c.oid, 'delete'))
      order by 1`,
    [`{${oids.join(",")}}`],
  );
  const [first] = rows;
  if (first === undefined) return;
  const more = rows.length === 1 ? "" : ` (and ${rows.length - 1} more tables)`;
  const rights = "insert, update and delete on the table";
  const hint = first["owner"] === first["me"]
    ? `Its owner was taken ${rights}: grant them to ${first["me"]} for the time of the restore.`
    : `Grant ${first["me"]} the role ${first["owner"]}, or ${rights}.`;
  throw new HoldfastError(
    "database_denied",
    `${first["name"]} belongs to ${first["owner"]}, and ${first["me"]} may not write all of its rows${more}`,
    { hint },
  );
}
