/** Names of objects that are kept by content: the same plaintext in the same epoch has one name. */
import { sha256, toHex } from "../crypto/digest.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { type ContentKind, contentName, fileListName } from "./layout.ts";

export interface ContentName {
  readonly name: string;
  /** SHA-256 of the plaintext in hex, as a manifest records it. */
  readonly hash: string;
}

/** The name of a list of copied files beside the segments of a chain. */
export async function streamListName(
  epoch: Epoch,
  { chain, lsn }: { readonly chain: string; readonly lsn: bigint },
  plaintext: Uint8Array,
): Promise<string> {
  return fileListName({ chain, lsn, hash: toHex((await keyedHash(epoch, "files", plaintext)).keyed) });
}

/**
 * HMAC-SHA256 under the epoch's name key over `<kind>`, a zero byte and the SHA-256 of the plaintext. Hashing first
 * keeps it one pass over the data without a copy, since WebCrypto has no incremental HMAC.
 */
export async function objectName(
  epoch: Epoch,
  kind: ContentKind,
  plaintext: Uint8Array,
): Promise<ContentName> {
  const { keyed, digest } = await keyedHash(epoch, kind, plaintext);
  return { name: contentName(kind, toHex(keyed)), hash: toHex(digest) };
}

async function keyedHash(epoch: Epoch, kind: ContentKind, plaintext: Uint8Array) {
  const digest = await sha256(plaintext);
  const message = new Uint8Array(kind.length + 1 + digest.byteLength);
  message.set(new TextEncoder().encode(kind), 0);
  message.set(digest, kind.length + 1);
  return { keyed: new Uint8Array(await crypto.subtle.sign("HMAC", epoch.nameKey, message)), digest };
}
