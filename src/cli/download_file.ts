/** A download into a file of this machine: no bucket, no link. */
import { createHash } from "node:crypto";
import { link, open, stat, unlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import type { Contents } from "../shared/download/contents.ts";
import type { KeyRing } from "../shared/crypto/key_ring.ts";
import { type DownloadFormat, type NamedTable, tableLabel } from "../shared/download/format.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { FilesNamed } from "../shared/files/files_named.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { localFileSystem, syncFd } from "../shared/store/file.ts";
import { errno } from "../shared/store/file_errors.ts";
import type { Context } from "./context.ts";
import type { Outcome } from "./output.ts";
import { amount } from "./progress.ts";

export interface DownloadTarget {
  readonly backup: string;
  readonly format: DownloadFormat;
  readonly table: NamedTable | null;
  /** For the format `files`; null for all others. */
  readonly files: FilesNamed | null;
  readonly contents: Contents;
  readonly fileName: string;
  /** What opened it. */
  readonly ring: Pick<KeyRing, "used">;
}

/** Where it goes: a folder that is there, to which the download's own name is added, or a file that is not. Errors: `usage`. */
export async function filePath(out: string): Promise<{ readonly path: string; readonly isFolder: boolean }> {
  const path = resolve(out);
  const found = await stat(path).catch(() => null);
  if (found !== null && !found.isDirectory()) throw taken(path);
  const folder = found === null ? await stat(dirname(path)).catch(() => null) : found;
  if (folder?.isDirectory() !== true) {
    throw new HoldfastError("usage", `there is no folder ${dirname(path)}`, { hint: "Make it, or name another." });
  }
  return { path, isFolder: found !== null };
}

/**
 * Written under another name, for its owner alone, and named once all of it is on the disk: a file of that name is whole. With
 * a session the audit has it before the first byte. Errors: `usage` for a file that is there, `cancelled`, those of reading.
 */
export async function downloadToFile(
  { progress, signal, note }: Context,
  session: Connection | null,
  { backup, format, table, files, contents, fileName, ring }: DownloadTarget,
  { path: named, isFolder }: Awaited<ReturnType<typeof filePath>>,
): Promise<Outcome> {
  const path = isFolder ? join(named, fileName) : named;
  if (await stat(path).then(() => true, () => false)) throw taken(path);
  const bucket = files?.bucket ?? null;
  await audit(session, backup, { format, table: tableLabel(table), bucket, keys: [...ring.used].sort() });
  const unfinished = join(dirname(path), `.${basename(path)}.${process.pid}.part`);
  const hash = createHash("sha256");
  let bytes = 0;
  const file = await open(unfinished, "wx", 0o600).catch((error: unknown) => {
    throw notWritten(path, error);
  });
  try {
    for await (const { pieces } of contents.steps(null)) {
      if (signal.aborted) throw new HoldfastError("cancelled", "the download was cancelled; no file was left");
      for (const piece of pieces) {
        hash.update(piece);
        for (let at = 0; at < piece.byteLength;) {
          const { bytesWritten } = await file.write(piece, at, piece.byteLength - at).catch((error: unknown) => {
            throw notWritten(path, error);
          });
          at += bytesWritten;
        }
        bytes += piece.byteLength;
      }
      const total = Math.max(bytes, contents.bytes);
      progress.update({ label: "downloading", done: bytes, total: contents.isExact ? total : null, unit: "bytes" });
    }
    await syncFd(file.fd).catch((error: unknown) => {
      throw notWritten(path, error);
    });
    await link(unfinished, path).catch((error: unknown) => {
      throw errno(error) === "EEXIST" ? taken(path) : notWritten(path, error);
    });
    await localFileSystem.syncFolder(dirname(path));
  } finally {
    await file.close();
    await unlink(unfinished).catch(() => {});
    progress.clear();
  }
  const sha256 = hash.digest("hex");
  if (session === null) note("notice: no database at hand, so the audit does not tell of this download");
  return {
    exit: 0,
    document: {
      id: null,
      backup,
      table: tableLabel(table),
      format,
      bucket,
      file: path,
      fileName: basename(path),
      bytes,
      sha256,
      expiresAt: null,
    },
    lines: [`${path}: ${amount(bytes, "bytes")}`, `sha256 ${sha256}`],
  };
}

async function audit(
  session: Connection | null,
  backup: string,
  detail: Readonly<Record<string, unknown>>,
): Promise<void> {
  await session?.query("select backup.audit('download.saved', $1, jsonb_strip_nulls($2::jsonb))", [
    `backup:${backup}`,
    JSON.stringify(detail),
  ]);
}

function taken(path: string): HoldfastError {
  return new HoldfastError("usage", `${path} is there already, and is not overwritten`, { hint: "Name another file." });
}

function notWritten(path: string, cause: unknown): HoldfastError {
  const code = errno(cause);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new HoldfastError("store_full", `the disk has no room for ${path}`, { cause });
  }
  return new HoldfastError("usage", `${path} cannot be written: ${code}`, { hint: "Name another file.", cause });
}
