import { handleRetention } from "../../../src/shared/http/handle_retention.ts";
import { retentionDoorDeps } from "../../../src/shared/http/retention_deps.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = retentionDoorDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleRetention(request, deps));
