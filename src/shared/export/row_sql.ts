/** SQL that writes a row as JSON: by Postgres, so that no digit, no JSON null and no bound of an array is lost. Pure. */
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import type { ExportedColumn, ExportedTable } from "./export_plan.ts";

/**
 * What JSON alone does not say of a value. `json null`: JSON's null, where null stands for SQL's. `text`: the value is what the
 * server writes of it (an array whose subscripts do not begin at 1). `redacted`: null stands for what is of others.
 */
export const marks = ["json null", "text", "redacted"] as const;

/** Text of one row `t`: `{"row": {column: value}, "marks": {column: mark}}`, the marks only where there are any. `user`: SQL of a literal. */
export function rowSql({ columns }: Pick<ExportedTable, "columns">, user: string): string {
  const values = columns.map((column) => `${nameOf(column)} || ${valueSql(column, user)}`);
  const marked = columns.flatMap((column) => marksSql(column, user));
  const list = (items: readonly string[]) =>
    `pg_catalog.array_to_string(array[${items.join(", ")}]::pg_catalog.text[], ',')`;
  const end = marked.length === 0
    ? "'}}'"
    : `'}' || coalesce(',"marks":{' || nullif(${list(marked)}, '') || '}', '') || '}'`;
  return `'{"row":{' || ${list(values)} || ${end}`;
}

const nameOf = ({ name }: ExportedColumn): string => quoteLiteral(`${JSON.stringify(name)}:`);

function valueSql(column: ExportedColumn, user: string): string {
  const value = `t.${quoteIdent(column.name)}`;
  const written = (what: string) => `pg_catalog.to_json(${what})::pg_catalog.text`;
  const asText = written(`${value}::pg_catalog.text`);
  const plain = column.form === "text"
    ? asText
    : column.form === "array"
    ? `case when ${isOdd(value)} then ${asText} else ${written(value)} end`
    : written(value);
  const shown = `coalesce(${plain}, 'null')`;
  const others = isOfOthers(column, user);
  return others === null ? shown : `case when ${others} then 'null' else ${shown} end`;
}

function marksSql(column: ExportedColumn, user: string): string[] {
  const value = `t.${quoteIdent(column.name)}`;
  const others = isOfOthers(column, user);
  const when = (condition: string, mark: typeof marks[number]) =>
    `when ${condition} then ${nameOf(column)} || '"${mark}"'`;
  const cases = [
    ...(others === null ? [] : [when(others, "redacted")]),
    ...(column.form === "json"
      ? [when(`pg_catalog.btrim(${value}::pg_catalog.text, E' \\n\\r\\t') = 'null'`, "json null")]
      : []),
    ...(column.form === "array" ? [when(isOdd(value), "text")] : []),
  ];
  return cases.length === 0 ? [] : [`case ${cases.join(" ")} end`];
}

/** An array with other subscripts than those that JSON has. */
const isOdd = (value: string): string => `pg_catalog.array_dims(${value}) !~ '^(\\[1:[0-9]+\\])+$'`;

/** Null: it holds nothing of others. */
function isOfOthers({ name, ofOthers }: ExportedColumn, user: string): string | null {
  const value = `t.${quoteIdent(name)}`;
  switch (ofOthers) {
    case "never":
      return null;
    case "always":
      return `${value} is not null`;
    case "unless theirs":
      return `${value}::pg_catalog.text <> ${user}`;
    case "if a user's":
      return `${value} <> ${user}::pg_catalog.uuid and exists (select from auth.users as u where u.id = ${value})`;
  }
}
