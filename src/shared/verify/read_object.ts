import type { EpochSource } from "../crypto/epoch.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { type Opened, openPacked } from "../format/container.ts";
import type { ContentKind } from "../format/layout.ts";
import type { Store } from "../store/store.ts";

export interface ObjectDeps {
  readonly store: Pick<Store, "read">;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
}

/** An object as a manifest records it. */
export interface RecordedObject {
  readonly kind: ContentKind;
  /** Full name in the store. */
  readonly name: string;
  readonly rawBytes: number;
  /** SHA-256 of the plaintext in hex. */
  readonly hash: string;
  /** Of the sealed bytes; where given, they are compared too. */
  readonly stored?: { readonly bytes: number; readonly hash: string | undefined };
}

/**
 * The plaintext, in a buffer of its own, once everything recorded of it holds. Memory: the sealed object, its packed
 * and its plain form. Errors: `object_missing`, `object_damaged`, `format_newer`, `key_wrong`, those of the store.
 */
export async function readObject(deps: ObjectDeps, recorded: RecordedObject): Promise<Uint8Array> {
  return (await readPacked(deps, recorded)).plaintext;
}

/** As `readObject`. */
export async function readPacked(deps: ObjectDeps, recorded: RecordedObject): Promise<Opened> {
  const bytes = await deps.store.read(recorded.name);
  const { kind, name, stored } = recorded;
  if (stored !== undefined && bytes.byteLength !== stored.bytes) {
    throw damaged(name, `has ${bytes.byteLength} bytes, ${stored.bytes} were stored`);
  }
  if (stored?.hash !== undefined && (await sha256Hex(bytes)) !== stored.hash) {
    throw damaged(name, "is not the object that was stored");
  }
  const opened = await openPacked(deps, { kind, name, bytes, maxBytes: recorded.rawBytes });
  const { plaintext } = opened;
  if (plaintext.byteLength !== recorded.rawBytes) {
    throw damaged(name, `holds ${plaintext.byteLength} bytes, the manifest says ${recorded.rawBytes}`);
  }
  if ((await sha256Hex(plaintext)) !== recorded.hash) throw damaged(name, "does not hold what the manifest says");
  return opened;
}

function damaged(name: string, why: string): HoldfastError {
  return new HoldfastError("object_damaged", `${name} ${why}`);
}
