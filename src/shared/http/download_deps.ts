/** What the function `download` works with: a bucket of its own in the project's Storage. */
import { downloadBucket } from "../download/bucket.ts";
import { runDownloadLeg } from "../download/leg.ts";
import type { DownloadDoorDeps } from "./door.ts";
import { optional, required, storageKey, variables } from "./environment.ts";
import type { IsolateRuntime } from "./front.ts";
import { worksOf } from "./works.ts";

/** Once an isolate. Throws nothing. */
export function downloadDoorDeps(runtime: IsolateRuntime): DownloadDoorDeps {
  const { environment } = runtime;
  const { front, outside, budget, openFor, requireStored } = worksOf(runtime);
  const bucket = () =>
    downloadBucket({
      projectUrl: required(environment, variables.projectUrl),
      serviceKey: storageKey(environment),
      publicUrl: optional(environment, variables.publicUrl),
    }, outside);
  return {
    ...front,
    requireStored,
    downloads: {
      bucket,
      leg: async (connection, download, worker) => {
        const open = (backup: string) => openFor(connection, backup);
        await runDownloadLeg({ open, bucket, log: front.log }, connection, download, { worker, budget: budget.next() });
      },
    },
  };
}
