/** A key file of the second store gives way only to one of the same epoch secret: without its own it opens nothing any more. */
import { sameBytes } from "../crypto/digest.ts";
import { decodeEpochFile } from "../crypto/epoch_file.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { HoldfastError } from "../errors.ts";
import { parseEpochName } from "../format/layout.ts";

export interface KeyFiles {
  readonly name: string;
  /** As it lies in the second store. */
  readonly there: Uint8Array;
  /** As it lies in the first one. */
  readonly coming: Uint8Array;
}

/**
 * Whoever writes the first store may put anything under a key's name. What comes has to open with our keys, which a rewritten
 * file does, and to hold the secret of what is there; one that is there and does not open (damaged, or wrapped for keys that were
 * retired since) holds nobody back. Errors: `object_conflict`, with the second store as it was; `key_wrong` where what comes is for
 * other keys than ours; `object_damaged`, `format_newer`.
 */
export async function checkSameEpoch(
  { ring, repositoryId }: { readonly ring: KeyRing; readonly repositoryId: string },
  { name, there, coming }: KeyFiles,
): Promise<void> {
  const expected = { id: parseEpochName(name) ?? "", repositoryId };
  const { secret } = await decodeEpochFile(coming, expected, ring);
  const kept = await secretOrNull(() => decodeEpochFile(there, expected, ring));
  if (kept === null || sameBytes(kept, secret)) return;
  throw new HoldfastError("object_conflict", `${name} in the first store opens another epoch than the copy of it`, {
    hint: "Somebody wrote to the first store. The copy is kept as it is: take the key file from there.",
  });
}

async function secretOrNull(open: () => Promise<{ readonly secret: Uint8Array }>): Promise<Uint8Array | null> {
  try {
    return (await open()).secret;
  } catch (error) {
    if (error instanceof HoldfastError && (error.code === "key_wrong" || error.code === "object_damaged")) return null;
    throw error;
  }
}
