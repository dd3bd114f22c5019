/**
 * A JSON object a line, a line a row. Each value is the text that PostgreSQL writes for it, as a JSON string, so that no
 * digit, bound or zone is lost to whoever parses numbers; SQL's NULL is `null`, and the JSON value null of a column of type
 * json or jsonb is the string `"null"`.
 */
import { backslash, meant, quote, type RowWriter } from "./copy_text.ts";
import type { Sink } from "./sink.ts";

const utf8 = new TextEncoder();
const nothing = utf8.encode("null");
const hexDigits = utf8.encode("0123456789abcdef");

export function jsonWriter(columns: readonly string[]): RowWriter {
  const names = columns.map((name, index) => utf8.encode(`${index === 0 ? "{" : ","}${JSON.stringify(name)}:`));
  const end = utf8.encode(columns.length === 0 ? "{}\n" : "}\n");
  const write = (sink: Sink, bytes: Uint8Array | undefined) => {
    if (bytes === undefined) return;
    sink.room(bytes.byteLength);
    sink.copy(bytes, 0, bytes.byteLength);
  };
  return {
    before: (sink, index) => write(sink, names[index]),
    null: (sink) => write(sink, nothing),
    value: writeValue,
    end: (sink) => write(sink, end),
  };
}

function writeValue(sink: Sink, text: Uint8Array, from: number, to: number): void {
  sink.room(6 * (to - from) + 2);
  const { bytes } = sink;
  let length = sink.length;
  bytes[length++] = quote;
  for (let at = from; at < to; at++) {
    const byte = text[at] ?? 0;
    if (byte === backslash) {
      const sign = text[++at];
      // All of COPY's escapes but \v are JSON's as well, and mean the same.
      if (meant(sign) === 0x0b) length = writeControl(bytes, length, 0x0b);
      else {
        bytes[length++] = backslash;
        bytes[length++] = sign ?? 0;
      }
    } else if (byte === quote) {
      bytes[length++] = backslash;
      bytes[length++] = quote;
    } else if (byte < 0x20) length = writeControl(bytes, length, byte);
    else bytes[length++] = byte;
  }
  bytes[length++] = quote;
  sink.length = length;
}

/** Returns the length behind it. */
function writeControl(bytes: Uint8Array, length: number, byte: number): number {
  bytes[length++] = backslash;
  bytes[length++] = 0x75;
  bytes[length++] = 0x30;
  bytes[length++] = 0x30;
  bytes[length++] = hexDigits[byte >> 4] ?? 0;
  bytes[length++] = hexDigits[byte & 15] ?? 0;
  return length;
}
