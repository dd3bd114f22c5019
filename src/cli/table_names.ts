/** Names of tables as people type them, made into the form that the change stream knows them by. */
import { HoldfastError } from "../shared/errors.ts";
import type { TableName } from "../shared/restore/project_rows.ts";
import { quoteQualified, splitQualified, unquoteIdent } from "../shared/schema/quote.ts";
import type { OptionName } from "./options.ts";

/**
 * `app.notes,"App"."Big table"` → each as `schema.name`, quoted where needed, once. A name without quotes is folded to
 * small letters, as the server does. Errors: `usage` for one without a schema, since no search path is guessed.
 */
export function parseTableNames(text: string | undefined, option: OptionName): string[] {
  if (text === undefined) return [];
  const names = text.match(/(?:[^",]|"(?:[^"]|"")*"|")+/g)?.map((name) => name.trim()) ?? [];
  const tables = names.filter((name) => name !== "").map((name) => {
    const parts = splitQualified(name);
    if (parts === null) {
      throw new HoldfastError("usage", `--${option} ${name} is no table with its schema`, {
        hint: 'Write schema.table, such as public.notes or "App"."Notes".',
      });
    }
    return quoteQualified(...parts.map(folded));
  });
  if (tables.length === 0) throw new HoldfastError("usage", `--${option} names no table`);
  return [...new Set(tables)];
}

function folded(name: string): string {
  return name.startsWith('"') ? unquoteIdent(name) : name.toLowerCase();
}

/** Errors: `usage` for a name without a schema, since no search path is guessed. */
export function tableOf(text: string): TableName {
  const parts = splitQualified(text.trim());
  if (parts === null) {
    throw new HoldfastError("usage", `${text} is no table with its schema`, {
      hint: 'Write schema.table, such as public.notes or "App"."Notes".',
    });
  }
  const [schema, name] = parts.map(folded);
  return { schema: schema ?? "", name: name ?? "" };
}
