/** COPY text without the rows of erased people. docs/format.md, "Chunks: COPY text". Pure but for what it is given. */
import { joined } from "../memory.ts";
import type { ReadColumn } from "./judge_row.ts";
import type { TableRewriter } from "./table_rewriter.ts";

const tab = 0x09;
const newline = 0x0a;
const backslash = 0x5c;

/** A stretch of the old text that stands in the new one as it was. */
export interface Kept {
  readonly from: number;
  /** One past its last byte. */
  readonly to: number;
  /** Where it begins in the new one. */
  readonly at: number;
}

export interface RewrittenText {
  /** Null: nothing of it is to be changed. */
  readonly bytes: Uint8Array | null;
  /** In order. */
  readonly kept: readonly Kept[];
  /** Rows that are left. */
  readonly rows: number;
  readonly removed: number;
  readonly changed: number;
  /** Hashes by which rows that went are known. */
  readonly gone: readonly string[];
}

/** `onGone` is told of each row that goes before it does; what it reads is valid until it returns. */
export function rewriteText(
  text: Uint8Array,
  table: TableRewriter,
  onGone: (read: ReadColumn) => void = () => {},
): RewrittenText {
  const starts = new Int32Array(table.width + 1);
  const pieces: Uint8Array[] = [];
  const kept: Kept[] = [];
  const gone: string[] = [];
  let [rows, removed, changed, copied] = [0, 0, 0, 0];
  let known = 0;
  let length = 0;
  const put = (piece: Uint8Array) => {
    pieces.push(piece);
    length += piece.length;
  };
  const keep = (from: number, to: number) => {
    if (to === from) return;
    kept.push({ from, to, at: length });
    put(text.subarray(from, to));
  };
  const read: ReadColumn = (place) =>
    place < known ? valueOf(text, starts[place] as number, (starts[place + 1] as number) - 1) : undefined;
  for (let at = 0; at < text.length;) {
    let position = at;
    known = 0;
    starts[0] = at;
    while (known < table.width) {
      const byte = text[position];
      if (byte === tab || byte === newline || byte === undefined) {
        starts[++known] = position + 1;
        if (byte !== tab) break;
      }
      position++;
    }
    const end = text[position] === newline ? position : lineEnd(text, position);
    const next = Math.min(end + 1, text.length);
    const fate = table.fateOf(read);
    if (fate.kind === "stays") rows++;
    else {
      keep(copied, at);
      copied = next;
      if (fate.kind === "goes") {
        removed++;
        onGone(read);
        gone.push(...table.judge.hashes(read));
      } else {
        rows++;
        changed++;
        put(withValues(text.subarray(at, end), fate.values));
      }
    }
    at = next;
  }
  if (removed + changed === 0) return { bytes: null, kept: [], rows, removed, changed, gone };
  keep(copied, text.length);
  return { bytes: joined(pieces), kept, rows, removed, changed, gone };
}

function lineEnd(text: Uint8Array, from: number): number {
  const found = text.indexOf(newline, from);
  return found < 0 ? text.length : found;
}

/** As the server has it: without the escapes of COPY; null for `\N`. */
export function valueOf(text: Uint8Array, start: number, end: number): Uint8Array | null {
  let escaped = false;
  for (let i = start; i < end && !escaped; i++) escaped = text[i] === backslash;
  if (!escaped) return text.subarray(start, end);
  if (end - start === 2 && text[start + 1] === 0x4e) return null;
  const plain = new Uint8Array(end - start);
  let length = 0;
  for (let i = start; i < end; i++) {
    const byte = text[i] as number;
    if (byte !== backslash || i + 1 >= end) {
      plain[length++] = byte;
      continue;
    }
    const letter = text[++i] as number;
    plain[length++] = meanings.get(letter) ?? letter;
  }
  return plain.subarray(0, length);
}

/** What COPY writes; any other letter stands for itself. */
const meanings: ReadonlyMap<number, number> = new Map(
  [["b", 8], ["t", 9], ["n", 10], ["v", 11], ["f", 12], ["r", 13]].map(([letter, byte]) =>
    [String(letter).charCodeAt(0), Number(byte)] as const
  ),
);

const escapes: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\b": "\\b",
  "\t": "\\t",
  "\n": "\\n",
  "\v": "\\v",
  "\f": "\\f",
  "\r": "\\r",
};

/** The line, with its newline. */
function withValues(line: Uint8Array, values: ReadonlyMap<number, string | null>): Uint8Array {
  const pieces: Uint8Array[] = [];
  let start = 0;
  for (let place = 0; start <= line.length; place++) {
    const found = line.indexOf(tab, start);
    const end = found < 0 ? line.length : found;
    const value = values.get(place);
    pieces.push(value === undefined ? line.subarray(start, end) : new TextEncoder().encode(fieldOf(value)));
    pieces.push(Uint8Array.of(found < 0 ? newline : tab));
    start = end + 1;
  }
  return joined(pieces);
}

function fieldOf(value: string | null): string {
  return value === null ? "\\N" : value.replace(/[\\\b\t\n\v\f\r]/g, (letter) => escapes[letter] ?? letter);
}
