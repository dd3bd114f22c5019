/** Rows that stay beside the live ones, for people to look at. */
import { HoldfastError } from "../shared/errors.ts";
import { listKeys } from "../shared/rows/apply/row_keys.ts";
import type { Beside } from "../shared/rows/beside/beside.ts";
import type { RowsWork } from "../shared/rows/work.ts";
import { quoteQualified } from "../shared/schema/quote.ts";
import type { Context } from "./context.ts";
import type { Outcome } from "./output.ts";
import type { Restoring } from "./restore_rows.ts";
import { finishRows } from "./rows_end.ts";
import { rowsText } from "./rows_shown.ts";

/** The restore's end, or with --dry-run that of its rows. */
export async function leaveBeside(
  context: Context,
  restoring: Restoring,
  beside: Beside,
  warnings: readonly string[],
  loadMs: number,
): Promise<Outcome> {
  const { work, source, subject } = restoring;
  const dryRun = context.settings.has("dry-run");
  const shown = await besideLines(work, beside, dryRun);
  if (dryRun) {
    await work.fail(new HoldfastError("cancelled", "only the plan was wanted"));
  } else {
    const tables = beside.sides.map(({ side, rows }) => ({ schema: side.past.schema, name: side.past.name, rows }));
    await finishRows(context, restoring, tables, loadMs);
  }
  for (const warning of warnings) context.note(`warning: ${warning}`);
  return {
    exit: 0,
    document: {
      id: source.backupId,
      ok: true,
      ...(dryRun ? { dryRun } : {}),
      restore: work.lease?.id ?? null,
      mode: "beside",
      inserted: 0,
      updated: 0,
      deleted: 0,
      warnings,
      at: source.at,
      sideSchema: work.schema,
      database: restoring.target.label,
      tables: beside.sides.map(({ side, rows }) => ({
        table: quoteQualified(side.past.schema, side.past.name),
        beside: side.sql,
        rows,
      })),
    },
    lines: [
      dryRun
        ? `${subject} as of ${source.at} would be laid into a side schema:`
        : `${subject} as of ${source.at}, in ${restoring.target.label}:`,
      ...shown,
      ...(dryRun ? [] : [
        "Nothing else was changed.",
        ...(beside.pairs.length === 0 ? [] : ["With --apply missing, merge or replace the rows go into place."]),
        ...(work.lease === null
          ? []
          : ["The schema goes after 7 days, unless the setting side_schema_seconds says otherwise."]),
      ]),
    ],
  };
}

/** Tables of so few rows are shown with the keys of their rows. */
const mostKeysShown = 20;

async function besideLines(work: RowsWork, beside: Beside, dryRun: boolean): Promise<string[]> {
  const lines: string[] = [];
  for (const { side, rows } of beside.sides) {
    lines.push(`  ${side.sql}: ${rowsText(rows)}`);
    if (dryRun || rows > mostKeysShown) continue;
    const keys = await listKeys(work.connection, side, mostKeysShown);
    lines.push(...keys.map((key) => `    ${Object.entries(key).map(([name, value]) => `${name}=${value}`).join(" ")}`));
  }
  return lines;
}
