/** Takes off a table what uses an object that must be made anew; its difference to what it was puts it on again. Pure. */
import { mentionsQualified } from "./sql_text.ts";
import type { TableText } from "./table_text.ts";

/** Defaults, generated columns and checks in which one of `names` (`schema.name`) stands go; types of columns stay. `family`: with the tables that inherit. */
export function loosenTable(
  table: TableText,
  names: readonly string[],
  family: boolean,
): { table: TableText; statements: string[] } {
  const uses = (text: string | null) => text !== null && names.some((name) => mentionsQualified(text, name));
  const statements: string[] = [];
  for (const check of table.checks) {
    if (uses(check.text)) statements.push(`alter table ${table.name} drop constraint if exists ${check.name}`);
  }
  for (const column of table.columns) {
    if (uses(column.generated)) statements.push(`alter table ${table.name} drop column if exists ${column.name}`);
    else if (uses(column.default)) {
      statements.push(`alter table ${family ? "" : "only "}${table.name} alter column ${column.name} drop default`);
    }
  }
  return {
    statements,
    table: {
      ...table,
      checks: table.checks.filter((check) => !uses(check.text)),
      columns: table.columns.filter((column) => !uses(column.generated)).map((column) =>
        uses(column.default) ? { ...column, default: null } : column
      ),
    },
  };
}
