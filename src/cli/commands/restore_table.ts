import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { restoreRows } from "../restore_rows.ts";
import { tableOf } from "../table_names.ts";

/** The document: that of `restoreRows`. */
export async function run(context: Context): Promise<Outcome> {
  const [text = "", wanted] = context.words;
  return await restoreRows(context, wanted, { asked: { scope: "table", table: tableOf(text) } });
}
