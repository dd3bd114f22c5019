import type { Connection } from "../postgres/connection.ts";

/** Fills the views that hold rows and that this role may fill. Errors: those of the connection and of what a view computes. */
export async function refreshViews(connection: Connection): Promise<void> {
  const views = await connection.query(
    `select c.oid::regclass::text as name from pg_catalog.pg_class as c
      where c.relkind = 'm' and c.relispopulated and c.oid >= 16384
        and pg_catalog.pg_has_role(c.relowner, 'usage') order by c.oid`,
  );
  for (const view of views) await connection.execute(`refresh materialized view ${view["name"]}`);
}
