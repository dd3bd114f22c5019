/** A manifest of the first store, opened; its objects and its epoch's key file are entered as what has to be copied before it. */
import { decodeHeader } from "../format/container_header.ts";
import { epochName, parseFileListName } from "../format/layout.ts";
import { fileListsOf } from "../format/manifest.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { CopyTask, CopyToMake } from "../jobs/copy_queries.ts";
import { neededByFiles, neededObjects } from "../verify/needed_objects.ts";
import { openStreamList } from "../verify/stream_lists.ts";
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
  if (parseFileListName(copy.name) !== null) return await enterFileList(deps, task, copy.name, bytes, renewAfterMs);
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

/** The same for a list of files beside the segments of a chain. */
async function enterFileList(
  deps: OriginalDeps,
  task: CopyTask,
  name: string,
  bytes: Uint8Array,
  renewAfterMs: number | null,
): Promise<number> {
  const key = { name: epochName(decodeHeader(bytes, name).epochId), bytes: null, hash: null };
  const objects = [key, ...neededByFiles(await openStreamList(deps, name, bytes))];
  for (let at = 0; at < objects.length; at += objectsAtOnce) {
    await task.enterNeeds(name, objects.slice(at, at + objectsAtOnce), { complete: false, renewAfterMs });
  }
  await task.enterNeeds(name, [], { complete: true, renewAfterMs });
  return bytes.byteLength;
}
