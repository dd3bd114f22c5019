/** A table as people name it. */
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";

const part = `"(?:[^"]|"")+"|[a-z_\\u0080-\\uffff][a-z0-9_$\\u0080-\\uffff]*`;
const pattern = new RegExp(`^(${part})\\.(${part})$`);

/** From `schema.name`, quoted where needed. Errors: `usage` for anything else. */
export function readTableName(text: string): TableName {
  const found = pattern.exec(text);
  const [, schema, name] = found ?? [];
  if (schema === undefined || name === undefined) {
    throw new HoldfastError("usage", "a table is not named as schema.name", {
      hint: "Names with capitals or signs stand in double quotes.",
    });
  }
  return { schema: bare(schema), name: bare(name) };
}

function bare(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}
