import type { DownloadRow } from "../jobs/download_queries.ts";
import type { DownloadLink } from "./link.ts";

/** A download as functions and the CLI show it, without where it lies. Times are ISO 8601 in UTC. */
export function downloadDocument(row: DownloadRow): Readonly<Record<string, unknown>> {
  return {
    id: row.id,
    backup: row.backup,
    table: row.table,
    format: row.format,
    bucket: row.bucket,
    fileName: row.fileName,
    status: row.status,
    bytes: row.bytes,
    sha256: row.sha256,
    actor: row.actor,
    links: row.links,
    createdAt: row.createdAt,
    expiresAt: row.expiresAt,
    removedAt: row.removedAt,
    error: row.error,
  };
}

/** With its links: `url` where there is one file, `files` in any case. `expiresAt`: when the links end. */
export function linkDocument({ row, files, expiresAt }: DownloadLink): Readonly<Record<string, unknown>> {
  const [only] = files;
  return {
    ...downloadDocument(row),
    expiresAt,
    ...(only !== undefined && files.length === 1 ? { url: only.url } : {}),
    files,
  };
}
