import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";

/** Looks into the store. Errors: `backup_not_found`, those of the store. */
export type RequireStored = (connection: Connection, backup: string) => Promise<void>;

/**
 * What the id of a backup is of, before anything is begun with it. The database's own rows say so; what they do not know, as after
 * a managed restore to before it was taken, is looked for in the store. Errors: `backup_not_found`, those of the store.
 */
export async function requireBackup(
  connection: Connection,
  id: string,
  requireStored: RequireStored,
): Promise<"full" | "incremental"> {
  const [run] = await connection.query(
    `select r.kind, case r.kind
         when 'full' then r.status in ('succeeded', 'quarantined')
         -- that of this hour still grows
         when 'incremental' then r.status in ('copying', 'succeeded') and r.wal_lsn is not null
       end as usable
     from backup.runs as r where r.id = $1::uuid`,
    [id],
  );
  if (run === undefined) {
    await requireStored(connection, id);
    return "full";
  }
  if (run["usable"] !== "t") throw new HoldfastError("backup_not_found", `there is no backup ${id}`);
  return run["kind"] === "incremental" ? "incremental" : "full";
}
