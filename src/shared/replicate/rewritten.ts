/** A manifest of the second store that a lawful erasure has rewritten in the first. docs/format.md, F-34. */
import { HoldfastError } from "../errors.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { OriginalDeps } from "./original.ts";

/**
 * May the manifest that stands in the second store be replaced by that of the first? Only by a later revision of the same one. Errors:
 * `object_conflict`, those of `openManifest`.
 */
export async function checkRewritten(
  deps: Omit<OriginalDeps, "first">,
  name: string,
  stored: Uint8Array,
  original: Uint8Array,
): Promise<void> {
  const there = await openManifest(deps, name, stored);
  const fresh = await openManifest(deps, name, original);
  const revision = ({ manifest }: typeof there) => manifest.rewritten?.revision ?? 0;
  // `hash` is that of the bytes that were there first, in both.
  if (fresh.hash === there.hash && revision(fresh) > revision(there)) return;
  throw new HoldfastError("object_conflict", `${name} in the second store is not what the first one's was made of`);
}
