/** What a download is taken from: a full backup, an incremental, or a moment. */
import type { Contents } from "../shared/download/contents.ts";
import { type DownloadFormat, fileNameOf, type NamedTable } from "../shared/download/format.ts";
import { openContents, plainContents } from "../shared/download/open_contents.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { ReadDeps } from "../shared/verify/find_backup.ts";
import { findIncremental } from "./backup_row.ts";
import type { Context } from "./context.ts";
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
  { format, table }: { readonly format: DownloadFormat; readonly table: NamedTable | null },
): Promise<DownloadSource> {
  const state = namedState(context.settings, wanted);
  if ("point" in state && format === "bundle") {
    throw new HoldfastError("usage", "a bundle holds a backup as it is stored, and no moment between two", {
      hint: "Take the bundle of the incremental after that moment, or --format csv, json or sql.",
    });
  }
  const incremental = "backup" in state && session !== null ? await findIncremental(session, state.backup) : null;
  if ("point" in state || (incremental !== null && format !== "bundle")) {
    return await momentSource(context, read, state, format, table);
  }
  const backup = incremental?.id ?? (await openNamed(context, read, state.backup)).manifest.id;
  const contents = await openContents(read, session, { backup, table, format }, { ahead: true });
  return { backup, contents, fileName: fileNameOf(format, backup, table), close: () => Promise.resolve() };
}

/** In a database of its own, which is made for it and dropped. */
async function momentSource(
  context: Context,
  read: ReadDeps,
  state: ReturnType<typeof namedState>,
  format: DownloadFormat,
  table: NamedTable | null,
): Promise<DownloadSource> {
  if (format === "bundle") throw new HoldfastError("internal", "a bundle of a moment");
  const { source } = await openPast(context, read, state, table === null ? null : [table]);
  try {
    const fileName = fileNameOf(format, source.backupId, table);
    return { backup: source.backupId, contents: plainContents(source, table, format), fileName, close: source.close };
  } catch (error) {
    await source.close();
    throw error;
  }
}
