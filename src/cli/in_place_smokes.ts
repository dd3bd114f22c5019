/** Queries of --smoke for the day after a restore in place, in which the watchdog has them run each hour. */
import { keepSmokes } from "../shared/jobs/smoke_queries.ts";
import { type CheckResult, reasonOf } from "../shared/restore/in_place/checks/check_result.ts";
import { smokeStatements } from "../shared/restore/in_place/checks/smoke_statements.ts";
import type { RowsWork } from "../shared/rows/work.ts";
import type { Context } from "./context.ts";
import { readSettingFile } from "./settings.ts";

/** Before the restore is finished. Says what becomes of them; that they cannot be kept is said, and is no error. */
export async function keepSmokesFor(
  context: Pick<Context, "settings" | "note">,
  { lease, connection }: Pick<RowsWork, "lease" | "connection">,
  checks: readonly CheckResult[],
): Promise<void> {
  const file = context.settings.get("smoke");
  if (file === undefined || lease === null) return;
  try {
    const wereGood = checks.some(({ check, ok }) => check === "smoke queries" && ok === true);
    const statements = smokeStatements(await readSettingFile(file, "smoke"));
    const { hourly, leftOut } = await keepSmokes(connection, lease.id, statements, wereGood);
    if (hourly > 0) {
      context.note(`smoke queries: ${hourly} run each hour of the next day; see public.backup_restore_watches`);
    }
    if (leftOut > 0) context.note(`notice: smoke queries that do not run each hour of the next day: ${leftOut}`);
  } catch (error) {
    context.note(`warning: the smoke queries do not run each hour of the next day: ${reasonOf(error)}`);
  }
}
