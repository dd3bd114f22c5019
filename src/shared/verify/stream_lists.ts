/** Lists of files that were copied between full backups: they lie beside the segments of a chain. docs/format.md, "Files". */
import { HoldfastError } from "../errors.ts";
import { open, type OpenDeps } from "../format/container.ts";
import { decodeHeader } from "../format/container_header.ts";
import { decodeFileList, type ListedFile } from "../format/file_list.ts";
import { parseFileListName, prefixes } from "../format/layout.ts";
import { streamListName } from "../format/object_name.ts";
import { readAhead } from "../store/read_ahead.ts";
import type { Store } from "../store/store.ts";

/** Opened, and held against its name. Errors: `object_damaged`, `format_newer`, those of the keys. */
export async function openStreamList(deps: OpenDeps, name: string, bytes: Uint8Array): Promise<readonly ListedFile[]> {
  const place = parseFileListName(name);
  if (place === null) throw new HoldfastError("internal", `${name} is no list of files`);
  const { epochId, rawLength } = decodeHeader(bytes, name);
  const plaintext = await open(deps, { kind: "files", name, bytes, maxBytes: rawLength });
  if (await streamListName(await deps.epochOf(epochId), place, plaintext) !== name) {
    throw new HoldfastError("object_damaged", `${name} does not hold what its name says`);
  }
  return decodeFileList(plaintext, name);
}

export interface StreamList {
  readonly name: string;
  /** Bytes in the store. */
  readonly size: number;
  readonly lsn: bigint;
  readonly files: readonly ListedFile[];
}

/**
 * The lists of a chain that were made at or behind a position, in the order of the log, one at a time. Errors: those of `openStreamList`
 * and the store.
 */
export async function* readStreamLists(
  deps: OpenDeps & { readonly store: Store },
  chain: string,
  fromLsn: bigint,
): AsyncGenerator<StreamList> {
  const found: { readonly name: string; readonly size: number; readonly lsn: bigint }[] = [];
  for await (const { name, size } of deps.store.list(`${prefixes.changes}${chain}/files-`)) {
    const place = parseFileListName(name);
    if (place !== null && place.lsn >= fromLsn) found.push({ name, size, lsn: place.lsn });
  }
  found.sort((a, b) => a.lsn === b.lsn ? (a.name < b.name ? -1 : 1) : a.lsn < b.lsn ? -1 : 1);
  for await (const { object, bytes } of readAhead(deps.store, found)) {
    yield { ...object, files: await openStreamList(deps, object.name, bytes) };
  }
}
