/** The rows of one table, as one file. */
import { z } from "zod";
import type { PastRows, PastTable } from "../rows/past/past.ts";
import type { Contents, Step } from "./contents.ts";
import { rewritten } from "./copy_text.ts";
import { csvHeader, csvWriter } from "./csv.ts";
import type { PlainFormat } from "./format.ts";
import { jsonWriter } from "./json_lines.ts";
import { sqlEnd, sqlHeader } from "./psql_text.ts";

/** Behind the piece of rows with that end; `ended`: behind all of it. */
const tableMark = z.union([z.strictObject({ after: z.string().nullable() }), z.literal("ended")]);
export type TableMark = z.infer<typeof tableMark>;
export { tableMark };

export function tableContents(source: PastRows, table: PastTable, format: PlainFormat): Contents<TableMark> {
  return {
    markSchema: tableMark,
    bytes: estimatedBytes(source, table, format),
    isExact: format === "sql",
    files: 1,
    steps: (from) => tableSteps(source, table, format, from),
  };
}

/** The header, a step for each piece of rows, the end. */
export async function* tableSteps(
  source: PastRows,
  table: PastTable,
  format: PlainFormat,
  from: TableMark | null,
): AsyncGenerator<Step<TableMark>> {
  if (from === "ended") return;
  const { header, end, pieces } = dress(source, table, format);
  if (from === null) yield step([header], { after: null });
  for await (const { rows, end: behind, looked } of source.read(table, null, from?.after ?? null)) {
    yield { pieces: pieces(rows), rows: 0, read: looked, mark: () => ({ after: behind }) };
  }
  yield step([end], "ended");
}

function step(pieces: readonly Uint8Array[], mark: TableMark): Step<TableMark> {
  return { pieces, rows: 0, read: 0, mark: () => mark };
}

const nothing = new Uint8Array(0);

interface Dress {
  readonly header: Uint8Array;
  readonly end: Uint8Array;
  pieces(rows: Uint8Array): Iterable<Uint8Array>;
}

function dress(source: PastRows, table: PastTable, format: PlainFormat): Dress {
  const columns = table.columns.map(({ name }) => name);
  switch (format) {
    case "csv": {
      const writer = csvWriter(columns.length);
      return { header: csvHeader(columns), end: nothing, pieces: (rows) => rewritten(rows, columns.length, writer) };
    }
    case "json": {
      const writer = jsonWriter(columns);
      return { header: nothing, end: nothing, pieces: (rows) => rewritten(rows, columns.length, writer) };
    }
    case "sql":
      return {
        header: sqlHeader(table, columns, { backup: source.backupId, at: source.at }),
        end: sqlEnd,
        pieces: (rows) => [rows],
      };
  }
}

/** Rows have about the size of their COPY text; JSON names each column in each row. */
export function estimatedBytes(source: PastRows, table: PastTable, format: PlainFormat): number {
  const { header, end } = dress(source, table, format);
  const perRow = format === "json" ? table.columns.reduce((sum, { name }) => sum + name.length + 6, 1) : 0;
  return header.byteLength + table.rawBytes + table.rows * perRow + end.byteLength;
}

/** No row can make more of its text than this: a control sign becomes six bytes of JSON, a field gets quotes and its name. */
export function mostBytes(table: PastTable): number {
  const names = table.columns.reduce((sum, { name }) => sum + 6 * name.length + 10, 10);
  return 100_000 + names + 6 * table.rawBytes + table.rows * names;
}
