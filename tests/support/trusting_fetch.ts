import { Buffer } from "node:buffer";
import { request } from "node:https";
import type { Fetch } from "../../src/shared/store/http_call.ts";

/** `fetch` that trusts one authority besides the runtime's own: Node's own takes none. Redirects are answers. */
export function trustingFetch(authority: string): Fetch {
  return (input, { method, headers, body, signal }) =>
    new Promise((resolve, reject) => {
      const all = Object.fromEntries(new Headers(headers).entries());
      const options = { method, headers: all, ca: authority, ...(signal == null ? {} : { signal }) };
      const sent = request(input, options, (answer) => {
        const parts: Uint8Array[] = [];
        answer.on("data", (part: Uint8Array) => parts.push(part));
        answer.on("error", reject);
        answer.on("end", () => resolve(new Response(Buffer.concat(parts), { status: answer.statusCode ?? 0 })));
      });
      sent.on("error", reject);
      sent.end(typeof body === "string" ? body : undefined);
    });
}
