import { HoldfastError } from "../errors.ts";
import { decodeFileList, type FilePart, type ListedFile, listFacts } from "../format/file_list.ts";
import { fileListsOf, type Manifest, type ManifestFileList } from "../format/manifest.ts";
import { type ObjectDeps, readObject, type RecordedObject } from "./read_object.ts";

/** The files of a list, once it holds what the manifest says. Errors: those of `readObject`, `format_newer`, `object_damaged`. */
export async function readFileList(deps: ObjectDeps, list: ManifestFileList): Promise<readonly ListedFile[]> {
  const { object: name, rawBytes, storedBytes, hash, storedHash } = list;
  const stored = { bytes: storedBytes, hash: storedHash };
  return checkFileList(await readObject(deps, { kind: "files", name, rawBytes, hash, stored }), list);
}

/** `plaintext` as it was opened and hashed. Errors: `format_newer`, `object_damaged`. */
export function checkFileList(plaintext: Uint8Array, list: ManifestFileList): readonly ListedFile[] {
  const files = decodeFileList(plaintext, list.object);
  const facts = listFacts(files);
  const differs = (Object.keys(facts) as (keyof typeof facts)[]).some((key) => facts[key] !== list[key]);
  if (differs) throw new HoldfastError("object_damaged", `${list.object} does not list what the manifest says`);
  return files;
}

/** The plaintext of a part, held against what is listed of it. */
export type ReadPart = (part: FilePart) => Promise<Uint8Array>;

/** Parts of files, list after list, with repetitions. Errors: those of `readFileList`. */
export async function* partsOfFiles(deps: ObjectDeps, manifest: Manifest): AsyncGenerator<readonly FilePart[]> {
  for (const list of fileListsOf(manifest)) yield (await readFileList(deps, list)).flatMap((file) => file.parts);
}

export function recordedPart({ object: name, rawBytes, storedBytes, hash, storedHash }: FilePart): RecordedObject {
  return { kind: "blob", name, rawBytes, hash, stored: { bytes: storedBytes, hash: storedHash } };
}
