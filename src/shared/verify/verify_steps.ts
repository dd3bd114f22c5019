/** What a verification looks at, one after the other, known from the manifest alone: legs and threads divide it by places. */
import type { FilePart } from "../format/file_list.ts";
import {
  fileListsOf,
  type Manifest,
  type ManifestFileList,
  type ManifestObject,
  objectsOf,
} from "../format/manifest.ts";
import { type ObjectDeps } from "./read_object.ts";
import { readFileList } from "./read_file_list.ts";

/** An object that the manifest names, or one of the parts that a list names. Bytes of a part are its list's average. */
export type VerifyStep =
  | (ManifestObject & { readonly part: null })
  | {
    readonly part: number;
    readonly list: ManifestFileList;
    readonly rawBytes: number;
    readonly storedBytes: number;
  };

/** Objects first, then the parts of each list in its order. */
export function verifySteps(manifest: Manifest): VerifyStep[] {
  return [
    ...objectsOf(manifest).map((object) => ({ ...object, part: null })),
    ...fileListsOf(manifest).flatMap((list) =>
      Array.from({ length: list.parts }, (_, part) => ({
        part,
        list,
        rawBytes: Math.round(list.partBytes / list.parts),
        storedBytes: Math.round(list.partStoredBytes / list.parts),
      }))
    ),
  ];
}

/** Lists, read once as long as steps of theirs come one after the other. */
export class ListsInUse {
  readonly #deps: ObjectDeps;
  readonly #lists = new Map<ManifestFileList, Promise<readonly FilePart[]>>();

  constructor(deps: ObjectDeps) {
    this.#deps = deps;
  }

  /** Undefined where the list cannot be read: its own step says so. Errors: what keeps it from being read now. */
  async part(
    list: ManifestFileList,
    part: number,
    isVerdict: (error: unknown) => boolean,
  ): Promise<FilePart | undefined> {
    const known = this.#lists.get(list);
    if (known === undefined) {
      // Steps under way at the same time may still be of the list before.
      for (const old of [...this.#lists.keys()].slice(0, -1)) this.#lists.delete(old);
    }
    const reading = known ?? readFileList(this.#deps, list).then(
      (files) => files.flatMap((file) => file.parts),
      (error: unknown) => {
        if (isVerdict(error)) return [];
        throw error;
      },
    );
    this.#lists.set(list, reading);
    return (await reading)[part];
  }
}
