/** A request's body that is read to its end also where whoever it is for has seen enough: nobody hears an answer while they send. */

/** So much is read ahead, and read away behind an answer. */
export const lingerBytes = 1024 * 1024;
/** An answer that comes before its request's body is through waits so long for the rest. */
const lingerMs = 1_000;

export interface Lingering {
  readonly readable: ReadableStream<Uint8Array>;
  /** To be awaited before the answer goes out: resolves once nothing more is read, or the time is over. */
  readonly through: () => Promise<void>;
}

export function lingering(source: ReadableStream<Uint8Array>): Lingering {
  const ahead = new ByteLengthQueuingStrategy({ highWaterMark: lingerBytes });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({}, undefined, ahead);
  const read = source.pipeTo(writable, { preventCancel: true })
    .catch(() => readAway(source))
    .catch(() => {}); // the caller is gone
  return { readable, through: () => atMost(lingerMs, read) };
}

async function readAway(source: ReadableStream<Uint8Array>): Promise<void> {
  let bytes = 0;
  for await (const piece of source) {
    bytes += piece.byteLength;
    if (bytes > lingerBytes) return;
  }
}

async function atMost(ms: number, work: Promise<void>): Promise<void> {
  let timer: number | undefined;
  await Promise.race([work, new Promise<void>((resolve) => timer = setTimeout(resolve, ms))]);
  clearTimeout(timer);
}
