/** The good end of a restore of rows, as it is recorded. */
import type { RestoreTable } from "../shared/jobs/restore_row.ts";
import type { Context } from "./context.ts";
import type { Restoring } from "./restore_rows.ts";
import { recordDone } from "./source_record.ts";

/** Its record's end; of rows into another database than that of --db-url it is told there as well. */
export async function finishRows(
  context: Context,
  { asked, mode, source, work, target, isOther, isMoment }: Restoring,
  tables: readonly RestoreTable[],
  measuredMs: number,
): Promise<void> {
  const measuredSeconds = measuredMs / 1000;
  await work.finish(tables, measuredSeconds);
  if (!isOther) return;
  const request = {
    scope: asked.scope,
    mode: mode ?? "beside",
    sourceBackup: source.backupId,
    pointAt: isMoment ? source.at : null,
    userId: asked.scope === "user" ? asked.choice.user : null,
    targetLabel: target.label,
  } as const;
  await recordDone(context, request, { tables, measuredSeconds });
}
