import { handleRestore } from "../../../src/shared/http/handle_restore.ts";
import { restoreDoorDeps } from "../../../src/shared/http/restore_deps.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = restoreDoorDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleRestore(request, deps));
