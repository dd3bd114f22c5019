/** SHA-256 and the hexadecimal text of bytes. Hashing is WebCrypto's, off the isolate's thread. */

export async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** Lower-case hex. For digests and ids, not for data. */
export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

export async function sha256Hex(bytes: Uint8Array): Promise<string> {
  return toHex(await sha256(bytes));
}

/**
 * Byte for byte, four at a time: eight, as bigints, take five times as long. For comparing what was read back with what was written, not
 * for secrets: it ends at the first difference.
 */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.byteLength !== b.byteLength) return false;
  if (a.byteOffset % 4 !== 0) return sameBytes(a.slice(), b);
  if (b.byteOffset % 4 !== 0) return sameBytes(a, b.slice());
  const words = a.byteLength >>> 2;
  const left = new Uint32Array(a.buffer, a.byteOffset, words);
  const right = new Uint32Array(b.buffer, b.byteOffset, words);
  for (let i = 0; i < words; i++) if (left[i] !== right[i]) return false;
  return sameTail(a, b, words * 4);
}

function sameTail(a: Uint8Array, b: Uint8Array, from: number): boolean {
  for (let i = from; i < a.byteLength; i++) if (a[i] !== b[i]) return false;
  return true;
}
