/** A table as people name it. */
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { splitQualified, unquoteIdent } from "../../schema/quote.ts";

/** From `schema.name`, quoted where needed. Errors: `usage` for anything else. */
export function readTableName(text: string): TableName {
  const parts = splitQualified(text);
  if (parts === null || parts.some((part) => !part.startsWith('"') && part !== part.toLowerCase())) {
    throw new HoldfastError("usage", "a table is not named as schema.name", {
      hint: "Names with capitals or signs stand in double quotes.",
    });
  }
  const [schema, name] = parts;
  return { schema: unquoteIdent(schema), name: unquoteIdent(name) };
}
