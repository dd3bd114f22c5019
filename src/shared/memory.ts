/**
 * Gives the memory of a buffer back at once; every view of it is empty from now on. For large buffers whose owner is done with them: V8
 * counts what lies outside of its heap, and from 64 MiB on looks through all of its heap for what can go, again and again.
 */
export function release(bytes: Uint8Array): void {
  const buffer = bytes.buffer as ArrayBuffer & { transfer?: (length: number) => ArrayBuffer };
  buffer.transfer?.(0);
}

/** All of them, one behind the other, in a buffer of its own. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
