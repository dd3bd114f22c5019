import { frontDeps } from "../../../src/shared/http/front.ts";
import { handlePrivacy, privacyDoorDeps } from "../../../src/shared/http/handle_privacy.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const fetching = (input: string, init: RequestInit) => fetch(input, init);
const deps = privacyDoorDeps(
  frontDeps({
    environment: Deno.env.toObject(),
    waitUntil: (work) => EdgeRuntime.waitUntil(work),
    fetch: fetching,
    write: (line) => console.log(jsonLine(line)),
  }),
  fetching,
);

Deno.serve((request) => handlePrivacy(request, deps));
