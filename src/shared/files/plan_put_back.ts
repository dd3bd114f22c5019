/** What bringing files back would do, before anything is done. Pure. */
import type { ListedFile } from "../format/file_list.ts";

/** A file as it stands in the target's Storage. */
export interface PresentFile {
  readonly id: string;
  readonly bucket: string;
  readonly name: string;
  readonly version: string | null;
  readonly size: number | null;
  readonly etag: string | null;
  readonly isOwned: boolean;
  /** Put by a restore that has not come to its row. */
  readonly isHalf: boolean;
}

/** `missing` puts back what is gone; `merge` also what differs. Neither removes anything. */
export type PutBackMode = "missing" | "merge";

export interface PlannedFile {
  readonly file: ListedFile;
  /**
   * `lost`: the backup has no content of it; `later`: it has that of a version that came after its snapshot; `half`: a restore that was
   * broken off has put its content, and nobody's yet.
   */
  readonly state: "gone" | "half" | "differs" | "same" | "lost" | "later";
  readonly puts: boolean;
  /** Something stands in its place, which it takes. */
  readonly replaces: boolean;
}

export interface PutBackPlan {
  readonly files: readonly PlannedFile[];
  /** In the target, in buckets that are asked for, and not in the backup; they stay. */
  readonly orphans: readonly PresentFile[];
  readonly buckets: readonly string[];
  /** Content that is put, in bytes. */
  readonly bytes: number;
}

/** Names of then and now; a version of the snapshot stands before one that came later. */
export function planPutBack(
  listed: readonly ListedFile[],
  present: readonly PresentFile[],
  mode: PutBackMode,
): PutBackPlan {
  const now = new Map(present.map((file) => [keyOf(file), file]));
  const wanted = new Map<string, PlannedFile>();
  for (const file of listed) {
    const key = keyOf(file);
    const known = wanted.get(key);
    if (known !== undefined && known.state !== "lost") continue;
    // What came later may have a version that is missed before it.
    const state = stateOf(file, now.get(key));
    const puts = state === "gone" || state === "half" || (state === "differs" && mode === "merge");
    const later = !file.inSnapshot && puts;
    wanted.set(key, { file, state: later ? "later" : state, puts, replaces: now.has(key) });
  }
  const files = [...wanted.values()].sort((a, b) => keyOf(a.file) < keyOf(b.file) ? -1 : 1);
  return {
    files,
    orphans: present.filter((file) => !wanted.has(keyOf(file))),
    buckets: [...new Set(files.map(({ file }) => file.bucket))].sort(),
    bytes: files.reduce((sum, { file, puts }) => puts ? sum + bytesOf(file) : sum, 0),
  };
}

export function bytesOf({ parts }: ListedFile): number {
  return parts.reduce((sum, part) => sum + part.rawBytes, 0);
}

function stateOf(file: ListedFile, present: PresentFile | undefined): "gone" | "half" | "differs" | "same" | "lost" {
  if (file.missed !== null) return "lost";
  if (present === undefined) return "gone";
  if (present.isHalf) return "half";
  const row = JSON.parse(file.row) as {
    version?: string | null;
    owner_id?: string | null;
    metadata?: { eTag?: string | null } | null;
  };
  const isSame = (row.version ?? null) !== null && row.version === present.version;
  const isEqual = (row.metadata?.eTag ?? null) !== null && row.metadata?.eTag === present.etag &&
    file.size === present.size;
  if (isSame) return "same";
  if (!isEqual) return "differs";
  // A Storage that keeps no metadata of programs keeps no mark either: what is put by its key is nobody's.
  return !present.isOwned && (row.owner_id ?? "") !== "" ? "half" : "same";
}

function keyOf({ bucket, name }: { readonly bucket: string; readonly name: string }): string {
  return JSON.stringify([bucket, name]);
}
