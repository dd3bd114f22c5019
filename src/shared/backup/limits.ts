/** How much of anything one worker holds or does. A function's isolate has 256 MB and 2 s of CPU, a process has what it is given. */
export interface Limits {
  /** Text that a chunk aims at. */
  readonly chunkBytes: number;
  /** Text at which a chunk is cut and its range split. */
  readonly chunkCapBytes: number;
  /** Text of a single row at which it is `row_too_large`. */
  readonly rowCapBytes: number;
}

const mib = 1024 * 1024;

/** 165 MiB resident after one chunk of 14 MiB, measured on Deno 2.1.4; 24 MiB of text and its compressed copy stay under 200. */
export const functionLimits: Limits = { chunkBytes: 8 * mib, chunkCapBytes: 24 * mib, rowCapBytes: 24 * mib };

/** `maxMemoryBytes` is what one worker may hold; a row's text is held twice (as read and as put together). */
export function processLimits(maxMemoryBytes: number): Limits {
  const rowCapBytes = Math.max(functionLimits.rowCapBytes, Math.floor(maxMemoryBytes / 3));
  return { ...functionLimits, rowCapBytes };
}
