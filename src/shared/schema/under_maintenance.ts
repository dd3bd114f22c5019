/** What maintenance mode changed outside of its own tables, so that a backup taken meanwhile holds it as it was before. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { readRows } from "./read_rows.ts";

/** The setting of role authenticator that maintenance mode changes, and what it sets. */
export const preRequestSetting = "pgrst.db_pre_request";
export const ownPreRequest = "public.backup_before_request";

export interface UnderMaintenance {
  /** Job ids of pg_cron that are paused, and active otherwise. */
  readonly pausedJobs: ReadonlySet<string>;
  /** The setting as it was; null: there was none. */
  readonly preRequestBefore: string | null;
}

/** Nothing where Holdfast is not installed, or one without maintenance mode, or where this role may not look. */
export async function readUnderMaintenance(connection: Connection): Promise<UnderMaintenance> {
  const [readable] = await connection.query(
    `select coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('backup')::oid, 'usage')
       and pg_catalog.has_table_privilege(pg_catalog.to_regclass('backup.maintenance')::oid, 'select')
       and pg_catalog.has_table_privilege(pg_catalog.to_regclass('backup.maintenance_jobs')::oid, 'select'), false) as yes`,
  );
  if (readable?.["yes"] !== "t") return { pausedJobs: new Set(), preRequestBefore: null };
  const rows = await readRows(
    connection,
    "changes of maintenance mode",
    z.object({ before: z.string().nullable(), jobs: z.array(z.string()) }),
    `select m.pre_request_before as before,
            array(select k.job_id::text from backup.maintenance_jobs k order by k.job_id) as jobs
       from backup.maintenance m`,
  );
  return { pausedJobs: new Set(rows[0]?.jobs ?? []), preRequestBefore: rows[0]?.before ?? null };
}
