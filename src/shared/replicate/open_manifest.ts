/** A manifest of the first store, opened; its objects and its epoch's key file are entered as what has to be copied before it. */
import { epochName } from "../format/layout.ts";
import { type Manifest, objectsOf } from "../format/manifest.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { CopyTask, CopyToMake } from "../jobs/copy_queries.ts";
import { type OriginalDeps, readOriginal } from "./original.ts";

/** Objects in one call: some 400 KB of JSON. */
const objectsAtOnce = 2_000;

/**
 * `renewAfterMs`: age of a lock in the second store from which on it is renewed; null: there are none. Returns sealed bytes that
 * were read. Errors: those of `readOriginal` and `openManifest`.
 */
export async function enterManifest(
  deps: OriginalDeps,
  task: CopyTask,
  copy: CopyToMake,
  renewAfterMs: number | null,
): Promise<number> {
  const { bytes } = await readOriginal(deps, copy);
  const { manifest } = await openManifest(deps, copy.name, bytes);
  const objects = [{ name: epochName(manifest.epoch), bytes: null, hash: null }, ...needsOf(manifest)];
  for (let at = 0; at < objects.length; at += objectsAtOnce) {
    const some = objects.slice(at, at + objectsAtOnce);
    await task.enterNeeds(copy.name, some, { complete: at + objectsAtOnce >= objects.length, renewAfterMs });
  }
  return bytes.byteLength;
}

export interface NeededObject {
  readonly name: string;
  readonly bytes: number;
  /** SHA-256 of the sealed bytes; null where the manifest records none. */
  readonly hash: string | null;
}

/** Never empty: each backup has a schema capture. */
export function needsOf(manifest: Manifest): NeededObject[] {
  return objectsOf(manifest).map(({ name, storedBytes, storedHash }) => ({
    name,
    bytes: storedBytes,
    hash: storedHash ?? null,
  }));
}
