/** Removes the files of downloads whose time is over, and whatever lies in the bucket without a download. */
import { asHoldfastError } from "../errors.ts";
import { downloadRemoved, downloadsStay, dueDownloads, keptDownloads } from "../jobs/download_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { DownloadBucket } from "./bucket.ts";

/**
 * Returns ids of the downloads that are gone. Safe beside a download that is being made: its row is there before its first
 * object, and rows are read after the objects. Errors: those of Storage, written down for the alert.
 */
export async function sweepDownloads(
  connection: Connection,
  bucket: Pick<DownloadBucket, "names" | "remove">,
): Promise<string[]> {
  try {
    const names = await bucket.names();
    const kept = await keptDownloads(connection);
    const due = await dueDownloads(connection);
    const gone = names.filter((name) => !kept.has(name.split("/", 1)[0] ?? ""));
    if (gone.length > 0) await bucket.remove(gone);
    for (const id of due) await downloadRemoved(connection, id);
    return due;
  } catch (error) {
    await downloadsStay(connection, asHoldfastError(error).message);
    throw error;
  }
}
