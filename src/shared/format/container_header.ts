/** The first 58 bytes of every sealed object. docs/format.md, "Sealed objects", has the same table. */
import { epochIdLength, epochIdPattern } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";

export const magic = "HOLDFAST";
export const containerVersion = 1;
export const headerBytes = 58;
export const nonceStart = 38;
export const nonceBytes = 12;
export const tagBytes = 16;

/** The byte of each kind. A number is never used again for something else. */
export const kindNumbers = {
  chunk: 1,
  schema: 2,
  manifest: 3,
  segment: 4,
  blob: 5,
  anchor: 6,
  claim: 7,
  files: 8,
  erasure: 9,
  terms: 10,
} as const;
export type ObjectKind = keyof typeof kindNumbers;

export const compressionNumbers = { none: 0, zstd: 1 } as const;
export type Compression = keyof typeof compressionNumbers;

export interface ContainerHeader {
  readonly kind: ObjectKind;
  readonly compression: Compression;
  readonly epochId: string;
  readonly nonce: Uint8Array;
  /** Bytes of the plaintext, before compression. */
  readonly rawLength: number;
}

const at = { version: 8, kind: 9, compression: 10, reserved: 11, epoch: 12, nonce: nonceStart, rawLength: 50 } as const;

export function encodeHeader(header: ContainerHeader): Uint8Array {
  if (!epochIdPattern.test(header.epochId) || header.nonce.byteLength !== nonceBytes) {
    throw new HoldfastError("internal", "a header was asked for with an epoch or nonce of the wrong form");
  }
  const bytes = new Uint8Array(headerBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(magic), 0);
  bytes[at.version] = containerVersion;
  bytes[at.kind] = kindNumbers[header.kind];
  bytes[at.compression] = compressionNumbers[header.compression];
  bytes.set(new TextEncoder().encode(header.epochId), at.epoch);
  bytes.set(header.nonce, at.nonce);
  view.setBigUint64(at.rawLength, BigInt(header.rawLength));
  return bytes;
}

/** Errors: `format_newer` before anything after the version is looked at, `object_damaged` for the rest. */
export function decodeHeader(bytes: Uint8Array, name: string): ContainerHeader {
  const damaged = (why: string) => new HoldfastError("object_damaged", `${name} ${why}`);
  if (bytes.byteLength < headerBytes + tagBytes) throw damaged(`is cut short (${bytes.byteLength} bytes)`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (ascii(bytes.subarray(0, magic.length)) !== magic) throw damaged("is not a sealed object");
  const version = view.getUint8(at.version);
  if (version > containerVersion) {
    throw new HoldfastError(
      "format_newer",
      `${name} is sealed in version ${version} of the format, this Holdfast reads up to ${containerVersion}`,
    );
  }
  if (version !== containerVersion) throw damaged("has no version that ever was");
  const kind = nameOf(kindNumbers, view.getUint8(at.kind));
  const compression = nameOf(compressionNumbers, view.getUint8(at.compression));
  const epochId = ascii(bytes.subarray(at.epoch, at.epoch + epochIdLength));
  const rawLength = view.getBigUint64(at.rawLength);
  if (kind === undefined || compression === undefined || view.getUint8(at.reserved) !== 0) {
    throw damaged("has a header that this version does not allow");
  }
  if (!epochIdPattern.test(epochId)) throw damaged("names no epoch");
  if (rawLength > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged("has an impossible length");
  return {
    kind,
    compression,
    epochId,
    nonce: bytes.slice(at.nonce, at.nonce + nonceBytes),
    rawLength: Number(rawLength),
  };
}

function nameOf<Name extends string>(numbers: Readonly<Record<Name, number>>, wanted: number): Name | undefined {
  for (const name in numbers) if (numbers[name] === wanted) return name;
  return undefined;
}

function ascii(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
