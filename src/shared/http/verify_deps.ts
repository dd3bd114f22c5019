/** What the function `verify` works with: whole backups that are read again, and the daily and weekly checks. */
import { functionOpenLimits } from "../checks/deps.ts";
import { runChecksLeg } from "../checks/leg.ts";
import { prefixOfBackup } from "../identity/identity_queries.ts";
import { placeIn } from "../identity/settle_place.ts";
import { subjectOf } from "./call_queries.ts";
import type { VerifyDoorDeps } from "./door.ts";
import { projectStorage } from "./environment.ts";
import type { IsolateRuntime } from "./front.ts";
import { runVerifyLeg } from "./verify_leg.ts";
import { worksOf } from "./works.ts";

/** Plaintext of one leg of a verification: opening and unpacking it takes some 0.3 s of CPU. */
const verifyBudgetBytes = 48 * 1024 * 1024;
const verifyLeaseSeconds = 180;

/** Once an isolate. Throws nothing. */
export function verifyDoorDeps(runtime: IsolateRuntime): VerifyDoorDeps {
  const { environment } = runtime;
  const { front, outside, budget, open, storesDeps } = worksOf(runtime);
  return {
    ...front,
    legs: {
      verify: async (connection, run, worker) => {
        // Settings that are wrong are told before anything is asked.
        const { store, ...deps } = await open();
        const backup = await subjectOf(connection, run);
        if (backup === null) {
          const storage = projectStorage(environment);
          const project = storage === null ? null : { ...storage, fetch: outside.fetch };
          await runChecksLeg({ ...await storesDeps(connection), project }, run, {
            worker,
            budget: budget.next(),
            limits: functionOpenLimits,
          });
          return;
        }
        const placed = placeIn(store, await prefixOfBackup(connection, backup));
        await runVerifyLeg({ ...deps, store: placed }, connection, { run, backup }, {
          worker,
          budgetBytes: verifyBudgetBytes,
          leaseSeconds: verifyLeaseSeconds,
        });
      },
    },
  };
}
