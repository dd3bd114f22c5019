/** A list of files without those of erased people. Pure but for what it is given. */
import { encodeFileList, type ListedFile } from "../../format/file_list.ts";
import type { ErasedKeys, ReadColumn } from "../judge_row.ts";
import type { RemovalTable } from "../removal_plan.ts";
import { TableRewriter } from "../table_rewriter.ts";
import { withColumns } from "./json_row.ts";
import { type FoundTerm, termsIn } from "./terms.ts";

export interface RewrittenList {
  readonly kept: readonly ListedFile[];
  /** The list of what is left; null: nothing of it changes. */
  readonly plaintext: Uint8Array | null;
  readonly removed: number;
  /** Parts that files which go were made of. */
  readonly parts: readonly string[];
  readonly terms: readonly FoundTerm[];
}

/** `table`: the rules of storage.objects. */
export function rewriteList(files: readonly ListedFile[], table: RemovalTable, erased: ErasedKeys): RewrittenList {
  const terms: FoundTerm[] = [];
  const kept: ListedFile[] = [];
  const parts: string[] = [];
  let changed = false;
  for (const file of files) {
    const { columns, read } = rowOfFile(file);
    const fate = new TableRewriter(erased, table, columns).fateOf(read);
    if (fate.kind === "goes") {
      changed = true;
      terms.push(...termsIn(table, columns, read));
      parts.push(...file.parts.map(({ object }) => object));
    } else if (fate.kind === "changes") {
      changed = true;
      const values = new Map([...fate.values].map(([place, value]) => [columns[place] ?? "", value] as const));
      kept.push({ ...file, row: withColumns(file.row, values) });
    } else kept.push(file);
  }
  return { kept, plaintext: changed ? encodeFileList(kept) : null, removed: files.length - kept.length, parts, terms };
}

/** The row of storage.objects that a list has of a file. */
function rowOfFile({ row }: ListedFile): { readonly columns: readonly string[]; readonly read: ReadColumn } {
  const document = JSON.parse(row) as Record<string, unknown>;
  const columns = Object.keys(document);
  const encoder = new TextEncoder();
  return {
    columns,
    read: (place) => {
      const value = document[columns[place] ?? ""];
      if (value === null) return null;
      return typeof value === "string" ? encoder.encode(value) : undefined;
    },
  };
}
