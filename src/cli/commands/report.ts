import { openSession } from "../../shared/backup/session.ts";
import { reportOn } from "../../shared/privacy/person_report.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { sourceDatabase } from "../open.ts";
import type { Outcome } from "../output.ts";
import { readMap } from "../read_map.ts";
import { reportLines } from "../report_shown.ts";
import { userNamed } from "../user_named.ts";

/** The document is `Report` (src/shared/privacy/report_format.ts) with `user`. Exit 0, also for somebody who was erased. */
export async function run(context: Context): Promise<Outcome> {
  const [who = ""] = context.words;
  const map = await readMap(context);
  const database = await sourceDatabase(context);
  const session = await installedSession(context, "holdfast:report");
  try {
    const user = await userNamed(session, who);
    const counting = () => openSession(database, "holdfast:report");
    const report = await reportOn({ connection: session, counting, map, atMostMs: 0 }, user);
    return { exit: 0, document: { user, ...report }, lines: reportLines(user, report) };
  } finally {
    await session.close();
  }
}
