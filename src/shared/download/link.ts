/** A signed link to a download that is ready. Its audit is committed before it is made. */
import { type DownloadRow, linkDownload, readDownload } from "../jobs/download_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { DownloadBucket } from "./bucket.ts";

export interface LinkedFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly url: string;
}

/** Files one after the other are the download; most have one. */
export interface DownloadLink {
  readonly row: DownloadRow;
  readonly files: readonly LinkedFile[];
  /** When the links end, ISO 8601. */
  readonly expiresAt: string;
}

/** `connection` is in no transaction. Errors: those of `linkDownload`; `store_denied` for a bucket that somebody made public. */
export async function makeLink(
  connection: Connection,
  bucket: Pick<DownloadBucket, "prepare" | "sign">,
  id: string,
  expirySeconds: number | null,
): Promise<DownloadLink> {
  await bucket.prepare();
  const { expiresAt, seconds } = await linkDownload(connection, id, expirySeconds);
  const row = await readDownload(connection, id);
  const named = row.parts.map((part, index) => ({ ...part, fileName: partName(row, index) }));
  const urls = await bucket.sign(named, seconds);
  const files = named.map(({ fileName, bytes, sha256 }, index) => ({
    name: fileName,
    bytes,
    sha256,
    url: urls[index] ?? "",
  }));
  return { row, files, expiresAt };
}

/** `tables-8f14e45f-csv.zip`, or `….zip.001` and so on, which `cat` puts together in their order. */
function partName({ fileName, parts }: DownloadRow, index: number): string {
  const digits = Math.max(3, String(parts.length).length);
  return parts.length === 1 ? fileName : `${fileName}.${String(index + 1).padStart(digits, "0")}`;
}
