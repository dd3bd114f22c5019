import { HoldfastError } from "../../shared/errors.ts";
import { findPastTable, layTableBeside } from "../../shared/rows/beside.ts";
import { splitQualified, unquoteIdent } from "../../shared/schema/quote.ts";
import type { TableName } from "../../shared/restore/project_rows.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { restoreRows } from "../restore_rows.ts";

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

/** Errors: `usage` for a name without a schema, since no search path is guessed. */
export function tableOf(text: string): TableName {
  const parts = splitQualified(text.trim());
  if (parts === null) {
    throw new HoldfastError("usage", `${text} is no table with its schema`, {
      hint: 'Write schema.table, such as public.notes or "App"."Notes".',
    });
  }
  const [schema, name] = parts.map((part) => part.startsWith('"') ? unquoteIdent(part) : part.toLowerCase());
  return { schema: schema ?? "", name: name ?? "" };
}
