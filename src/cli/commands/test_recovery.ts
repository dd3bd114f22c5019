import type { Context } from "../context.ts";
import { drillOutcome } from "../drill_outcome.ts";
import { installedSession } from "../installed.ts";
import type { Outcome } from "../output.ts";
import { runDrill } from "../run_drill.ts";

/** The drill `recovery` of the calendar. The document: that of `drillOutcome`. */
export async function run(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:drills");
  try {
    return drillOutcome(await runDrill(context, session, "recovery"));
  } finally {
    await session.close();
  }
}
