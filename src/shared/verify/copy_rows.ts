/** What can be said of COPY text without knowing the table. Source: PostgreSQL documentation, COPY, "Text Format". */
import { HoldfastError } from "../errors.ts";

const newline = 0x0a;
const tab = 0x09;

/**
 * Rows in COPY text: newlines inside values are written `\n`, so each newline byte ends a row, also of a table without
 * columns. `object_damaged` when the last row has no end.
 */
export function countCopyRows(bytes: Uint8Array): number {
  let rows = 0;
  for (let at = bytes.indexOf(newline); at >= 0; at = bytes.indexOf(newline, at + 1)) rows++;
  if (bytes.byteLength > 0 && bytes[bytes.byteLength - 1] !== newline) {
    throw new HoldfastError("object_damaged", "the last row of a chunk is cut");
  }
  return rows;
}

/**
 * The same rows with only the fields at `keep` (indexes in rising order) of `fields` per row. Tabs inside values are
 * written `\t`, so each tab byte ends a field. `object_damaged` for a row with another number of fields.
 */
export function projectCopyFields(bytes: Uint8Array, fields: number, keep: readonly number[]): Uint8Array {
  const kept = new Set(keep);
  const out = new Uint8Array(bytes.byteLength);
  let length = 0;
  let field = 0;
  let start = 0;
  let first = true;
  for (let at = 0; at < bytes.byteLength; at++) {
    const byte = bytes[at];
    if (byte !== tab && byte !== newline) continue;
    if (kept.has(field)) {
      if (!first) out[length++] = tab;
      first = false;
      out.set(bytes.subarray(start, at), length);
      length += at - start;
    }
    field++;
    start = at + 1;
    if (byte === tab) continue;
    if (field !== fields) {
      throw new HoldfastError("object_damaged", `a row of a chunk has ${field} fields, ${fields} were written`);
    }
    out[length++] = newline;
    field = 0;
    first = true;
  }
  if (start !== bytes.byteLength) throw new HoldfastError("object_damaged", "the last row of a chunk is cut");
  return out.subarray(0, length);
}
