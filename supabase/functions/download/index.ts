import { handleDownload } from "../../../src/shared/http/handle_download.ts";
import { downloadDoorDeps } from "../../../src/shared/http/download_deps.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = downloadDoorDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleDownload(request, deps));
