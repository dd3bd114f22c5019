/** The rows of every table of a backup, as a zip archive with a file for each, and one that says which is which. */
import { z } from "zod";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { PastRows, PastTable } from "../rows/past/past.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { Contents, Step } from "./contents.ts";
import { archiveNames, type PlainFormat } from "./format.ts";
import { estimatedBytes, mostBytes, tableMark, tableSteps } from "./table_contents.ts";
import { crc32, zipDescriptor, zipEnd, type ZipEntry, zipHeader } from "./zip.ts";

const count = z.int().nonnegative();
const archiveMark = z.strictObject({
  /** Files that are whole. */
  done: z.array(z.tuple([count, count, count])),
  offset: count,
  /** Of the file that is under way; `mark` null: its header is still to come. */
  crc: count,
  size: count,
  mark: tableMark.nullable(),
});
export type ArchiveMark = z.infer<typeof archiveMark>;

/** Beside the tables; no table's file is called so, since theirs have a dot before the ending. */
const listName = "tables.json";
const most32 = 0xffffffff;

/** A partitioned table comes with its partitions, each as a file of its own. */
export function archiveContents(source: PastRows, format: PlainFormat): Contents<ArchiveMark> {
  const partitioned = new Set(source.graph.tables.filter((one) => one.partitions.length > 0).map(nameOf));
  const tables = source.tables.filter((table) => !partitioned.has(nameOf(table)));
  const names = archiveNames(tables, format);
  return {
    markSchema: archiveMark,
    bytes: tables.reduce((sum, table) => sum + 300 + estimatedBytes(source, table, format), 0),
    isExact: false,
    files: tables.length + 1,
    steps: (from) => new Archive(source, tables, names, format, from).steps(),
  };
}

class Archive {
  readonly #source: PastRows;
  readonly #tables: readonly PastTable[];
  readonly #names: readonly string[];
  readonly #format: PlainFormat;
  readonly #at: Date;
  readonly #done: ZipEntry[];
  #offset: number;
  #crc: number;
  #size: number;
  #mark: ArchiveMark["mark"];

  constructor(
    source: PastRows,
    tables: readonly PastTable[],
    names: readonly string[],
    format: PlainFormat,
    from: ArchiveMark | null,
  ) {
    this.#source = source;
    this.#tables = tables;
    this.#names = names;
    this.#format = format;
    this.#at = new Date(source.at);
    this.#done = (from?.done ?? []).map(([crc, size, offset]) => ({ crc, size, offset }));
    this.#offset = from?.offset ?? 0;
    this.#crc = from?.crc ?? 0;
    this.#size = from?.size ?? 0;
    this.#mark = from?.mark ?? null;
  }

  async *steps(): AsyncGenerator<Step<ArchiveMark>> {
    for (let index = this.#done.length; index < this.#tables.length; index = this.#done.length) {
      const table = this.#tables[index];
      if (table !== undefined) yield* this.#file(table, this.#names[index] ?? "");
    }
    if (this.#done.length === this.#tables.length) yield* this.#list();
    if (this.#done.length === this.#tables.length + 1) {
      const end = zipEnd([...this.#names, listName], this.#done, this.#offset, this.#at);
      // One more, so that a mark behind the end says so.
      this.#done.push({ crc: 0, size: 0, offset: 0 });
      yield this.#step([end]);
    }
  }

  async *#file(table: PastTable, name: string): AsyncGenerator<Step<ArchiveMark>> {
    const large = mostBytes(table) >= most32;
    const header = zipHeader(name, this.#at, large);
    // A mark without one is before the header, so that both come in one step.
    let before = this.#mark === null ? [header] : [];
    for await (const { pieces, rows, read, mark } of tableSteps(this.#source, table, this.#format, this.#mark)) {
      const all = this.#framed(before, pieces);
      before = [];
      const after = () => {
        this.#mark = mark();
        return this.#now();
      };
      yield { pieces: all, rows, read, mark: after };
    }
    yield* this.#ended(header.byteLength, large);
  }

  async *#list(): AsyncGenerator<Step<ArchiveMark>> {
    const list = {
      backup: this.#source.backupId,
      at: this.#source.at,
      format: this.#format,
      tables: this.#tables.map((table, index) => ({
        file: this.#names[index],
        schema: table.schema,
        table: table.name,
        qualified: quoteQualified(table.schema, table.name),
        columns: table.columns.map(({ name, type }) => ({ name, type })),
        rows: table.rows,
      })),
    };
    const bytes = new TextEncoder().encode(`${JSON.stringify(list, null, 2)}\n`);
    const header = zipHeader(listName, this.#at, false);
    if (this.#mark === null) {
      const all = [...this.#framed([header], [bytes])];
      this.#mark = "ended";
      yield { pieces: all, rows: 0, read: 0, mark: () => this.#now() };
    }
    yield* this.#ended(header.byteLength, false);
  }

  /** Checksum and sizes, and the next file. */
  *#ended(headerBytes: number, large: boolean): Generator<Step<ArchiveMark>> {
    const offset = this.#offset - this.#size - headerBytes;
    const entry = { crc: this.#crc, size: this.#size, offset };
    const descriptor = zipDescriptor(entry, large);
    this.#done.push(entry);
    [this.#crc, this.#size, this.#mark] = [0, 0, null];
    yield this.#step([descriptor]);
  }

  /** Bytes beside the files' contents. */
  #step(pieces: readonly Uint8Array[]): Step<ArchiveMark> {
    for (const piece of pieces) this.#offset += piece.byteLength;
    const now = this.#now();
    return { pieces, rows: 0, read: 0, mark: () => now };
  }

  /** `header`, then what is the file's own. */
  *#framed(header: readonly Uint8Array[], pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
    for (const piece of header) {
      this.#offset += piece.byteLength;
      yield piece;
    }
    for (const piece of pieces) {
      this.#crc = crc32(this.#crc, piece);
      this.#size += piece.byteLength;
      this.#offset += piece.byteLength;
      yield piece;
    }
  }

  #now(): ArchiveMark {
    return {
      done: this.#done.map(({ crc, size, offset }) => [crc, size, offset]),
      offset: this.#offset,
      crc: this.#crc,
      size: this.#size,
      mark: this.#mark,
    };
  }
}
