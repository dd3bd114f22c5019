import { HoldfastError } from "../errors.ts";

/** Requests are a few names and ids; anything near this bound is a mistake or an attack. */
export const maxBodyBytes = 16 * 1024;
/** From the first look to the last byte. A request that trickles in holds a place of the isolate all the while. */
export const bodyMs = 10_000;

/**
 * The body's bytes. `payload_too_large` as soon as the bound is passed: what follows is not read. `payload_late` for one that is
 * not there as a whole within `withinMs`.
 */
export async function readBody(request: Request, withinMs = bodyMs): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0);
  const reader = request.body.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), withinMs);
  });
  try {
    return await readAll(reader, late);
  } catch (error) {
    // Whoever sends it may be gone; nobody waits for that.
    reader.cancel().catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function readAll(reader: ReadableStreamDefaultReader<Uint8Array>, late: Promise<"late">): Promise<Uint8Array> {
  const body = new Uint8Array(maxBodyBytes);
  let length = 0;
  for (;;) {
    const part = await Promise.race([reader.read(), late]);
    if (part === "late") throw new HoldfastError("payload_late", "the request did not come as a whole in time");
    if (part.done) return body.slice(0, length);
    if (length + part.value.byteLength > maxBodyBytes) {
      throw new HoldfastError("payload_too_large", `the request is larger than ${maxBodyBytes} bytes`);
    }
    body.set(part.value, length);
    length += part.value.byteLength;
  }
}
