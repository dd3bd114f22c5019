/** Which table, and which of its rows, a drill takes: the one that was not tried for longest. */
import type { Connection } from "../postgres/connection.ts";
import type { ContentTable } from "../restore/contents.ts";
import type { Condition } from "../rows/beside/conditions.ts";
import type { TableShape } from "../schema/capture_format.ts";
import { quoteQualified } from "../schema/quote.ts";
import { HoldfastError } from "../errors.ts";

/** Of the user's, with rows in the backup. */
export interface Candidate {
  readonly shape: TableShape;
  readonly content: ContentTable;
}

/** Never tried ones first, then the one that was tried longest ago; by name where that is the same. Pure. */
export function inTurn(candidates: readonly Candidate[], tried: ReadonlyMap<string, string>): Candidate[] {
  const key = ({ shape }: Candidate) => {
    const name = quoteQualified(shape.schema, shape.name);
    return `${tried.get(name) ?? ""} ${name}`;
  };
  return [...candidates].sort((a, b) => key(a) < key(b) ? -1 : 1);
}

/** Names of the primary key's columns of a live table; empty: there is none, or no such table. */
export async function keyOf(connection: Connection, schema: string, name: string): Promise<string[]> {
  const rows = await connection.query(
    `select a.attname as name
       from pg_catalog.pg_index as i
       join pg_catalog.pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
      where i.indrelid = pg_catalog.to_regclass($1) and i.indisprimary
      order by pg_catalog.array_position(i.indkey::int2[], a.attnum)`,
    [quoteQualified(schema, name)],
  );
  return rows.map((row) => row["name"] ?? "");
}

const newline = 0x0a;

/** The row at `index` of whole rows in COPY text, with its newline. Errors: `object_damaged` where there are fewer. Pure. */
export function rowAt(text: Uint8Array, index: number): Uint8Array {
  let from = 0;
  for (let left = index; left > 0; left--) {
    from = text.indexOf(newline, from) + 1;
    if (from === 0) throw new HoldfastError("object_damaged", "a chunk holds fewer rows than the manifest says");
  }
  const end = text.indexOf(newline, from);
  if (end < 0) throw new HoldfastError("object_damaged", "a chunk holds fewer rows than the manifest says");
  return text.slice(from, end + 1);
}

/** The fields of one row of COPY text: the server's own text of each value; null for SQL NULL. Pure. */
export function fieldsOf(row: Uint8Array): (string | null)[] {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(row).replace(/\n$/, "");
  return text.split("\t").map((field) =>
    field === "\\N" ? null : field.replace(/\\(.)/gs, (_, sign: string) => signs[sign] ?? sign)
  );
}

/** PostgreSQL documentation, COPY, "Text Format": the escapes that a server writes. */
const signs: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

/** The conditions that name the row by its key. Null where a part of the key has no value. Pure. */
export function conditionsOf(columns: readonly string[], row: Uint8Array, key: readonly string[]): Condition[] | null {
  const fields = fieldsOf(row);
  const conditions: Condition[] = [];
  for (const column of key) {
    const value = fields[columns.indexOf(column)];
    if (value == null) return null;
    conditions.push({ column, value });
  }
  return conditions.length === 0 ? null : conditions;
}
