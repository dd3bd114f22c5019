/** One leg of a download in a function. */
import type { Budget } from "../backup/budget.ts";
import { asHoldfastError } from "../errors.ts";
import { claimDownload, finishDownload, readDownload, restDownload } from "../jobs/download_queries.ts";
import { keysUsed } from "../jobs/restore_queries.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { ReadDeps } from "../verify/find_backup.ts";
import type { DownloadBucket } from "./bucket.ts";
import { failLaidOut, layOut } from "./lay_out.ts";
import { namedTable, openContents } from "./open_contents.ts";

export interface DownloadLegDeps {
  /** With the store where that backup lies. Errors: those of settings and keys. */
  readonly open: (backup: string) => Promise<ReadDeps>;
  /** Errors: `setting_missing`. */
  readonly bucket: () => DownloadBucket;
  readonly log: Log;
}

/** Longer than the platform lets a leg live. */
const leaseSeconds = 170;
/** A request holds a part twice; with 16 MiB an isolate came to 230 MB, and 200 are planned for. */
export const functionPartBytes = 8 * 1024 * 1024;

/**
 * Nothing when another leg is at it. What ends it is written down with it, then thrown; what may heal is thrown alone: when its
 * lease is over the watchdog sends another leg, five times without a part in between.
 */
export async function runDownloadLeg(
  deps: DownloadLegDeps,
  connection: Connection,
  id: string,
  { worker, budget }: { readonly worker: string; readonly budget: Budget },
): Promise<void> {
  const lease = await claimDownload(connection, id, { worker, leaseSeconds });
  if (lease === null) return;
  try {
    const row = await readDownload(connection, id);
    const files = row.format === "files" ? { bucket: row.bucket, name: row.file } : null;
    const asked = { backup: row.backup, table: namedTable(row.table), format: row.format, files };
    const read = await deps.open(row.backup);
    const contents = await openContents(read, connection, asked, { ahead: false });
    await keysUsed(connection, { what: "download", id }, read.ring);
    const options = { budget, leaseSeconds, partBytes: functionPartBytes };
    const end = await layOut({ connection, bucket: deps.bucket(), log: deps.log }, lease, row, contents, options);
    if (end === "rest") return await restDownload(connection, lease);
    const { parts } = await readDownload(connection, id);
    await finishDownload(connection, lease, parts.length === 1 ? parts[0]?.sha256 ?? null : null);
  } catch (error) {
    if (asHoldfastError(error).retry === "backoff") throw error;
    throw await failLaidOut(connection, lease, error);
  }
}
