/** One object of a store opened by its name alone: whatever it is, nothing but the store, the keys and a recorded hash is needed. */
import { openSegment } from "../changes/segments/segment.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { openEntry } from "../erase/entry.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { open } from "../format/container.ts";
import { decodeHeader, type ObjectKind } from "../format/container_header.ts";
import { decodeFileList } from "../format/file_list.ts";
import { parseErasureName, parseFileListName, prefixes, repositoryName } from "../format/layout.ts";
import { objectName } from "../format/object_name.ts";
import { decodeRepository } from "../format/repository.ts";
import type { NameToOpen } from "../jobs/check_queries.ts";
import { openKeyFile } from "../replicate/key_file.ts";
import { isLayered } from "../store/layered.ts";
import { countCopyRows } from "../verify/copy_rows.ts";
import { openStreamList } from "../verify/stream_lists.ts";
import { decodeCapture } from "../verify/decode_capture.ts";
import type { Opening } from "./opening.ts";

const maxAnchorBytes = 4096;

export interface OpenedStored {
  readonly storedBytes: number;
  readonly rawBytes: number;
  /** By the hash of its sealed bytes alone: in a layer whose key is offline, or too large to be unpacked here. */
  readonly hashedOnly: boolean;
}

/**
 * Compared with what is recorded of its sealed bytes, opened, unpacked, and an object's contents with its own name, which is their keyed
 * hash. In the second store the layer stays closed. Errors: `object_missing`, `object_damaged`, `format_newer`, `key_wrong`,
 * those of the store.
 */
export async function openStored(
  opening: Opening,
  { name, storedHash }: NameToOpen,
  mostRawBytes: number,
): Promise<OpenedStored> {
  const bytes = await opening.store.read(name);
  const storedBytes = bytes.byteLength;
  const isOther = storedHash !== null && await sha256Hex(bytes) !== storedHash;
  if (name.startsWith(prefixes.keys)) {
    // Wrapped anew now and then, also past what is recorded: its seal tells.
    await openKeyFile(opening, name, bytes).catch((error: unknown) => {
      if (isOther && asHoldfastError(error).code === "key_wrong") throw damaged(name, "opens no more");
      throw error;
    });
    return { storedBytes, rawBytes: storedBytes, hashedOnly: false };
  }
  if (isOther) throw damaged(name, "is not the object that was stored");
  if (opening.isSecond && isLayered(name)) return { storedBytes, rawBytes: 0, hashedOnly: true };
  if (name === repositoryName) {
    decodeRepository(bytes);
    return { storedBytes, rawBytes: storedBytes, hashedOnly: false };
  }
  const header = decodeHeader(bytes, name);
  if (header.rawLength > mostRawBytes) return { storedBytes, rawBytes: 0, hashedOnly: true };
  const rawBytes = header.rawLength;
  if (parseFileListName(name) !== null) await openStreamList(opening, name, bytes);
  else if (name.startsWith(prefixes.changes)) await openSegment(opening, name, bytes);
  else if (name.startsWith(prefixes.anchors)) {
    await open(opening, { kind: "anchor", name, bytes, maxBytes: maxAnchorBytes });
  } else if (name.startsWith(prefixes.erasures)) await openEntry(opening, parseErasureName(name) ?? 0, bytes);
  else await openContents(opening, name, bytes, header.kind);
  return { storedBytes, rawBytes, hashedOnly: false };
}

async function openContents(opening: Opening, name: string, bytes: Uint8Array, kind: ObjectKind): Promise<void> {
  if (kind !== "chunk" && kind !== "schema" && kind !== "files" && kind !== "blob") throw damaged(name, `is a ${kind}`);
  const { epochId, rawLength } = decodeHeader(bytes, name);
  const plaintext = await open(opening, { kind, name, bytes, maxBytes: rawLength });
  const named = await objectName(await opening.epochOf(epochId), kind, plaintext);
  if (named.name !== name) throw damaged(name, "does not hold what its name says");
  if (kind === "chunk") countCopyRows(plaintext);
  if (kind === "schema") decodeCapture(plaintext, name);
  if (kind === "files") decodeFileList(plaintext, name);
}

function damaged(name: string, why: string): HoldfastError {
  return new HoldfastError("object_damaged", `${name} ${why}`);
}
