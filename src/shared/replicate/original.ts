/** What came from the first store, checked before it is copied: damage must not reach the second store as if it were sound. */
import { openSegment } from "../changes/segments/segment.ts";
import { sha256Hex } from "../crypto/digest.ts";
import type { EpochSource } from "../crypto/epoch.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { openEntry } from "../erase/entry.ts";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { open } from "../format/container.ts";
import { parseErasureName, parseFileListName } from "../format/layout.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { CopyToMake } from "../jobs/copy_queries.ts";
import type { Store } from "../store/store.ts";
import { openStreamList } from "../verify/stream_lists.ts";
import { openKeyFile } from "./key_file.ts";

export interface OriginalDeps {
  readonly first: Store;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
  readonly repositoryId: string;
}

export interface Original {
  readonly bytes: Uint8Array;
  /** SHA-256 in hex. */
  readonly hash: string;
}

/** A schema capture whose manifest records no hash of its seal; larger ones were never written. */
const maxSchemaBytes = 256 * 1024 * 1024;
const maxAnchorBytes = 4096;

/**
 * Compared with the hash that was recorded when it was written; where there is none, its seal is opened, and so
 * are a key file and an entry of the erasure ledger.
 * Errors: `object_missing`, `object_damaged`, `manifest_damaged`, `format_newer`, those of keys and store.
 */
export async function readOriginal(deps: OriginalDeps, copy: CopyToMake): Promise<Original> {
  const { name, firstBytes, firstHash } = copy;
  const bytes = await deps.first.read(name);
  const hash = await sha256Hex(bytes);
  if (copy.kind === "key") {
    await openKeyFile(deps, name, bytes);
  } else if (copy.kind === "erasure") {
    await openSeal(deps, copy, bytes);
  } else if (firstHash !== null) {
    if (hash !== firstHash) throw damaged(name, "is not the object that was stored");
  } else if (firstBytes !== null && bytes.byteLength !== firstBytes) {
    throw damaged(name, `has ${bytes.byteLength} bytes, ${firstBytes} were stored`);
  } else {
    await openSeal(deps, copy, bytes);
  }
  return { bytes, hash };
}

async function openSeal(deps: OriginalDeps, { name, kind }: CopyToMake, bytes: Uint8Array): Promise<void> {
  switch (kind) {
    case "segment":
      await openSegment(deps, name, bytes);
      return;
    case "manifest":
      if (parseFileListName(name) !== null) await openStreamList(deps, name, bytes);
      else await openManifest(deps, name, bytes);
      return;
    case "anchor":
      await open(deps, { kind: "anchor", name, bytes, maxBytes: maxAnchorBytes });
      return;
    case "erasure":
      await openEntry(deps, parseErasureName(name) ?? 0, bytes);
      return;
    case "object":
      await open(deps, { kind: "schema", name, bytes, maxBytes: maxSchemaBytes });
      return;
    case "repository":
    case "key":
      return;
  }
}

function damaged(name: string, why: string): HoldfastError {
  return new HoldfastError("object_damaged", `${name} ${why}`);
}
