/** The safety backup of a restore in legs: ordered once, waited for over as many legs as it takes. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import type { RowsWork } from "./work.ts";

/** A leg looks for so long, then the next one does. */
const watchMs = 45_000;
const lookMs = 1_000;

/**
 * True once a full backup that began after the restore was ordered has ended well; its run stands in the restore's record. False:
 * the restore rests until the next leg. Errors: `run_state` where the backup failed, with nothing changed; `cancelled`,
 * `lease_lost`.
 */
export async function safetyIsTaken(clock: Clock, work: RowsWork): Promise<boolean> {
  const until = clock.monotonicMs() + watchMs;
  for (;;) {
    await work.keepAlive();
    const { run, status, told } = await work.safety();
    if (status === "succeeded" || status === "quarantined") return true;
    if (status === "failed" || status === "cancelled") {
      throw new HoldfastError(
        "run_state",
        `nothing was changed, as there is no safety backup: run ${run} is ${status}${
          told === null ? "" : ` (${told})`
        }`,
        {
          hint:
            "Mend what keeps backups from ending well, then order it again; or name the database in skipSafetyBackup.",
        },
      );
    }
    if (clock.monotonicMs() >= until) {
      await work.rest();
      return false;
    }
    await clock.sleep(lookMs);
  }
}
