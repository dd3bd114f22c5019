/** The files of a moment: which rows there were, and which of the copies hold their content. Pure. */
import type { ChangedFile, FileChanges } from "../changes/plan/file_changes.ts";
import type { ListedFile } from "../format/file_list.ts";
import { isOwnBucket } from "../schema/own_objects.ts";

/**
 * `listed`: of the full backup that the moment stands on; `changes`: from there to the moment; `copied`: lists beside the segments from
 * the full on. A version whose content nobody has is `missed` as `changed`. `leftOut`: buckets that are not copied.
 */
export function filesAtPoint(
  listed: readonly ListedFile[],
  { rows, emptied }: FileChanges,
  copied: Iterable<ListedFile>,
  leftOut: readonly string[],
): ListedFile[] {
  const contents = new Map<string, ListedFile>();
  const keep = (file: ListedFile) => {
    if (file.missed === null) contents.set(versionOf(file), file);
  };
  for (const file of listed) keep(file);
  for (const file of copied) keep(file);
  const base = new Map(listed.filter(({ inSnapshot }) => inSnapshot).map((file) => [file.id, file]));
  const wanted: ListedFile[] = [];
  for (const file of emptied ? [] : base.values()) {
    if (rows.has(file.id)) continue;
    wanted.push(file.missed === null ? file : withContent(file, contents));
  }
  for (const [id, change] of rows) {
    if (change === null) continue;
    const file = changedFile(id, change, base.get(id) ?? null);
    if (file === null || isOwnBucket(file.bucket) || leftOut.includes(file.bucket)) continue;
    wanted.push(withContent(file, contents));
  }
  return wanted;
}

function withContent(file: ListedFile, contents: ReadonlyMap<string, ListedFile>): ListedFile {
  const known = contents.get(versionOf(file));
  return known === undefined ? file : { ...file, missed: null, parts: known.parts };
}

/** Null for a row that names no file. */
function changedFile(id: string, { members, isPartial }: ChangedFile, before: ListedFile | null): ListedFile | null {
  // Of two members of one name the later counts, for JSON.parse as for jsonb.
  const row = isPartial && before !== null ? `${before.row.trimEnd().slice(0, -1)}, ${members}}` : `{${members}}`;
  const { bucket_id: bucket, name, metadata } = JSON.parse(row) as {
    readonly bucket_id?: string | null;
    readonly name?: string | null;
    readonly metadata?: { readonly size?: unknown } | null;
  };
  if (bucket == null || name == null) return null;
  const size = /^\d{1,15}$/.test(String(metadata?.size)) ? Number(metadata?.size) : null;
  return { bucket, name, id, size, inSnapshot: true, missed: "changed", parts: [], row };
}

/** What tells one content from another; dates are no part of it. */
export function versionOf({ id, row }: Pick<ListedFile, "id" | "row">): string {
  const { version, metadata } = JSON.parse(row) as {
    readonly version?: string | null;
    readonly metadata?: { readonly eTag?: unknown; readonly size?: unknown } | null;
  };
  return JSON.stringify([id, version ?? null, metadata?.eTag ?? null, metadata?.size ?? null]);
}
