/** A type made anew while columns use it: the old one steps aside, columns are converted by their texts, then it goes. Pure. */
import { quoteIdent, splitQualified, unquoteIdent } from "../../../schema/quote.ts";
import type { TableText } from "./table_text.ts";

const mark = "_holdfast_aside";

/** Names are 63 bytes at most; one of 40 characters that are all of several bytes would be cut by the server. */
const maxNameLength = 40;

/** `schema.name` → the name that it has meanwhile, without the schema, quoted. */
export function asideName(type: string): string {
  const [, name] = splitQualified(type) ?? ["", type];
  return quoteIdent(unquoteIdent(name).slice(0, maxNameLength) + mark);
}

/** `schema.name` → `schema.<its name aside>`. */
export function asideType(type: string): string {
  const [schema] = splitQualified(type) ?? [""];
  return `${schema}.${asideName(type)}`;
}

/** One that a restore which was stopped has left. */
export function isAside(name: string): boolean {
  return name.endsWith(mark);
}

/** The table once `types` have stepped aside. */
export function withAsideTypes(table: TableText, types: readonly string[]): TableText {
  const aside = new Map(types.flatMap((type) => [[type, asideType(type)], [`${type}[]`, `${asideType(type)}[]`]]));
  return {
    ...table,
    columns: table.columns.map((column) => ({ ...column, type: aside.get(column.type) ?? column.type })),
  };
}
