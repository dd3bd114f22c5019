/** Which files the ledger forbids to bring back. A file's row is never loaded, so that no database can be asked: they are told here. */
import { rowHash } from "./hashes.ts";
import type { Ledger } from "./ledger.ts";
import { usersIdentity } from "./removal_plan.ts";

export interface OwnedFile {
  readonly id: string;
  readonly bucket: string;
  readonly name: string;
  /** Ids of users that its row names. */
  readonly owners: readonly string[];
}

const table = { schema: "storage", name: "objects" } as const;

/** Those that are in the ledger themselves, or whose owner is. */
export async function erasedFiles<T extends OwnedFile>(
  { entries, keys }: Ledger,
  files: readonly T[],
): Promise<ReadonlySet<T>> {
  const erased = new Set<T>();
  if (entries.length === 0) return erased;
  const hashes = new Set(entries.flatMap((entry) => entry.hashes));
  for (const file of files) {
    const rows = [
      { identity: { ...table, columns: ["id"] }, values: [file.id] },
      { identity: { ...table, columns: ["bucket_id", "name"] }, values: [file.bucket, file.name] },
      ...file.owners.map((owner) => ({ identity: usersIdentity, values: [owner.toLowerCase()] })),
    ];
    for (const key of keys) {
      for (const { identity, values } of rows) {
        if (hashes.has(await rowHash(key, identity, values))) erased.add(file);
      }
    }
  }
  return erased;
}
