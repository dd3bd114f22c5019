/**
 * The document of an export, read once and in blocks: rows go by one at a time, what stands around them is kept. A row's text is
 * handed on as it stands there, so that no digit is lost. Every block is held against the hash that was signed.
 */
import { z } from "zod";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import {
  blockBytes,
  type ExportDocument,
  exportDocument,
  exportedRow,
  exportedTable,
} from "../export/document_format.ts";
import type { ReadBytes, VerifiedSignature } from "../export/signature.ts";

export type DocumentTable = z.output<typeof exportedTable>;

export interface DocumentSink {
  /** Its rows follow. `at`: among the tables, from 0. */
  readonly table: (table: DocumentTable, at: number) => Promise<void>;
  /** One row, `{"row": …, "marks": …}`. The bytes are the caller's to keep. */
  readonly row: (bytes: Uint8Array) => Promise<void>;
}

export interface SignedDocument {
  readonly bytes: number;
  readonly read: ReadBytes;
  readonly signature: VerifiedSignature;
}

/** A row is held in memory as a whole. */
const mostRowBytes = 256 * 1024 * 1024;

/**
 * Returns the document without its rows. Errors: `export_unsigned` where a byte is another one by now; `payload_invalid` where the
 * document is not of its schema, naming the place; those of the sink.
 */
export async function readDocument(
  { bytes, read, signature: { signedBytes, hashes } }: SignedDocument,
  sink: DocumentSink,
): Promise<ExportDocument> {
  const scanner = new Scanner(sink);
  for (const [at, hash] of hashes.entries()) {
    const from = at * blockBytes;
    const block = await read(from, Math.min(signedBytes, from + blockBytes));
    if (await sha256Hex(block) !== hash) {
      throw new HoldfastError("export_unsigned", "the document was changed while it was read");
    }
    await scanner.take(block);
  }
  await scanner.take(await read(signedBytes, bytes));
  return scanner.end();
}

const sign = { quote: 0x22, backslash: 0x5c, open: 0x7b, close: 0x7d, openList: 0x5b, closeList: 0x5d } as const;

/** Nesting of a row's object: the document, its tables, a table, its rows, a row. */
const rowDepth = 5;

class Scanner {
  readonly #sink: DocumentSink;
  /** What is not in rows, up to the piece that is looked at. */
  #around: string[] = [];
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** Of the array that is open at the depth of the tables. */
  #inTables = false;
  #inRows = false;
  /** Pieces of the row that is open, and their bytes. */
  #row: Uint8Array[] = [];
  #rowBytes = 0;
  #table: { readonly at: number; readonly head: DocumentTable; rows: number } | null = null;
  #tables = 0;
  /** Where the table that is open begins in what is around. */
  #tableText = "";

  constructor(sink: DocumentSink) {
    this.#sink = sink;
  }

  async take(block: Uint8Array): Promise<void> {
    let from = 0;
    for (let at = 0; at < block.byteLength; at++) {
      const byte = block[at];
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === sign.backslash) this.#escaped = true;
        else if (byte === sign.quote) this.#inString = false;
        continue;
      }
      switch (byte) {
        case sign.quote:
          this.#inString = true;
          break;
        case sign.open:
          this.#depth++;
          if (this.#inRows && this.#depth === rowDepth) {
            this.#keep(block.subarray(from, at));
            from = at;
          } else if (this.#inTables && this.#depth === 3) {
            this.#keep(block.subarray(from, at));
            from = at;
            this.#tableText = "";
          }
          break;
        case sign.close:
          this.#depth--;
          if (this.#inRows && this.#depth === rowDepth - 1) {
            await this.#endRow(block.subarray(from, at + 1));
            from = at + 1;
          }
          break;
        case sign.openList:
          this.#depth++;
          if (this.#depth === 2 || (this.#inTables && this.#depth === 4)) {
            this.#keep(block.subarray(from, at + 1));
            from = at + 1;
            await this.#opened();
          }
          break;
        case sign.closeList:
          this.#depth--;
          if (this.#inRows && this.#depth === 3) {
            this.#endRows();
            from = at + 1;
          }
          if (this.#inTables && this.#depth === 1) this.#inTables = false;
          break;
      }
    }
    const rest = block.subarray(from);
    if (this.#inRows && this.#depth >= rowDepth) this.#keepRow(rest);
    else this.#keep(rest);
  }

  /** Errors: `payload_invalid`. */
  end(): ExportDocument {
    this.#around.push(this.#decoder.decode());
    return valid(exportDocument, this.#around.join(""), "the document");
  }

  #keep(bytes: Uint8Array): void {
    // Between two rows stands nothing but a comma, which the document without its rows has not.
    if (this.#inRows) return;
    const text = this.#decoder.decode(bytes, { stream: true });
    this.#around.push(text);
    if (this.#inTables) this.#tableText += text;
  }

  async #opened(): Promise<void> {
    if (this.#depth === 2) {
      this.#inTables = /"tables"\s*:\s*\[$/.test(this.#around.slice(-8).join(""));
      return;
    }
    if (!/[,{]\s*"rows"\s*:\s*\[$/.test(this.#tableText.slice(-64))) return;
    const head = valid(exportedTable, `${this.#tableText}]}`, `table ${this.#tables + 1}`);
    this.#table = { at: this.#tables, head, rows: 0 };
    this.#tables++;
    this.#inRows = true;
    await this.#sink.table(head, this.#table.at);
  }

  #keepRow(bytes: Uint8Array): void {
    this.#rowBytes += bytes.byteLength;
    if (this.#rowBytes > mostRowBytes) {
      throw new HoldfastError("payload_invalid", "a row of the document is larger than 256 MiB", { hint });
    }
    this.#row.push(bytes.slice());
  }

  async #endRow(last: Uint8Array): Promise<void> {
    this.#keepRow(last);
    const row = this.#row.length === 1 ? this.#row[0] ?? last : joined(this.#row, this.#rowBytes);
    this.#row = [];
    this.#rowBytes = 0;
    const table = this.#table;
    if (table === null) throw new HoldfastError("internal", "a row without a table");
    table.rows++;
    const { head } = table;
    const place = `row ${table.rows} of ${head.schema}.${head.table}`;
    const { row: values } = valid(exportedRow, new TextDecoder("utf-8", { fatal: true }).decode(row), place);
    const known = new Set(head.columns.map(({ name }) => name));
    if (Object.keys(values).some((name) => !known.has(name))) throw wrong(place);
    await this.#sink.row(row);
  }

  #endRows(): void {
    const table = this.#table;
    if (table === null || table.rows !== table.head.rowCount) {
      throw wrong(`the number of rows of table ${this.#tables}`);
    }
    this.#inRows = false;
    this.#around.push("]");
    this.#table = null;
  }
}

function valid<T>(schema: z.ZodType<T>, text: string, place: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong(place);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw wrong(place);
}

const hint = "Compare it with docs/export.schema.json.";

function wrong(place: string): HoldfastError {
  return new HoldfastError("payload_invalid", `${place} is not as the schema of exports has it`, { hint });
}

function joined(pieces: readonly Uint8Array[], bytes: number): Uint8Array {
  const all = new Uint8Array(bytes);
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.byteLength;
  }
  return all;
}
