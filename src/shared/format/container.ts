/**
 * Sealing and opening of one object. docs/format.md, "Sealed objects".
 *
 * The seal binds every header byte, the repository and the object's full name, so that an object that was changed, cut,
 * moved, swapped or brought from another repository does not open.
 */
import type { Epoch, EpochSource } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";
import type { Random } from "../random.ts";
import type { Compressor } from "./compressor.ts";
import {
  type ContainerHeader,
  decodeHeader,
  encodeHeader,
  headerBytes,
  nonceBytes,
  nonceStart,
  type ObjectKind,
  tagBytes,
} from "./container_header.ts";

export interface SealDeps {
  readonly random: Random;
  readonly compressor: Compressor;
}

export interface OpenDeps {
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
}

/** What is sealed: its kind and full name are bound to it. */
export interface Plain {
  readonly kind: ObjectKind;
  /** Full name in the store. */
  readonly name: string;
  readonly plaintext: Uint8Array;
  /** What the compressor might have made of it, where that is there already. */
  readonly packed?: Uint8Array;
}

export interface Opened {
  readonly plaintext: Uint8Array;
  /** Its frames, where it was sealed as such. */
  readonly packed: Uint8Array | null;
}

/** What is to be opened, with what the reader expects it to be. */
export interface Sealed {
  readonly kind: ObjectKind;
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Most plaintext the caller takes; more is `object_damaged` before memory is taken for it. */
  readonly maxBytes: number;
}

/**
 * A container in a buffer of its own. Compressed only where that makes it smaller, and content of files only where samples of it say so.
 * Never the same bytes twice.
 */
export async function seal(deps: SealDeps, epoch: Epoch, plain: Plain): Promise<Uint8Array> {
  const packed = plain.packed ??
    (isPacked(deps.compressor, plain) ? plain.plaintext : deps.compressor.compress(plain.plaintext));
  const smaller = packed.byteLength < plain.plaintext.byteLength;
  const header = encodeHeader({
    kind: plain.kind,
    compression: smaller ? "zstd" : "none",
    epochId: epoch.id,
    nonce: deps.random(nonceBytes),
    rawLength: plain.plaintext.byteLength,
  });
  const ciphertext = await crypto.subtle.encrypt(
    parameters(header, epoch.repositoryId, plain.name),
    epoch.dataKey,
    smaller ? packed : plain.plaintext,
  );
  const sealed = new Uint8Array(headerBytes + ciphertext.byteLength);
  sealed.set(header, 0);
  sealed.set(new Uint8Array(ciphertext), headerBytes);
  return sealed;
}

const sampleBytes = 32 * 1024;

/** Recordings and pictures are compressed already: to compress them again is the dearest part of copying them, for nothing. */
function isPacked(compressor: Compressor, { kind, plaintext }: Plain): boolean {
  const length = plaintext.byteLength;
  if (length === 0) return true;
  if (kind !== "blob" || length < 8 * sampleBytes) return false;
  return [0, (length - sampleBytes) >>> 1, length - sampleBytes].every((from) =>
    compressor.compress(plaintext.subarray(from, from + sampleBytes)).byteLength > sampleBytes * 0.97
  );
}

/**
 * The plaintext in a buffer of its own. Errors: `object_damaged` for whatever is not exactly what was sealed under this
 * name, `format_newer`, and what `epochOf` throws (`key_wrong`).
 */
export async function open(deps: OpenDeps, sealed: Sealed): Promise<Uint8Array> {
  return (await openPacked(deps, sealed)).plaintext;
}

/** As `open`. */
export async function openPacked(deps: OpenDeps, sealed: Sealed): Promise<Opened> {
  const header = decodeHeader(sealed.bytes, sealed.name);
  checkAgainst(header, sealed);
  const epoch = await deps.epochOf(header.epochId);
  const packed = await decrypt(epoch, header, sealed);
  if (header.compression === "none") return { plaintext: packed, packed: null };
  const plaintext = unpack(deps.compressor, packed, header.rawLength, sealed.name);
  if (plaintext.byteLength !== header.rawLength) throw damaged(sealed.name, "unpacks to another length than it says");
  return { plaintext, packed };
}

function checkAgainst(header: ContainerHeader, sealed: Sealed): void {
  if (header.kind !== sealed.kind) throw damaged(sealed.name, `is a ${header.kind}, not a ${sealed.kind}`);
  if (header.rawLength > sealed.maxBytes) {
    throw damaged(sealed.name, `holds ${header.rawLength} bytes, at most ${sealed.maxBytes} are taken here`);
  }
  const inside = sealed.bytes.byteLength - headerBytes - tagBytes;
  const fits = header.compression === "none" ? inside === header.rawLength : inside < header.rawLength;
  if (!fits) throw damaged(sealed.name, "has another length than it says");
}

async function decrypt(epoch: Epoch, header: ContainerHeader, sealed: Sealed): Promise<Uint8Array> {
  const head = sealed.bytes.subarray(0, headerBytes);
  try {
    const clear = await crypto.subtle.decrypt(
      parameters(head, epoch.repositoryId, sealed.name),
      epoch.dataKey,
      sealed.bytes.subarray(headerBytes),
    );
    return new Uint8Array(clear);
  } catch (cause) {
    throw damaged(sealed.name, `does not open under epoch ${header.epochId}: it was changed, cut or moved`, cause);
  }
}

function unpack(compressor: Compressor, packed: Uint8Array, rawLength: number, name: string): Uint8Array {
  try {
    return compressor.decompress(packed, rawLength);
  } catch (cause) {
    throw damaged(name, "holds compressed data that cannot be unpacked", cause);
  }
}

/** AAD = header, then the repository id (36 ASCII characters), then the full name. Each part has a known start. */
function parameters(header: Uint8Array, repositoryId: string, name: string): AesGcmParams {
  const bound = new TextEncoder().encode(repositoryId + name);
  const additionalData = new Uint8Array(headerBytes + bound.byteLength);
  additionalData.set(header, 0);
  additionalData.set(bound, headerBytes);
  return {
    name: "AES-GCM",
    iv: header.subarray(nonceStart, nonceStart + nonceBytes),
    additionalData,
    tagLength: tagBytes * 8,
  };
}

function damaged(name: string, why: string, cause?: unknown): HoldfastError {
  return new HoldfastError("object_damaged", `${name} ${why}`, cause === undefined ? {} : { cause });
}
