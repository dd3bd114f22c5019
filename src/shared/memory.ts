/**
 * Gives the memory of a buffer back at once; every view of it is empty from now on. For large buffers whose owner is done with them: V8
 * counts what lies outside of its heap, and from 64 MiB on looks through all of its heap for what can go, again and again.
 */
export function release(bytes: Uint8Array): void {
  const buffer = bytes.buffer as ArrayBuffer & { transfer?: (length: number) => ArrayBuffer };
  buffer.transfer?.(0);
}
