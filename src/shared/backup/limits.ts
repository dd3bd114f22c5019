/** How much of anything one worker holds or does. A function's isolate has 256 MB and 2 s of CPU, a process has what it is given. */
export interface Limits {
  /** Text that a chunk aims at. */
  readonly chunkBytes: number;
  /** Text at which a chunk is cut and its range split. */
  readonly chunkCapBytes: number;
  /** Text of a single row at which it is `row_too_large`. */
  readonly rowCapBytes: number;
  /** Content of files that is on its way at the same time. */
  readonly fileBytesAtOnce: number;
}

const mib = 1024 * 1024;

/**
 * Resident memory of a leg's process with chunks of 4 MiB is some 12 MB below that with 8 MiB (Deno 2.1.4, sample app and
 * bench database, under the gateway); most of it is the runtime, 79 MB, and garbage that V8 collects at 64 MB.
 */
export const functionLimits: Limits = {
  chunkBytes: 4 * mib,
  chunkCapBytes: 8 * mib,
  rowCapBytes: 24 * mib,
  fileBytesAtOnce: 2 * mib,
};

/**
 * `maxMemoryBytes` is what one worker may hold; a row's text is held twice (as read and as put together). Larger chunks
 * than a function's: each object costs a sync to disk. Of files more on their way at once cost time: six times as much is held, and
 * above 64 MiB V8 looks through its heap again and again, for a third of all CPU (16 MiB, 520 MB of files, 3 workers).
 */
export function processLimits(maxMemoryBytes: number): Limits {
  const rowCapBytes = Math.max(functionLimits.rowCapBytes, Math.floor(maxMemoryBytes / 3));
  return { chunkBytes: 8 * mib, chunkCapBytes: 24 * mib, rowCapBytes, fileBytesAtOnce: 4 * mib };
}
