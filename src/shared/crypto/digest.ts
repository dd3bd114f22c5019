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

/** Byte for byte. For comparing what was read back with what was written, not for secrets: it ends at the first difference. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.byteLength !== b.byteLength) return false;
  const words = a.byteLength >>> 3;
  if (a.byteOffset % 8 === 0 && b.byteOffset % 8 === 0) {
    const left = new BigUint64Array(a.buffer, a.byteOffset, words);
    const right = new BigUint64Array(b.buffer, b.byteOffset, words);
    for (let i = 0; i < words; i++) if (left[i] !== right[i]) return false;
    return sameTail(a, b, words * 8);
  }
  return sameTail(a, b, 0);
}

function sameTail(a: Uint8Array, b: Uint8Array, from: number): boolean {
  for (let i = from; i < a.byteLength; i++) if (a[i] !== b[i]) return false;
  return true;
}
