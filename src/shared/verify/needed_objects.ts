/** What has to lie in a store for a backup to be restored from there, beside its manifest and the key file of its epoch. */
import type { FilePart, ListedFile } from "../format/file_list.ts";
import { type Manifest, objectsOf } from "../format/manifest.ts";
import { partsOfFiles } from "./read_file_list.ts";
import type { ObjectDeps } from "./read_object.ts";

export interface NeededObject {
  readonly name: string;
  /** Of the sealed object. */
  readonly bytes: number;
  /** SHA-256 of the sealed bytes; null where the manifest records none. */
  readonly hash: string | null;
}

/**
 * Objects that the manifest names, then what each of its lists of files names, each once in its group. The first group is never empty:
 * each backup has a schema capture. Errors: those of `partsOfFiles`.
 */
export async function* neededObjects(deps: ObjectDeps, manifest: Manifest): AsyncGenerator<readonly NeededObject[]> {
  yield objectsOf(manifest).map(({ name, storedBytes: bytes, storedHash }) => ({
    name,
    bytes,
    hash: storedHash ?? null,
  }));
  for await (const parts of partsOfFiles(deps, manifest)) {
    yield neededParts(parts);
  }
}

/** The content of these files, each object once. */
export function neededByFiles(files: readonly ListedFile[]): readonly NeededObject[] {
  return neededParts(files.flatMap((file) => file.parts));
}

function neededParts(parts: readonly FilePart[]): readonly NeededObject[] {
  const needed = parts.map(({ object: name, storedBytes: bytes, storedHash: hash }) => ({ name, bytes, hash }));
  return [...new Map(needed.map((one) => [one.name, one])).values()];
}

/** All of them, each once. Errors: those of `neededObjects`. */
export async function allNeededObjects(deps: ObjectDeps, manifest: Manifest): Promise<NeededObject[]> {
  const all = new Map<string, NeededObject>();
  for await (const some of neededObjects(deps, manifest)) for (const one of some) all.set(one.name, one);
  return [...all.values()];
}
