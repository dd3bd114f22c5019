/** What a replication would copy, by what is recorded: nothing is written, and the second store is not asked. */
import { epochSource } from "../crypto/epochs.ts";
import type { OpenDeps } from "../format/container.ts";
import { parseFileListName } from "../format/layout.ts";
import { openManifest } from "../format/manifest_codec.ts";
import { readRepository } from "../format/repository.ts";
import { type NameToCopy, readCopied } from "../jobs/copy_queries.ts";
import type { ReplicateDeps } from "./deps.ts";
import type { Store } from "../store/store.ts";
import { allNeededObjects, neededByFiles, type NeededObject } from "../verify/needed_objects.ts";
import { openStreamList } from "../verify/stream_lists.ts";
import { surveyed } from "./survey.ts";

export interface MissingCopies {
  /** By name, each once. */
  readonly names: readonly { readonly name: string; readonly bytes: number }[];
}

/** Errors: those of the first store, the keys and the database. */
export async function missingCopies(
  deps: Pick<ReplicateDeps, "connection" | "first" | "second" | "ring" | "compressor">,
): Promise<MissingCopies> {
  const { first, second, ring, compressor } = deps;
  const copied = await readCopied(deps.connection, second.store.label);
  const missing = new Map<string, number>();
  const isCopied = ({ name, kind, hash }: NameToCopy) =>
    copied.has(name) && (kind !== "key" || hash === copied.get(name));
  const repository = await readRepository(first);
  const opening = { compressor, epochOf: epochSource(first, ring, repository?.id ?? "") };
  for await (const names of surveyed(first, true)) {
    for (const one of names) {
      if (isCopied(one)) continue;
      missing.set(one.name, one.bytes);
      if (one.kind !== "manifest") continue;
      for (const { name, bytes } of await neededBy(opening, first, one.name)) {
        if (!copied.has(name)) missing.set(name, bytes);
      }
    }
  }
  const names = [...missing].map(([name, bytes]) => ({ name, bytes }));
  return { names: names.sort((a, b) => a.name < b.name ? -1 : 1) };
}

/** Of a manifest, or of a list of files beside segments. */
async function neededBy(opening: OpenDeps, first: Store, name: string): Promise<readonly NeededObject[]> {
  const bytes = await first.read(name);
  if (parseFileListName(name) !== null) return neededByFiles(await openStreamList(opening, name, bytes));
  const { manifest } = await openManifest(opening, name, bytes);
  return await allNeededObjects({ ...opening, store: first }, manifest);
}
