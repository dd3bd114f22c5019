/** A file for psql: settings, then the rows as COPY text, unchanged. It makes no table and touches no sequence. */
import { quoteIdent, quoteQualified } from "../schema/quote.ts";
import type { NamedTable } from "./format.ts";

/** Those under which chunks were written and have to be read, docs/format.md. */
const settings = [
  "client_encoding = 'UTF8'",
  "standard_conforming_strings = on",
  "search_path = ''",
  "datestyle = 'ISO, YMD'",
  "intervalstyle = 'postgres'",
  "timezone = 'UTC'",
  "extra_float_digits = 3",
  "bytea_output = 'hex'",
  "lc_monetary = 'C'",
  "xmloption = 'content'",
  "xmlbinary = 'base64'",
  "row_security = off",
  "statement_timeout = 0",
];

/**
 * Up to the rows. Names stand quoted in the statement alone, never in a comment, which a line break in a name would end.
 * `\set` makes psql stop at the first failure; a name of another column list is the server's to refuse.
 */
export function sqlHeader(table: NamedTable, columns: readonly string[], about: SqlAbout): Uint8Array {
  const list = columns.length === 0 ? "" : ` (${columns.map(quoteIdent).join(", ")})`;
  return new TextEncoder().encode([
    `-- Rows of a table in Holdfast backup ${about.backup}, as they were at ${about.at}.`,
    "-- Load it with psql into a table of that name: psql --no-psqlrc --file this.sql",
    "\\set ON_ERROR_STOP on",
    ...settings.map((setting) => `set ${setting};`),
    `copy ${quoteQualified(table.schema, table.name)}${list} from stdin;`,
    "",
  ].join("\n"));
}

export const sqlEnd: Uint8Array = new TextEncoder().encode("\\.\n");

export interface SqlAbout {
  readonly backup: string;
  /** ISO 8601. */
  readonly at: string;
}
