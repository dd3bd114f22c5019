/** COPY text, as PostgreSQL wrote it, in other clothes: no value is parsed, only its quoting changes. */
import { HoldfastError } from "../errors.ts";
import { Sink } from "./sink.ts";

export const newline = 0x0a;
export const tab = 0x09;
export const backslash = 0x5c;
export const quote = 0x22;
const capitalN = 0x4e;

/** How one row is written in another format. */
export interface RowWriter {
  /** What stands before the field at `index`. */
  before(sink: Sink, index: number): void;
  /** The field `text[from..to]`, with its escapes of COPY text. It makes its own room. */
  value(sink: Sink, text: Uint8Array, from: number, to: number): void;
  null(sink: Sink): void;
  end(sink: Sink): void;
}

/** Given away as soon as it is reached; a row may be larger. */
const pieceBytes = 1024 * 1024;

/**
 * `text` (whole rows of `fields` fields each) in pieces, each valid until the next is asked for. Errors: `object_damaged` for
 * a row that is cut or has another number of fields.
 */
export function* rewritten(text: Uint8Array, fields: number, writer: RowWriter): Generator<Uint8Array> {
  const sink = new Sink();
  for (let row = 0; row < text.byteLength;) {
    row = writeRow(sink, text, row, fields, writer);
    if (sink.length >= pieceBytes) yield sink.take();
  }
  if (sink.length > 0) yield sink.take();
}

/** Returns where the next row begins. */
function writeRow(sink: Sink, text: Uint8Array, row: number, fields: number, writer: RowWriter): number {
  let index = 0;
  let from = row;
  // The row of a table without columns is an empty line.
  const isEmpty = fields === 0 && text[row] === newline;
  for (let at = row; at < text.byteLength; at++) {
    const byte = text[at];
    if (byte !== tab && byte !== newline) continue;
    if (!isEmpty) {
      writer.before(sink, index++);
      if (at - from === 2 && text[from] === backslash && text[from + 1] === capitalN) writer.null(sink);
      else writer.value(sink, text, from, at);
    }
    from = at + 1;
    if (byte === tab) continue;
    if (index !== fields) {
      throw new HoldfastError("object_damaged", `a row of a chunk has ${index} fields, ${fields} were written`);
    }
    writer.end(sink);
    return at + 1;
  }
  throw new HoldfastError("object_damaged", "the last row of a chunk is cut");
}

const meanings: Readonly<Record<number, number>> = {
  0x62: 0x08, // \b
  0x66: 0x0c, // \f
  0x6e: 0x0a, // \n
  0x72: 0x0d, // \r
  0x74: 0x09, // \t
  0x76: 0x0b, // \v
  0x5c: 0x5c, // \\
};

/** The byte that a backslash and `sign` stand for. The server writes these seven and no other. Errors: `object_damaged`. */
export function meant(sign: number | undefined): number {
  const byte = sign === undefined ? undefined : meanings[sign];
  if (byte === undefined) throw new HoldfastError("object_damaged", "a field of a chunk holds an escape that is none");
  return byte;
}
