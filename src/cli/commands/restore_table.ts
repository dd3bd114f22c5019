import { findPastTable, layTableBeside } from "../../shared/rows/beside/beside.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { restoreRows } from "../restore_rows.ts";
import { tableOf } from "../table_names.ts";

/** The document: that of `restoreRows`. */
export async function run(context: Context): Promise<Outcome> {
  const [text = "", wanted] = context.words;
  const table = tableOf(text);
  return await restoreRows(context, wanted, {
    scope: "table",
    subject: text,
    userId: null,
    details: [],
    tables: [table],
    lay: (deps, comment) => layTableBeside(deps, findPastTable(deps.source, table), comment),
    warnings: () => [],
  });
}
