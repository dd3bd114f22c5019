/** A manifest of the first store, opened; its objects and its epoch's key file are entered as what has to be copied before it. */
import { epochName } from "../format/layout.ts";
import { fileListsOf } from "../format/manifest.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { CopyTask, CopyToMake } from "../jobs/copy_queries.ts";
import { neededObjects } from "../verify/needed_objects.ts";
import { type OriginalDeps, readOriginal } from "./original.ts";

/** Objects in one call: some 400 KB of JSON. */
const objectsAtOnce = 2_000;

/**
 * `renewAfterMs`: age of a lock in the second store from which on it is renewed; null: there are none. Returns bytes that
 * were read. Errors: those of `readOriginal`, `openManifest` and `neededObjects`.
 */
export async function enterManifest(
  deps: OriginalDeps,
  task: CopyTask,
  copy: CopyToMake,
  renewAfterMs: number | null,
): Promise<number> {
  const { bytes } = await readOriginal(deps, copy);
  const { manifest } = await openManifest(deps, copy.name, bytes);
  const key = { name: epochName(manifest.epoch), bytes: null, hash: null };
  await task.enterNeeds(copy.name, [key], { complete: false, renewAfterMs });
  for await (const objects of neededObjects({ ...deps, store: deps.first }, manifest)) {
    for (let at = 0; at < objects.length; at += objectsAtOnce) {
      await task.enterNeeds(copy.name, objects.slice(at, at + objectsAtOnce), { complete: false, renewAfterMs });
    }
  }
  await task.enterNeeds(copy.name, [], { complete: true, renewAfterMs });
  return fileListsOf(manifest).reduce((sum, list) => sum + list.rawBytes, bytes.byteLength);
}
