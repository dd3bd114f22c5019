import { isDeepStrictEqual } from "node:util";
import type { SupabaseClient } from "@supabase/supabase-js";
import { sampleBucket } from "../../../tests/support/sample_app/load.ts";
import type { People } from "./one_entry.ts";

/** Through supabase-js and /storage/v1, under the policies of the app. */
export interface HeardNotes {
  readonly notes: number;
  /** None of them could be fetched once they were deleted. */
  readonly gone: boolean;
  /** After the restore: every byte is the one from before. */
  readonly back: boolean;
  readonly othersHear: number;
}

/** A person deletes their recordings in the app; `restore` brings the bucket's back, and the person and somebody else fetch them. */
export async function loseAndHear({ owner, other }: People, restore: () => Promise<void>): Promise<HeardNotes> {
  const { data } = await owner.auth.getUser();
  const folder = data.user?.id ?? "";
  const listed = await owner.storage.from(sampleBucket).list(folder);
  const names = (listed.data ?? []).map(({ name }) => `${folder}/${name}`);
  if (names.length === 0) throw new Error(`the person has no recording: ${listed.error?.message}`);
  const before = await hear(owner, names);
  const removed = await owner.storage.from(sampleBucket).remove(names);
  if (removed.error !== null) throw new Error(`the recordings were not deleted: ${removed.error.message}`);
  const gone = (await hear(owner, names)).every((bytes) => bytes === null);
  await restore();
  const after = await hear(owner, names);
  const othersHear = (await hear(other, names)).filter((bytes) => bytes !== null).length;
  const back = before.every((bytes) => bytes !== null) && isDeepStrictEqual(after, before);
  return { notes: names.length, gone, back, othersHear };
}

/** They were gone, and are back byte for byte for their owner alone. */
export function areAsBefore({ gone, back, othersHear }: HeardNotes): boolean {
  return gone && back && othersHear === 0;
}

/** Null for what Storage does not give. */
async function hear(client: SupabaseClient, names: readonly string[]): Promise<(Uint8Array | null)[]> {
  return await Promise.all(names.map(async (name) => {
    const { data } = await client.storage.from(sampleBucket).download(name);
    return data === null ? null : new Uint8Array(await data.arrayBuffer());
  }));
}
