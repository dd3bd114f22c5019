/**
 * What `COPY … TO … (FORMAT csv, HEADER)` writes, byte for byte. Quoted are: the empty string, since NULL is nothing at all;
 * what holds a comma, a quote or an end of line; and `\.` where it would stand alone in its line. Source: PostgreSQL 15 and
 * 17, src/backend/commands/copyto.c, CopyAttributeOutCSV. Later versions quote `\.` nowhere, and read both.
 */
import { backslash, meant, quote, type RowWriter } from "./copy_text.ts";
import { Sink } from "./sink.ts";

const comma = 0x2c;
const dot = 0x2e;

/** The first line, with its end. */
export function csvHeader(columns: readonly string[]): Uint8Array {
  const written = columns.map((name) => {
    const isQuoted = name === "" || /[",\r\n]/.test(name) || (columns.length === 1 && name === "\\.");
    return isQuoted ? `"${name.replaceAll('"', '""')}"` : name;
  });
  return new TextEncoder().encode(`${written.join(",")}\n`);
}

export function csvWriter(fields: number): RowWriter {
  return {
    before: (sink, index) => {
      sink.room(1);
      if (index > 0) sink.bytes[sink.length++] = comma;
    },
    null: () => {},
    value: (sink, text, from, to) => writeValue(sink, text, from, to, fields === 1),
    end: (sink) => {
      sink.room(1);
      sink.bytes[sink.length++] = 0x0a;
    },
  };
}

function writeValue(sink: Sink, text: Uint8Array, from: number, to: number, isAlone: boolean): void {
  sink.room(2 * (to - from) + 2);
  if (!isQuoted(text, from, to, isAlone)) return writeUnescaped(sink, text, from, to, false);
  sink.bytes[sink.length++] = quote;
  writeUnescaped(sink, text, from, to, true);
  sink.bytes[sink.length++] = quote;
}

function isQuoted(text: Uint8Array, from: number, to: number, isAlone: boolean): boolean {
  if (from === to) return true;
  for (let at = from; at < to; at++) {
    const byte = text[at];
    if (byte === comma || byte === quote) return true;
    if (byte !== backslash) continue;
    const sign = text[++at];
    // \n and \r
    if (sign === 0x6e || sign === 0x72) return true;
  }
  return isAlone && to - from === 3 && text[from] === backslash && text[from + 1] === backslash &&
    text[from + 2] === dot;
}

function writeUnescaped(sink: Sink, text: Uint8Array, from: number, to: number, doubled: boolean): void {
  const { bytes } = sink;
  let length = sink.length;
  for (let at = from; at < to; at++) {
    const byte = text[at] ?? 0;
    if (byte === backslash) bytes[length++] = meant(text[++at]);
    else {
      bytes[length++] = byte;
      if (doubled && byte === quote) bytes[length++] = quote;
    }
  }
  sink.length = length;
}
