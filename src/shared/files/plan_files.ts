/** What a full backup has to do for files: seen in its snapshot, before any of them is read. */
import { writingInSnapshot } from "../backup/session.ts";
import type { Connection } from "../postgres/connection.ts";
import { countBlobs, countFiles, listFiles, readBucketRows, readFileBuckets, readFileGroups } from "./file_queries.ts";
import { prefixesToLookAt } from "./look_at_copies.ts";

export interface PlannedFiles {
  /** For the manifest; null: it says nothing of files. */
  readonly files: { readonly leftOut: readonly string[]; readonly buckets: readonly string[] } | null;
  readonly tasks: readonly {
    readonly kind: "look" | "files";
    readonly detail: { readonly prefix: string };
    readonly estimatedBytes: number;
  }[];
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

/** Code of the warning that files of the project are not in a backup. */
export const notCopiedCode = "files_not_copied";

/**
 * `canRead`: this process knows the address and a key of the project's Storage. `session` is in no transaction, and is left in none.
 * Errors: `keeper_lost`, those of the database.
 */
export async function planFiles(
  session: Connection,
  { run, epoch, snapshotName, canRead }: {
    readonly run: string;
    readonly epoch: string;
    readonly snapshotName: string;
    readonly canRead: boolean;
  },
): Promise<PlannedFiles> {
  const present = await readFileBuckets(session);
  if (present === null) return { files: null, tasks: [], warnings: [] };
  if (!canRead) {
    const files = await countFiles(session, present.copied);
    const message = `${files} files in ${present.copied.length} buckets are not in it, only their rows: ` +
      "SUPABASE_URL and SUPABASE_SECRET_KEY are not set";
    return { files: null, tasks: [], warnings: files === 0 ? [] : [{ code: notCopiedCode, message }] };
  }
  let rows: string[] = [];
  let buckets = present;
  await writingInSnapshot(session, snapshotName, async () => {
    await listFiles(session, run, epoch);
    // As the list was made: a bucket may have come, or gone, since.
    buckets = await readFileBuckets(session) ?? present;
    rows = await readBucketRows(session, [...buckets.copied, ...buckets.leftOut]);
  });
  const looks = prefixesToLookAt(await countBlobs(session, epoch));
  // The largest first: the last of them leaves a worker alone for as short a time as can be.
  const groups = (await readFileGroups(session, run)).sort((a, b) => b.bytes - a.bytes);
  return {
    files: { leftOut: buckets.leftOut, buckets: rows },
    tasks: [
      ...looks.map((prefix) => ({ kind: "look" as const, detail: { prefix }, estimatedBytes: 0 })),
      ...groups.map(({ prefix, bytes }) => ({ kind: "files" as const, detail: { prefix }, estimatedBytes: bytes })),
    ],
    warnings: [],
  };
}
