/** What the function `retention` works with: both stores, and the plan of what goes. */
import { planDocument } from "../retention/document.ts";
import { lookAhead, runPruneLeg } from "../retention/leg.ts";
import type { RetentionDoorDeps } from "./door.ts";
import type { IsolateRuntime } from "./front.ts";
import { worksOf } from "./works.ts";

/** Once an isolate. Throws nothing. */
export function retentionDoorDeps(runtime: IsolateRuntime): RetentionDoorDeps {
  const { front, budget, storesDeps } = worksOf(runtime);
  return {
    ...front,
    legs: {
      prune: async (connection, run, worker) => {
        await runPruneLeg(await storesDeps(connection), run, { worker, budget: budget.next() });
      },
    },
    planRetention: async (connection) => planDocument((await lookAhead(await storesDeps(connection))).plan, true),
  };
}
