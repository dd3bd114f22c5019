/** Values on their way to the server, as text. */
import { HoldfastError } from "../../errors.ts";
import type { Value } from "../decode/messages.ts";

/** Text that is gathered before it is sent: at most three times as many bytes, and one row more. */
const chunkCharacters = 64 * 1024;

const copySpecial = /[\\\n\r\t]/;
const copyEscapes: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Rows in the text format of COPY. A row without columns is an empty line. Errors: `internal` for an `unchanged` value. */
export function* copyText(rows: Iterable<readonly Value[]>): Generator<Uint8Array> {
  const encoder = new TextEncoder();
  let text = "";
  for (const row of rows) {
    for (let at = 0; at < row.length; at++) {
      if (at > 0) text += "\t";
      text += copyField(row[at] ?? null);
    }
    text += "\n";
    if (text.length < chunkCharacters) continue;
    yield encoder.encode(text);
    text = "";
  }
  if (text !== "") yield encoder.encode(text);
}

function copyField(value: Value): string {
  if (value === null) return "\\N";
  if (typeof value !== "string") throw new HoldfastError("internal", "a value that did not travel cannot be inserted");
  return copySpecial.test(value) ? value.replace(/[\\\n\r\t]/g, (sign) => copyEscapes[sign] ?? sign) : value;
}

/** An array's text; `delimiter` is that of the element's type (a semicolon for box, a colon for PostGIS). */
export function arrayLiteral(items: readonly (string | null)[], delimiter: string): string {
  return `{${items.map((item) => item === null ? "NULL" : `"${arrayElement(item)}"`).join(delimiter)}}`;
}

function arrayElement(item: string): string {
  return /["\\]/.test(item) ? item.replace(/["\\]/g, "\\$&") : item;
}
