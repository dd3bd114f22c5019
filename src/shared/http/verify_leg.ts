/** One leg of a verification in a function. */
import { asHoldfastError } from "../errors.ts";
import { claimTask, returnTask } from "../jobs/queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { openBackup } from "../verify/find_backup.ts";
import { type VerifyDeps, verifyLeg } from "../verify/run.ts";
import { recordVerifyLeg } from "./call_queries.ts";

export interface VerifyLegOptions {
  /** For people who look at the task's row. */
  readonly worker: string;
  /** Plaintext to take up in one leg. */
  readonly budgetBytes: number;
  /** Longer than a leg may last, so that nobody else takes its task meanwhile. */
  readonly leaseSeconds: number;
}

/** One object in memory at a time: with two, an isolate came to 206 MB, and 200 are planned for. */
const parallel = 1;

/** Claims the run's task, looks at some objects, records what was found. Nothing when somebody else has the task. */
export async function runVerifyLeg(
  deps: VerifyDeps,
  connection: Connection,
  { run, backup: wanted }: { readonly run: string; readonly backup: string },
  options: VerifyLegOptions,
): Promise<void> {
  const task = await claimTask(connection, run, options.worker, options.leaseSeconds);
  if (task === null) return;
  try {
    const backup = await openBackup(deps, wanted);
    const from = nextOf(task.detail);
    const leg = await verifyLeg(deps, backup, { from, budgetBytes: options.budgetBytes, parallel });
    await recordVerifyLeg(connection, task, leg);
  } catch (error) {
    await returnTask(connection, task, asHoldfastError(error));
  }
}

/** Where the earlier legs of this task have come to. */
function nextOf(detail: unknown): number {
  if (typeof detail !== "object" || detail === null || !("next" in detail)) return 0;
  return typeof detail.next === "number" && Number.isSafeInteger(detail.next) ? detail.next : 0;
}
