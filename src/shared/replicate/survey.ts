/** What the first store holds, entered as what the second one has to hold. */
import { sha256Hex } from "../crypto/digest.ts";
import {
  parseAnchorName,
  parseEpochName,
  parseErasureName,
  parseFileListName,
  parseManifestName,
  parseSegmentName,
} from "../format/layout.ts";
import { prefixes, repositoryName } from "../format/layout.ts";
import { HoldfastError } from "../errors.ts";
import { adoptRepository, readRepository } from "../format/repository.ts";
import type { CopyKind, CopyTask, NameToCopy } from "../jobs/copy_queries.ts";
import type { Store } from "../store/store.ts";
import type { ReplicateDeps } from "./deps.ts";

/** Names in one call: some 200 KB of JSON. */
const namesAtOnce = 2_000;

/** Listed each time: a new epoch's key has to come before what it seals, and who was erased before any backup is restored. */
const always = [prefixes.keys, prefixes.erasures];
const whenListed = [prefixes.keys, prefixes.erasures, prefixes.changes, prefixes.anchors, prefixes.backups];

/**
 * Where the task says that it is due. Errors: `object_conflict` where the second store holds another repository, those of the
 * stores.
 */
export async function survey(deps: ReplicateDeps, task: CopyTask): Promise<void> {
  const begun = await task.beginSurvey();
  if (!begun.due) return;
  const { listing } = begun;
  const { first, second } = deps;
  const repository = await readRepository(first);
  if (repository !== null) await adoptRepository(second.store, repository);
  const listed: string[] = [];
  for await (const names of surveyed(first, listing)) {
    listed.push(...names.map(({ name }) => name));
    await task.enter(names);
  }
  await task.endSurvey(begun, whenListed, listing ? listed : null);
  deps.log.step("copies.surveyed", { names: listed.length, listing });
}

/**
 * Names of the first store in batches: the repository, keys, the erasure ledger, and with `listing` segments, anchors and manifests. Objects are
 * named by their manifests. With `listing` key files are read, since they are rewritten.
 */
export async function* surveyed(first: Store, listing: boolean): AsyncGenerator<NameToCopy[]> {
  let batch: NameToCopy[] = [];
  const repository = await first.size(repositoryName);
  if (repository !== null) batch.push({ name: repositoryName, kind: "repository", bytes: repository, hash: null });
  for (const prefix of listing ? whenListed : always) {
    const found: NameToCopy[] = [];
    for await (const { name, size } of first.list(prefix)) {
      const kind = kindOf(name);
      if (kind !== null) found.push({ name, kind, bytes: size, hash: null });
    }
    for (const one of found) {
      batch.push(one.kind === "key" && listing ? { ...one, hash: await hashOf(first, one.name) } : one);
      if (batch.length < namesAtOnce) continue;
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

/** Null for a name that this version does not know: F-5 and "Names" of docs/format.md. */
export function kindOf(name: string): Exclude<CopyKind, "object"> | null {
  if (name === repositoryName) return "repository";
  if (parseEpochName(name) !== null) return "key";
  if (parseErasureName(name) !== null) return "erasure";
  if (parseSegmentName(name) !== null) return "segment";
  if (parseAnchorName(name) !== null) return "anchor";
  // A list of files beside segments comes after what it names, as a manifest does.
  if (parseManifestName(name) !== null || parseFileListName(name) !== null) return "manifest";
  return null;
}

/** Null for one that was shredded meanwhile. */
async function hashOf(store: Store, name: string): Promise<string | null> {
  try {
    return await sha256Hex(await store.read(name));
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "object_missing") return null;
    throw error;
  }
}
