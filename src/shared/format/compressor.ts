/** Compression as the container sees it. Synchronous: it runs on the isolate's own thread and counts as its CPU. */
export interface Compressor {
  /** Any length. The result is a buffer of its own. */
  compress(bytes: Uint8Array): Uint8Array;
  /** `object_damaged` for what is no valid stream or holds more than `maxBytes`; nothing is unpacked before that is known. */
  decompress(bytes: Uint8Array, maxBytes: number): Uint8Array;
}
