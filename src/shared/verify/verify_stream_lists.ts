/** Lists of files that were copied between full backups, and the objects that they name: read, opened and hashed. */
import { sha256Hex } from "../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { OpenDeps } from "../format/container.ts";
import type { FilePart, ListedFile } from "../format/file_list.ts";
import { severalAtOnce } from "../replicate/several.ts";
import type { Store } from "../store/store.ts";
import { isVerdict } from "./is_verdict.ts";
import type { VerifyProblem } from "./run.ts";
import { recordedPart } from "./read_file_list.ts";
import { readObject } from "./read_object.ts";
import { openStreamList } from "./stream_lists.ts";

/** As the database has recorded it. */
export interface RecordedList {
  readonly name: string;
  readonly files: number;
  readonly storedBytes: number;
  /** SHA-256 of the sealed bytes in hex. */
  readonly storedHash: string;
}

export interface VerifiedLists {
  /** Lists and parts that were looked at; a part that several files share counts once. */
  readonly objects: number;
  readonly files: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly problems: readonly VerifyProblem[];
}

export interface ListsProgress {
  readonly objects: number;
  /** Of the lists that were opened by now. */
  readonly objectsTotal: number;
  readonly storedBytes: number;
  readonly storedBytesTotal: number;
}

/** Parts of 2 MiB in memory at once, each three times. */
const bounds = { most: 4, mostBytes: 16 * 1024 * 1024 } as const;

/** Errors: `cancelled`, and what says nothing of an object but of the way to it. */
export async function verifyStreamLists(
  deps: OpenDeps & { readonly store: Store },
  lists: readonly RecordedList[],
  { signal, onRead }: { readonly signal?: AbortSignal; readonly onRead?: (at: ListsProgress) => void } = {},
): Promise<VerifiedLists> {
  const problems: VerifyProblem[] = [];
  const done = { objects: 0, files: 0, rawBytes: 0, storedBytes: 0 };
  const total = { objects: lists.length, bytes: lists.reduce((sum, list) => sum + list.storedBytes, 0) };
  const seen = new Set<string>();
  const looked = async (object: string, storedBytes: number, look: () => Promise<void>) => {
    if (signal?.aborted === true) throw new HoldfastError("cancelled", "the verification was cancelled");
    try {
      await look();
    } catch (error) {
      const failure = asHoldfastError(error);
      if (!isVerdict(failure)) throw error;
      problems.push({ object, code: failure.code, message: failure.message });
    }
    done.objects++;
    done.storedBytes += storedBytes;
    const at = { objects: done.objects, objectsTotal: total.objects, storedBytes: done.storedBytes };
    onRead?.({ ...at, storedBytesTotal: total.bytes });
  };
  for (const list of lists) {
    let files: readonly ListedFile[] = [];
    await looked(list.name, list.storedBytes, async () => {
      files = await openRecorded(deps, list);
    });
    done.files += files.length;
    const parts = newParts(files, seen);
    total.objects += parts.length;
    total.bytes += parts.reduce((sum, part) => sum + part.storedBytes, 0);
    const pieces = parts.map((part) => ({ part, bytes: part.rawBytes, alone: false }));
    await severalAtOnce(pieces, bounds, async ({ part }) => {
      await looked(part.object, part.storedBytes, async () => void await readObject(deps, recordedPart(part)));
      done.rawBytes += part.rawBytes;
      return true;
    });
  }
  problems.sort((a, b) => a.object < b.object ? -1 : 1);
  return { ...done, problems };
}

/** Errors: `object_missing`, `object_damaged`, `counts_differ`, `format_newer`, those of the store and the keys. */
async function openRecorded(
  deps: OpenDeps & { readonly store: Store },
  { name, files, storedHash }: RecordedList,
): Promise<readonly ListedFile[]> {
  const bytes = await deps.store.read(name);
  if (await sha256Hex(bytes) !== storedHash) {
    throw new HoldfastError("object_damaged", `${name} is not what was stored`);
  }
  const listed = await openStreamList(deps, name, bytes);
  if (listed.length !== files) {
    throw new HoldfastError("counts_differ", `${name} lists ${listed.length} files, ${files} were recorded`);
  }
  if (listed.some(({ missed, inSnapshot }) => missed !== null || inSnapshot)) {
    throw new HoldfastError("object_damaged", `${name} lists what no list of the stream may hold`);
  }
  return listed;
}

function newParts(files: readonly ListedFile[], seen: Set<string>): FilePart[] {
  return files.flatMap(({ parts }) => parts).filter(({ object }) => {
    const isNew = !seen.has(object);
    seen.add(object);
    return isNew;
  });
}
