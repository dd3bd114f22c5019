/** May the session's role read all jobs of pg_cron? */
import type { Connection } from "../postgres/connection.ts";

/** `filtered`: row security shows the role its own jobs only. */
export type CronAccess = "absent" | "denied" | "filtered" | "all";

export async function cronAccess(connection: Connection): Promise<CronAccess> {
  const rows = await connection.query(
    `select case when not pg_catalog.has_schema_privilege(n.oid, 'usage') then 'denied'
                 when not pg_catalog.has_table_privilege(c.oid, 'select') then 'denied'
                 when pg_catalog.row_security_active(c.oid) then 'filtered' else 'all' end as access
       from pg_catalog.pg_extension x
       join pg_catalog.pg_depend d on d.refobjid = x.oid and d.deptype = 'e' and d.classid = 'pg_catalog.pg_class'::regclass
       join pg_catalog.pg_class c on c.oid = d.objid and c.relname = 'job'
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = 'cron'
      where x.extname = 'pg_cron'`,
  );
  const access = rows[0]?.["access"];
  return access === "denied" || access === "filtered" || access === "all" ? access : "absent";
}
