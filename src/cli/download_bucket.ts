/** A download into the bucket of downloads, and the link to it. */
import { createHash } from "node:crypto";
import { unlimited } from "../shared/backup/budget.ts";
import type { DownloadBucket } from "../shared/download/bucket.ts";
import { linkDocument } from "../shared/download/document.ts";
import { tableLabel } from "../shared/download/format.ts";
import { failLaidOut, layOut } from "../shared/download/lay_out.ts";
import { type DownloadLink, makeLink } from "../shared/download/link.ts";
import { sweepDownloads } from "../shared/download/sweep.ts";
import { asHoldfastError } from "../shared/errors.ts";
import { beginDownload, finishDownload, readDownload } from "../shared/jobs/download_queries.ts";
import { keysUsed } from "../shared/jobs/restore_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import type { DownloadTarget } from "./download_file.ts";
import type { Outcome } from "./output.ts";
import { amount } from "./progress.ts";

/** A part with all its retries is put in less. */
const leaseSeconds = 1800;
/** Below the 50 MB that a free project takes. */
const partBytes = 40 * 1024 * 1024;

/** Errors: those of reading, of Storage and of the database; what was put by then is removed. */
export async function downloadToBucket(
  context: Context,
  session: Connection,
  bucket: DownloadBucket,
  { backup, format, table, files, contents, fileName, ring }: DownloadTarget,
  expirySeconds: number,
): Promise<Outcome> {
  const { progress, signal, log, note } = context;
  // Where no function does it, whoever comes next does.
  await sweepDownloads(session, bucket).catch((error: unknown) => {
    note(`warning: files of earlier downloads are still there: ${asHoldfastError(error).message}`);
  });
  const lease = await beginDownload(session, {
    backup,
    table: tableLabel(table),
    format,
    files,
    fileName,
    expirySeconds,
    worker: "cli",
    leaseSeconds,
    byFunction: false,
  });
  try {
    await keysUsed(session, { what: "download", id: lease.id }, ring);
    const hash = createHash("sha256");
    await layOut({ connection: session, bucket, log }, lease, await readDownload(session, lease.id), contents, {
      budget: unlimited,
      leaseSeconds,
      partBytes,
      signal,
      onBytes: (bytes) => void hash.update(bytes),
      onProgress: (bytes) =>
        progress.update({
          label: "uploading",
          done: bytes,
          total: contents.isExact ? contents.bytes : null,
          unit: "bytes",
        }),
    });
    await finishDownload(session, lease, hash.digest("hex"));
  } catch (error) {
    const failure = await failLaidOut(session, lease, error);
    await sweepDownloads(session, bucket).catch(() => {});
    throw failure;
  }
  progress.clear();
  return shown(await makeLink(session, bucket, lease.id, null));
}

function shown(link: DownloadLink): Outcome {
  const { row, files, expiresAt } = link;
  const several = files.length === 1 ? [] : [
    `${files.length} parts, which are the file one after the other: cat ${row.fileName}.* > ${row.fileName}`,
  ];
  return {
    exit: 0,
    document: linkDocument(link),
    lines: [
      ...files.map(({ url }) => url),
      ...several,
      `${row.fileName}: ${amount(row.bytes, "bytes")}, sha256 ${row.sha256}`,
      `Anybody who has the link can read it until ${expiresAt}; \`holdfast download remove ${row.id}\` ends it before.`,
    ],
  };
}
