/** Is it a cron expression? By a library, before the database is asked, which has the last word: it knows what pg_cron takes. */
import { Cron } from "croner";
import { HoldfastError } from "../shared/errors.ts";

/** Errors: `cron_refused`, with what is wrong with it. */
export function checkCron(text: string): void {
  try {
    // Without a function nothing is ever started. `5/10` is what pg_cron takes as well.
    new Cron(text, { mode: "5-part", timezone: "UTC", sloppyRanges: true });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.replace(/^CronPattern: /, "") : "it is not understood";
    throw new HoldfastError("cron_refused", `${JSON.stringify(text)}: ${why}`, { cause });
  }
}
