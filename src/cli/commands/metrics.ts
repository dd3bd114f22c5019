import { readMetrics, readSamples } from "../../shared/jobs/monitor_queries.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import type { Outcome } from "../output.ts";

/** The text format of Prometheus; the document: `[{name, labels, value}]`. */
export async function run(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:metrics");
  try {
    const text = await readMetrics(session);
    return { exit: 0, document: await readSamples(session), lines: text.trimEnd().split("\n") };
  } finally {
    await session.close();
  }
}
