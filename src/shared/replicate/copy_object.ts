/** One object from the first store into the second: read and checked, wrapped, noted, put, read back, recorded. */
import { sameBytes, sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { CopyTask, CopyToMake } from "../jobs/copy_queries.ts";
import { parseManifestName } from "../format/layout.ts";
import { isLayered } from "../store/secondary.ts";
import type { ReplicateDeps } from "./deps.ts";
import { checkReplacement } from "./key_file.ts";
import { checkRewritten } from "./rewritten.ts";
import type { Original, OriginalDeps } from "./original.ts";

/** `needed`: nothing was sent, since the egress of the day has no room for so many bytes. */
export type CopyOutcome = { readonly copied: number } | { readonly needed: number };

/**
 * An age file differs at each encryption, so that what stands there under the name is told by the hashes that were noted
 * before they were sent: one of them is adopted. Anything else under a layered name, or under one that we meant to put, is
 * replaced by a whole one (F-25), but a key file only where `checkReplacement` lets it, and a manifest where `checkRewritten` does; else it is
 * `object_conflict`, and nothing is overwritten.
 * Errors, beside those of the second store and the lease: `store_lied` where other bytes come back.
 */
export async function copyObject(
  deps: Pick<ReplicateDeps, "second" | "log"> & Omit<OriginalDeps, "first">,
  task: CopyTask,
  copy: CopyToMake,
  original: Original,
): Promise<CopyOutcome> {
  const { second, log } = deps;
  const { name, kind } = copy;
  const record = async (bytes: Uint8Array, hash: string): Promise<CopyOutcome> => {
    await task.record({
      name,
      firstBytes: original.bytes.byteLength,
      firstHash: original.hash,
      secondBytes: bytes.byteLength,
      secondHash: hash,
    });
    log.step("copy.recorded", { name });
    return { copied: bytes.byteLength };
  };
  const known = new Set(copy.intended);
  const there = known.size > 0 || !isLayered(name) ? await readOrNull(deps, name) : null;
  if (there !== null) {
    const hash = await sha256Hex(there);
    const isOurs = isLayered(name) ? known.has(hash) : hash === original.hash;
    if (isOurs || kind === "repository") return await record(there, hash);
  }
  const wrapped = await second.wrap(name, original.bytes);
  const hash = await sha256Hex(wrapped);
  if (!await task.intend(name, hash, wrapped.byteLength)) return { needed: wrapped.byteLength };
  log.step("copy.intended", { name });
  const outcome = there === null ? await second.store.create(name, wrapped) : "existed";
  log.step("copy.put", { name });
  let stored = await readBack(deps, name);
  if (outcome === "existed" && !sameBytes(stored, wrapped)) {
    if (parseManifestName(name) !== null) {
      await checkRewritten(deps, name, { stored, original: original.bytes, intended: known.size > 0 });
    } else if (!isLayered(name) && kind !== "key" && known.size === 0) {
      throw new HoldfastError("object_conflict", `${name} in ${second.store.label} holds something else`);
    }
    if (kind === "key") await checkReplacement(deps, name, stored, original.bytes);
    // It is sent again; and whoever came late, after another took the task over, must not replace what that one recorded.
    if (!await task.intend(name, hash, wrapped.byteLength)) return { needed: wrapped.byteLength };
    await second.store.replace(name, wrapped);
    log.step("copy.replaced", { name });
    stored = await readBack(deps, name);
  }
  if (!sameBytes(stored, wrapped)) {
    throw new HoldfastError("store_lied", `${second.store.label} gave back other bytes than were written to ${name}`);
  }
  log.step("copy.read_back", { name });
  return await record(stored, hash);
}

/** Missing right after the store said that it is there is the store's fault. */
async function readBack(deps: Pick<ReplicateDeps, "second">, name: string): Promise<Uint8Array> {
  const stored = await readOrNull(deps, name);
  if (stored !== null) return stored;
  throw new HoldfastError("store_lied", `${deps.second.store.label} does not have ${name}, which it took just now`);
}

async function readOrNull({ second }: Pick<ReplicateDeps, "second">, name: string): Promise<Uint8Array | null> {
  try {
    return await second.store.read(name);
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "object_missing") return null;
    throw error;
  }
}
