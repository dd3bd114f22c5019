import { frontDeps } from "../../../src/shared/http/front.ts";
import { drillDoorDeps, handleDrill } from "../../../src/shared/http/handle_drill.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const fetching = (input: string, init: RequestInit) => fetch(input, init);
const deps = drillDoorDeps(
  frontDeps({
    environment: Deno.env.toObject(),
    waitUntil: (work) => EdgeRuntime.waitUntil(work),
    fetch: fetching,
    write: (line) => console.log(jsonLine(line)),
  }),
  fetching,
);

Deno.serve((request) => handleDrill(request, deps));
