/** One leg of a full backup in a function. */
import type { Budget } from "../backup/budget.ts";
import type { BackupDeps } from "../backup/deps.ts";
import { runLeg } from "../backup/leg.ts";
import { functionLimits } from "../backup/limits.ts";
import { asHoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { launchRun, secondsUntilClaimable } from "./call_queries.ts";

/** Longest wait at a leg's end for a task that was given back; what takes longer is the watchdog's. */
const longestWaitSeconds = 30;

/**
 * Works on the run until the budget is spent. As soon as a first chunk shows that there is work for others, further legs
 * are called beside this one. `connection` is this call's own; the leg opens its own for the work.
 */
export async function runBackupLeg(
  deps: BackupDeps,
  connection: Connection,
  run: string,
  options: { readonly worker: string; readonly budget: Budget },
): Promise<void> {
  let others: Promise<void> | undefined;
  const callOthers = () => {
    others ??= launchRun(connection, run).catch((error: unknown) => {
      // The leg's end calls them again; until then this one works alone.
      deps.log.warn("leg.alone", { run, code: asHoldfastError(error).code });
    });
  };
  let workLeft = false;
  try {
    const { worker, budget } = options;
    workLeft = (await runLeg(deps, { run, worker, budget, limits: functionLimits, progress: callOthers })).workLeft;
  } finally {
    await others;
  }
  if (!workLeft) return;
  const seconds = await secondsUntilClaimable(connection, run);
  if (seconds !== null) await deps.clock.sleep(Math.min(Math.max(seconds, 0), longestWaitSeconds) * 1000);
}
