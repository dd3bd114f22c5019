/** Files of a backup or of a moment, from the store and the keys alone. */
import { parseLsn } from "../changes/decode/lsn.ts";
import type { PointPlan } from "../changes/plan/plan_point.ts";
import type { ListedFile } from "../format/file_list.ts";
import { fileListsOf } from "../format/manifest.ts";
import type { OpenedBackup } from "../verify/find_backup.ts";
import { readFileList } from "../verify/read_file_list.ts";
import { readStreamLists } from "../verify/stream_lists.ts";
import { filesAtPoint, versionOf } from "./files_at_point.ts";
import type { FilesSource } from "./files_by_list.ts";

/** What is asked for; everything else is not kept in memory. */
export type FileFilter = (file: ListedFile) => boolean;

/** Errors: those of reading the lists. */
export async function filesOfBackup(
  source: FilesSource,
  { manifest, epochOf }: OpenedBackup,
  isWanted: FileFilter,
): Promise<ListedFile[]> {
  const found: ListedFile[] = [];
  for (const list of fileListsOf(manifest)) {
    const files = await readFileList({ ...source, epochOf }, list);
    for (const file of files) if (isWanted(file)) found.push(file);
  }
  return found;
}

/**
 * As of the plan's point. Lists beside the segments are read in their order until the content of every file is found: it was copied after
 * the moment at which the file came. Errors: those of reading the lists.
 */
export async function filesOfPoint(
  source: FilesSource,
  { full, survey }: Pick<PointPlan, "full" | "survey">,
  isWanted: FileFilter,
): Promise<ListedFile[]> {
  const { manifest, epochOf } = full;
  // One that was called otherwise, or was another's, by then.
  const listed = await filesOfBackup(source, full, (file) => survey.files.rows.has(file.id) || isWanted(file));
  const leftOut = manifest.files?.leftOut ?? [];
  const planned = (copied: readonly ListedFile[]) =>
    filesAtPoint(listed, survey.files, copied, leftOut).filter(isWanted);
  const files = planned([]);
  const missing = new Set(files.filter(({ missed }) => missed !== null).map(versionOf));
  const { chain } = manifest;
  if (missing.size === 0 || chain === null || chain === undefined) return files;
  const copied: ListedFile[] = [];
  const from = parseLsn(manifest.snapshot.walInsertLsn);
  for await (const list of readStreamLists({ ...source, epochOf }, chain, from)) {
    for (const file of list.files) if (missing.delete(versionOf(file))) copied.push(file);
    if (missing.size === 0) break;
  }
  return planned(copied);
}
