/** Signed links to an export that is ready. Their audit is committed before they are made. */
import type { DownloadBucket, FileToSign } from "../download/bucket.ts";
import type { Connection } from "../postgres/connection.ts";
import { exportFiles, type ExportRow, linkExport, readExport } from "./export_queries.ts";
import { documentObject, fileObject } from "./export_target.ts";

export interface LinkedObject {
  /** Where it lies beside the document; parts have their number behind it. */
  readonly path: string;
  readonly bytes: number;
  /** In hex. */
  readonly sha256: string;
  readonly url: string;
}

export interface ExportLink {
  readonly row: ExportRow;
  /** One after the other they are the document. */
  readonly document: readonly LinkedObject[];
  readonly files: readonly LinkedObject[];
  /** What `after` is for the files behind these; null: these are the last. */
  readonly next: number | null;
  /** When the links end, ISO 8601. */
  readonly expiresAt: string;
}

export const documentName = "export.json";
/** Parts of files that are linked at a time: more are no answer that a page could take. */
const mostLinked = 5_000;

export interface LinkChoice {
  /** Null: a day. */
  readonly expirySeconds: number | null;
  /** Number of the file behind which those that are linked begin; 0: at the first. */
  readonly after: number;
}

/** The document, and files as far as they go into one answer. Errors: those of `linkExport`, of Storage. */
export async function makeExportLink(
  connection: Connection,
  bucket: Pick<DownloadBucket, "sign">,
  id: string,
  { expirySeconds, after }: LinkChoice,
): Promise<ExportLink> {
  const { expiresAt, seconds } = await linkExport(connection, id, expirySeconds);
  const row = await readExport(connection, id);
  const behind = await exportFiles(connection, id, { open: false, limit: mostLinked + 1, after });
  const files = linkedAtOnce(behind, mostLinked);
  const numbered = (path: string, parts: readonly unknown[], at: number) =>
    parts.length === 1 ? path : `${path}.${String(at + 1).padStart(6, "0")}`;
  const objects = [
    ...row.parts.map((part, at) => ({
      ...part,
      isDocument: true,
      path: numbered(documentName, row.parts, at),
      object: documentObject(id, at),
    })),
    ...files.flatMap(({ number, path, parts }) =>
      parts.map((part, at) => ({
        ...part,
        isDocument: false,
        path: numbered(path, parts, at),
        object: fileObject(id, number, at),
      }))
    ),
  ];
  const wanted = objects.map(({ object, path }): FileToSign => ({ object, fileName: path.split("/").at(-1) ?? path }));
  const urls = await bucket.sign(wanted, seconds);
  const linked = objects.map(({ isDocument, path, bytes, sha256 }, at) => ({
    isDocument,
    one: { path, bytes, sha256, url: urls[at] ?? "" },
  }));
  return {
    row,
    document: linked.filter(({ isDocument }) => isDocument).map(({ one }) => one),
    files: linked.filter(({ isDocument }) => !isDocument).map(({ one }) => one),
    next: files.length < behind.length ? files.at(-1)?.number ?? null : null,
    expiresAt,
  };
}

/** The first ones, which have no more than `most` parts together, or the first one alone. Pure. */
export function linkedAtOnce<T extends { readonly parts: readonly unknown[] }>(files: readonly T[], most: number): T[] {
  const taken: T[] = [];
  let parts = 0;
  for (const file of files) {
    parts += file.parts.length;
    if (taken.length > 0 && (parts > most || taken.length === most)) break;
    taken.push(file);
  }
  return taken;
}

/** An export as the function and the CLI show it. Times are ISO 8601 in UTC. */
export function exportShown(row: ExportRow): Readonly<Record<string, unknown>> {
  const { user, parts: _, byFunction: __, ...shown } = row;
  return { ...shown, user };
}

/** With its links. `expiresAt`: when those end. */
export function linkShown({ row, document, files, next, expiresAt }: ExportLink): Readonly<Record<string, unknown>> {
  const [only] = document;
  return {
    ...exportShown(row),
    expiresAt,
    ...(only !== undefined && document.length === 1 ? { url: only.url } : {}),
    document,
    files,
    next,
  };
}
