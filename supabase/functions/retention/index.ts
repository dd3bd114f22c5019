import { handleRetention } from "../../../src/shared/http/handle_retention.ts";
import { isolateDeps } from "../../../src/shared/http/isolate.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = isolateDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleRetention(request, deps));
