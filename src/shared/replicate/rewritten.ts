/** A manifest of the second store that a lawful erasure has rewritten in the first. docs/format.md, F-34. */
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { OriginalDeps } from "./original.ts";

/**
 * May what stands in the second store under a manifest's name be replaced by that of the first? Only an earlier revision of the same
 * one, and what is no manifest where we meant to put one (`intended`). Errors: `object_conflict`, those of `openManifest`.
 */
export async function checkRewritten(
  deps: Omit<OriginalDeps, "first">,
  name: string,
  { stored, original, intended }: {
    readonly stored: Uint8Array;
    readonly original: Uint8Array;
    readonly intended: boolean;
  },
): Promise<void> {
  const fresh = await openManifest(deps, name, original);
  const there = await openManifest(deps, name, stored).catch((error: unknown) => {
    const { code } = asHoldfastError(error);
    if (code === "manifest_damaged" || code === "object_damaged") return null;
    throw error;
  });
  const revision = ({ manifest }: typeof fresh) => manifest.rewritten?.revision ?? 0;
  // `hash` is that of the bytes that were there first, in both.
  const isLawful = there === null ? intended : fresh.hash === there.hash && revision(fresh) > revision(there);
  if (isLawful) return;
  throw new HoldfastError("object_conflict", `${name} in the second store is not what the first one's was made of`);
}
