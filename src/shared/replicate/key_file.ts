/**
 * Key files are rewritten in the first store, and the second follows. So one that was damaged or forged there must not take the
 * place of the good one: nothing that the epoch sealed would open again, in either store.
 */
import { sameBytes } from "../crypto/digest.ts";
import { decodeEpochFile, type EpochFile } from "../crypto/epoch_file.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { HoldfastError } from "../errors.ts";
import { parseEpochName } from "../format/layout.ts";

interface KeyFileDeps {
  readonly ring: KeyRing;
  readonly repositoryId: string;
}

/** Errors: `key_wrong` for one that no key of ours opens, whether it is wrapped for others or damaged; `object_damaged`, `format_newer`. */
export async function openKeyFile(
  { ring, repositoryId }: KeyFileDeps,
  name: string,
  bytes: Uint8Array,
): Promise<EpochFile> {
  const id = parseEpochName(name);
  if (id === null) throw new HoldfastError("object_damaged", `${name} is no key file's name`);
  return await decodeEpochFile(bytes, { id, repositoryId }, ring);
}

/**
 * May `fresh` take the place of `there`? One that our keys do not open is no loss. Errors, beside those of `openKeyFile`:
 * `object_conflict` for another secret, or where a key of ours opens what is there and not what would replace it.
 */
export async function checkReplacement(
  deps: KeyFileDeps,
  name: string,
  there: Uint8Array,
  fresh: Uint8Array,
): Promise<void> {
  const known = await openKeyFile(deps, name, there).catch((error: unknown) => {
    if (error instanceof HoldfastError && (error.code === "key_wrong" || error.code === "object_damaged")) return null;
    throw error;
  });
  if (known === null) return;
  const { secret, wrappedFor } = await openKeyFile(deps, name, fresh);
  if (!sameBytes(secret, known.secret)) {
    throw new HoldfastError(
      "object_conflict",
      `${name} of the first store holds another secret than that of the second`,
    );
  }
  const left = deps.ring.ids.filter((id) => known.wrappedFor.includes(id) && !wrappedFor.includes(id));
  if (left.length === 0) return;
  throw new HoldfastError(
    "object_conflict",
    `${name} of the first store is no longer wrapped for ${left.join(", ")}, which opens it in the second store`,
    {
      hint:
        "Run `holdfast keys rotate`, which wraps it for every key of BACKUP_KEYS, or take that key out of BACKUP_KEYS.",
    },
  );
}
