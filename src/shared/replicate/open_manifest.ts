/** A manifest of the first store, opened; its objects and its epoch's key file are entered as what has to be copied before it. */
import { epochName } from "../format/layout.ts";
import type { FilePart } from "../format/file_list.ts";
import { fileListsOf, type Manifest, objectsOf } from "../format/manifest.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { CopyTask, CopyToMake } from "../jobs/copy_queries.ts";
import { partsOfFiles } from "../verify/read_file_list.ts";
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
  let read = bytes.byteLength;
  const enter = async (objects: readonly (NeededObject | { name: string; bytes: null; hash: null })[]) => {
    for (let at = 0; at < objects.length; at += objectsAtOnce) {
      await task.enterNeeds(copy.name, objects.slice(at, at + objectsAtOnce), { complete: false, renewAfterMs });
    }
  };
  await enter([{ name: epochName(manifest.epoch), bytes: null, hash: null }, ...needsOf(manifest)]);
  for await (const parts of partsOfFiles({ ...deps, store: deps.first }, manifest)) await enter(parts.map(neededPart));
  for (const list of fileListsOf(manifest)) read += list.rawBytes;
  await task.enterNeeds(copy.name, [], { complete: true, renewAfterMs });
  return read;
}

export interface NeededObject {
  readonly name: string;
  readonly bytes: number;
  /** SHA-256 of the sealed bytes; null where the manifest records none. */
  readonly hash: string | null;
}

/** All that a backup needs, its lists of files and their parts too, each with its size. Errors: those of `partsOfFiles`. */
export async function allNeedsOf(
  deps: Pick<OriginalDeps, "compressor" | "epochOf"> & { readonly store: OriginalDeps["first"] },
  manifest: Manifest,
): Promise<NeededObject[]> {
  const needs = [...needsOf(manifest)];
  for await (const parts of partsOfFiles(deps, manifest)) needs.push(...parts.map(neededPart));
  return [...new Map(needs.map((need) => [need.name, need])).values()];
}

function neededPart({ object: name, storedBytes: bytes, storedHash: hash }: FilePart): NeededObject {
  return { name, bytes, hash };
}

/** Never empty: each backup has a schema capture. */
function needsOf(manifest: Manifest): NeededObject[] {
  return objectsOf(manifest).map(({ name, storedBytes, storedHash }) => ({
    name,
    bytes: storedBytes,
    hash: storedHash ?? null,
  }));
}
