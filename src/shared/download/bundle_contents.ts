/** The sealed objects of a backup as a tar archive: unpacked, it is a store that holds this backup alone. */
import { z } from "zod";
import { segmentsForPoint } from "../changes/plan/plan_point.ts";
import { parseLsn } from "../changes/decode/lsn.ts";
import { inOrder, listSegments } from "../changes/segments/chain_reader.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import { isLedgerEpoch } from "../crypto/epochs.ts";
import { epochName, parseEpochName, prefixes, repositoryName } from "../format/layout.ts";
import type { Store } from "../store/store.ts";
import { allNeededObjects, neededByFiles, type NeededObject } from "../verify/needed_objects.ts";
import { readStreamLists } from "../verify/stream_lists.ts";
import type { OpenedBackup, ReadDeps } from "../verify/find_backup.ts";
import { byHandPage, byHandScript } from "./by_hand.ts";
import type { Contents, Step } from "./contents.ts";
import { tarBytes, tarEnd, tarHeader, tarPadding } from "./tar.ts";

/** How many files are in the archive. */
const bundleMark = z.int().nonnegative();

/** What goes in, in its order: what opens the backup first, the manifest last, so that half an archive is no backup; objects each once. */
interface BundleFile {
  readonly name: string;
  readonly size: number;
  /** SHA-256 of the bytes in hex, where it is recorded. */
  readonly hash?: string | undefined;
  /** Where it is none of the store's. */
  readonly text?: Uint8Array;
}

/** An incremental's last position in the log; its segments go with the full backup that they stand on. */
export interface BundleEnd {
  /** `16/B374D848`. */
  readonly lsn: string;
}

/**
 * Of `backup`, and, with `end`, of the segments that lead from it to there.
 * Errors: `object_missing`, `object_damaged` for an object of another size or hash than is recorded; `chain_broken` where
 * segments on the way are missing; those of the store.
 */
export async function bundleContents(
  deps: ReadDeps,
  backup: OpenedBackup,
  end: BundleEnd | null,
): Promise<Contents<number>> {
  const files = await bundleFiles(deps, backup, end);
  const at = new Date(backup.manifest.consistentAt);
  const folder = `holdfast-${backup.manifest.id.slice(0, 8)}`;
  return {
    markSchema: bundleMark,
    bytes: files.reduce((sum, file) => sum + tarBytes(file.size), tarEnd.byteLength),
    isExact: true,
    files: files.length,
    steps: (from) => bundleSteps(deps.store, files, folder, at, from ?? 0),
  };
}

async function* bundleSteps(
  store: Store,
  files: readonly BundleFile[],
  folder: string,
  at: Date,
  from: number,
): AsyncGenerator<Step<number>> {
  for (const [index, file] of files.entries()) {
    if (index < from) continue;
    const bytes = file.text ?? await readWhole(store, file);
    const pieces = [tarHeader(`${folder}/${file.name}`, file.size, at), bytes, tarPadding(file.size)];
    yield { pieces, rows: 0, read: bytes.byteLength, mark: () => index + 1 };
  }
  if (from <= files.length) yield { pieces: [tarEnd], rows: 0, read: 0, mark: () => files.length + 1 };
}

async function readWhole(store: Store, file: BundleFile): Promise<Uint8Array> {
  const bytes = await store.read(file.name);
  const isSound = bytes.byteLength === file.size && (file.hash === undefined || await sha256Hex(bytes) === file.hash);
  if (isSound) return bytes;
  throw new HoldfastError("object_damaged", `${file.name} is not the object that was stored`);
}

async function bundleFiles(deps: ReadDeps, backup: OpenedBackup, end: BundleEnd | null): Promise<BundleFile[]> {
  const { store } = deps;
  const { manifest } = backup;
  const segments = end === null ? [] : await segmentsUntil(deps, backup, end);
  // Segments may be sealed in another epoch than their full; key files are small, and twelve a year.
  const allKeys = await namesBelow(store, prefixes.keys);
  const keyFiles = end === null
    ? allKeys.filter((name) => name === epochName(manifest.epoch) || isLedgerEpoch(parseEpochName(name) ?? ""))
    : allKeys;
  // Whoever restores from it has to know who must not come back.
  const ledger = await namesBelow(store, prefixes.erasures);
  const sized = async (name: string): Promise<BundleFile> => {
    const size = await store.size(name);
    if (size === null) throw new HoldfastError("object_missing", `${name} is not in ${store.label}`);
    return { name, size };
  };
  const needs = await allNeededObjects({ ...deps, epochOf: backup.epochOf }, manifest);
  const copied = end === null ? { lists: [], needs: [] } : await filesUntil(deps, backup, end);
  const objects = [...new Map([...needs, ...copied.needs].map((one) => [one.name, one])).values()]
    .map(({ name, bytes: size, hash }) => ({ name, size, hash: hash ?? undefined }));
  return [
    ...[["restore-by-hand.md", byHandPage], ["restore-by-hand.mjs", byHandScript]].map(([name = "", content]) => {
      const text = new TextEncoder().encode(content);
      return { name, size: text.byteLength, text };
    }),
    await sized(repositoryName),
    ...await Promise.all([...keyFiles, ...ledger].map(sized)),
    ...objects,
    ...copied.lists,
    ...segments,
    await sized(backup.name),
  ];
}

async function segmentsUntil(deps: ReadDeps, backup: OpenedBackup, end: BundleEnd): Promise<BundleFile[]> {
  const chain = backup.manifest.chain ?? "";
  const last = parseLsn(end.lsn);
  const all = inOrder((await listSegments(deps.store)).get(chain) ?? []).filter(({ endLsn }) => endLsn <= last);
  const segments = await segmentsForPoint({ ...deps, epochOf: backup.epochOf }, all, backup);
  if (segments.at(-1)?.endLsn !== last) {
    throw new HoldfastError(
      "chain_broken",
      `the segments from backup ${backup.manifest.id} up to ${end.lsn} are not all there`,
    );
  }
  return segments.map(({ name, size }) => ({ name, size }));
}

/**
 * Lists of files beside the segments, and what they name: from the full backup up to the end, and the first behind it, since what came in
 * the last segment was copied after it.
 */
async function filesUntil(deps: ReadDeps, backup: OpenedBackup, end: BundleEnd) {
  const { manifest, epochOf } = backup;
  const [from, last] = [parseLsn(manifest.snapshot.walInsertLsn), parseLsn(end.lsn)];
  const lists: BundleFile[] = [];
  const needs: NeededObject[] = [];
  for await (const list of readStreamLists({ ...deps, epochOf }, manifest.chain ?? "", from)) {
    lists.push({ name: list.name, size: list.size });
    needs.push(...neededByFiles(list.files));
    if (list.lsn > last) break;
  }
  return { lists, needs };
}

async function namesBelow(store: Store, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list(prefix)) names.push(name);
  return names.sort();
}
