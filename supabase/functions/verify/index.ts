import { handleVerify } from "../../../src/shared/http/handle_verify.ts";
import { verifyDoorDeps } from "../../../src/shared/http/verify_deps.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = verifyDoorDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleVerify(request, deps));
