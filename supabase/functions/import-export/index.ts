import { handleImportExport } from "../../../src/shared/http/handle_import_export.ts";
import { frontDeps } from "../../../src/shared/http/front.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = frontDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleImportExport(request, deps));
