/** Removes the objects of exports whose time is over, and what lies among them without an export. */
import type { DownloadBucket } from "../download/bucket.ts";
import { asHoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { dueExports, exportRemoved, exportsStay, keptExports } from "./export_queries.ts";
import { exportPrefix } from "./export_target.ts";

/**
 * Returns ids of the exports that are gone. Safe beside an export that is being made: its row is there before its first object, and rows
 * are read after the objects. What an app has put into the bucket stays. Errors: those of Storage, written down for the alert.
 */
export async function sweepExports(
  connection: Connection,
  bucket: Pick<DownloadBucket, "names" | "remove">,
): Promise<string[]> {
  try {
    const names = await bucket.names(`${exportPrefix}/`);
    const kept = await keptExports(connection);
    const due = await dueExports(connection);
    const gone = names.filter((name) => !kept.has(name.split("/")[1] ?? ""));
    if (gone.length > 0) await bucket.remove(gone);
    for (const id of due) await exportRemoved(connection, id);
    return due;
  } catch (error) {
    await exportsStay(connection, asHoldfastError(error).message);
    throw error;
  }
}
