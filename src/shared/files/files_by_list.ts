/** Files of a backup or of a moment, list by list: a leg of a function holds some hundreds of them at once, however many there are. */
import { parseLsn } from "../changes/decode/lsn.ts";
import type { ChangedFile } from "../changes/plan/file_changes.ts";
import type { PointPlan } from "../changes/plan/plan_point.ts";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import type { ListedFile } from "../format/file_list.ts";
import { fileListsOf, type ManifestFileList } from "../format/manifest.ts";
import type { Store } from "../store/store.ts";
import type { OpenedBackup } from "../verify/find_backup.ts";
import { readFileList } from "../verify/read_file_list.ts";
import { readStreamLists } from "../verify/stream_lists.ts";
import { filesAtPoint } from "./files_at_point.ts";

export interface FilesSource {
  readonly store: Store;
  readonly compressor: Compressor;
}

export interface FilesByList {
  readonly lists: readonly Pick<ManifestFileList, "files" | "rawBytes">[];
  /**
   * The same each time. `after`: what the list before gave; null for the first. Errors: those of reading it; `object_damaged` where lists of
   * a moment are not in the order of the ids of their files.
   */
  readonly read: (index: number, after: string | null) => Promise<ReadFiles>;
}

export interface ReadFiles {
  readonly files: readonly ListedFile[];
  /** The last id that is dealt with by now. */
  readonly after: string | null;
}

export function filesOfFull(source: FilesSource, { manifest, epochOf }: OpenedBackup): FilesByList {
  const lists = fileListsOf(manifest);
  return {
    lists,
    read: async (index, after) => {
      const list = lists[index];
      if (list === undefined) return { files: [], after };
      const files = await readFileList({ ...source, epochOf }, list);
      return { files, after: lastId(files.map(({ id }) => id), after) };
    },
  };
}

/**
 * Each list of the full with what became of its files until the moment, and what came with ids between its own and those of the list before;
 * one more for what came behind the last. Of the lists beside the segments the files that changed are in memory. Errors: those of reading.
 */
export async function filesOfMoment(
  source: FilesSource,
  { full: { manifest, epochOf }, survey }: Pick<PointPlan, "full" | "survey">,
): Promise<FilesByList> {
  const lists = fileListsOf(manifest);
  const leftOut = manifest.files?.leftOut ?? [];
  const { rows, emptied } = survey.files;
  const copied = await copiedSince({ ...source, epochOf }, manifest);
  const at = (listed: readonly ListedFile[], changed: readonly [string, ChangedFile | null][]) => {
    const ids = new Set([...listed.map(({ id }) => id), ...changed.map(([id]) => id)]);
    const contents = [...ids].flatMap((id) => copied.get(id) ?? []);
    return filesAtPoint(listed, { rows: new Map(changed), emptied }, contents, leftOut);
  };
  const sorted = [...rows].sort(([a], [b]) => a < b ? -1 : 1);
  return {
    lists: [...lists, { files: rows.size, rawBytes: 0 }],
    read: async (index, after) => {
      const behind = sorted.filter(([id]) => after === null || id > after);
      const list = lists[index];
      if (list === undefined) return { files: at([], behind), after: lastId(behind.map(([id]) => id), after) };
      const listed = await readFileList({ ...source, epochOf }, list);
      const ids = listed.map(({ id }) => id).sort();
      const last = ids.at(-1);
      if (last === undefined) return { files: [], after };
      if (after !== null && (ids[0] ?? "") <= after) {
        throw new HoldfastError("object_damaged", `${list.object} is not in the order of the lists of its backup`, {
          hint: "`holdfast restore-file all --at` reads all lists at once.",
        });
      }
      return { files: at(listed, behind.filter(([id]) => id <= last)), after: last };
    },
  };
}

function lastId(ids: readonly string[], before: string | null): string | null {
  return ids.reduce((last, id) => last === null || id > last ? id : last, before);
}

/** By id: what was copied behind a full backup. */
async function copiedSince(
  source: Parameters<typeof readStreamLists>[0],
  { chain, snapshot }: OpenedBackup["manifest"],
): Promise<ReadonlyMap<string, readonly ListedFile[]>> {
  const copied = new Map<string, ListedFile[]>();
  if (chain === null || chain === undefined) return copied;
  for await (const { files } of readStreamLists(source, chain, parseLsn(snapshot.walInsertLsn))) {
    for (const file of files) {
      const known = copied.get(file.id);
      if (known === undefined) copied.set(file.id, [file]);
      else known.push(file);
    }
  }
  return copied;
}
