import { HoldfastError } from "../errors.ts";

/** Requests are a few names and ids; anything near this bound is a mistake or an attack. */
export const maxBodyBytes = 16 * 1024;

/** The body's bytes. `payload_too_large` as soon as the bound is passed: what follows is not read. */
export async function readBody(request: Request): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0);
  const reader = request.body.getReader();
  const body = new Uint8Array(maxBodyBytes);
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return body.slice(0, length);
    if (length + value.byteLength > maxBodyBytes) {
      await reader.cancel();
      throw new HoldfastError("payload_too_large", `the request is larger than ${maxBodyBytes} bytes`);
    }
    body.set(value, length);
    length += value.byteLength;
  }
}
