/** What a download is taken from: a full backup, an incremental, or a moment. */
import type { Contents } from "../shared/download/contents.ts";
import { filesContents } from "../shared/download/files_contents.ts";
import { type DownloadFormat, fileNameOf, type NamedTable, type PlainFormat } from "../shared/download/format.ts";
import { openContents, plainContents } from "../shared/download/open_contents.ts";
import { HoldfastError } from "../shared/errors.ts";
import { filesFileName, type FilesNamed, isNamed } from "../shared/files/files_named.ts";
import { bytesOf } from "../shared/files/plan_put_back.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { ReadDeps } from "../shared/verify/find_backup.ts";
import { recordedPart } from "../shared/verify/read_file_list.ts";
import { readObject } from "../shared/verify/read_object.ts";
import { findIncremental } from "./backup_row.ts";
import type { Context } from "./context.ts";
import { filesOfState } from "./files_of_state.ts";
import { comparedLedger } from "./ledger_hook.ts";
import { namedState, openNamed, openPast } from "./open_past.ts";

export interface DownloadSource {
  /** Id of the backup; of a moment that of the full backup that it stands on. */
  readonly backup: string;
  readonly contents: Contents;
  readonly fileName: string;
  /** Gives back what the source holds. Never throws. */
  close(): Promise<void>;
}

/**
 * `session`: null where no database is at hand. Errors: `usage` for a bundle of a moment, `backup_not_found`,
 * `table_not_found`, those of opening.
 */
export async function namedSource(
  context: Context,
  read: ReadDeps,
  session: Connection | null,
  wanted: string | undefined,
  { format, table, files }: {
    readonly format: DownloadFormat;
    readonly table: NamedTable | null;
    readonly files: FilesNamed | null;
  },
): Promise<DownloadSource> {
  const state = namedState(context.settings, wanted);
  if (format === "files") return await filesSource(context, read, state, files);
  if ("point" in state) {
    if (format !== "bundle") return await momentSource(context, read, state, format, table);
    throw new HoldfastError("usage", "a bundle holds a backup as it is stored, and no moment between two", {
      hint: "Take the bundle of the incremental after that moment, or --format csv, json or sql.",
    });
  }
  const incremental = session === null ? null : await findIncremental(session, state.backup);
  if (incremental !== null && format !== "bundle") return await momentSource(context, read, state, format, table);
  const backup = incremental?.id ?? (await openNamed(context, read, state.backup)).manifest.id;
  const contents = await openContents(read, session, { backup, table, format, files: null }, { ahead: true });
  return { backup, contents, fileName: fileNameOf(format, backup, table), close: () => Promise.resolve() };
}

/** Of a backup, the end of an incremental, or a moment: what is wanted of the lists is in memory. Errors: `not_found` where nothing is. */
async function filesSource(
  context: Context,
  read: ReadDeps,
  state: ReturnType<typeof namedState>,
  wanted: FilesNamed | null,
): Promise<DownloadSource> {
  if (wanted === null) throw new HoldfastError("internal", "a download of files names none");
  const source = await filesOfState(context, read, state);
  const { manifest, epochOf } = source.backup;
  if ((manifest.files ?? null) === null) throw new HoldfastError("not_found", `backup ${manifest.id} holds no files`);
  const files = await source.read((file) => isNamed(wanted, file));
  if (files.length === 0) throw new HoldfastError("not_found", `${source.label} has no such file`);
  const contents = filesContents({
    backup: manifest.id,
    at: manifest.consistentAt,
    lists: [{
      files: files.length,
      rawBytes: 0,
      contentBytes: files.reduce((sum, file) => sum + bytesOf(file), 0),
      read: () => Promise.resolve(files),
    }],
    part: (part) => readObject({ ...read, epochOf }, recordedPart(part)),
    ledger: await comparedLedger(context, read),
  }, wanted);
  return {
    backup: manifest.id,
    contents,
    fileName: filesFileName(wanted, manifest.id),
    close: () => Promise.resolve(),
  };
}

/** In a database of its own, which is made for it and dropped. */
async function momentSource(
  context: Context,
  read: ReadDeps,
  state: ReturnType<typeof namedState>,
  format: PlainFormat,
  table: NamedTable | null,
): Promise<DownloadSource> {
  const { source } = await openPast(context, read, state, table === null ? null : [table]);
  try {
    const fileName = fileNameOf(format, source.backupId, table);
    return { backup: source.backupId, contents: plainContents(source, table, format), fileName, close: source.close };
  } catch (error) {
    await source.close();
    throw error;
  }
}
