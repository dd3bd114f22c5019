/** Rows of a backup on their way out, without people who were erased: for files that no restore filters. */
import { ErasedKeys } from "../erase/judge_row.ts";
import type { Ledger } from "../erase/ledger.ts";
import { mapOf, planRemoval } from "../erase/removal_plan.ts";
import { rulesOf } from "../erase/rewrite/scan_full.ts";
import { rewriteText } from "../erase/rewrite_text.ts";
import { TableRewriter } from "../erase/table_rewriter.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { PastRows } from "../rows/past/past.ts";

/**
 * What the ledger names, and what leads to a user who was erased. A row that hangs on one which was deleted before the erasure is told
 * by a restore, or once the backup was rewritten, and not here: tables come one by one. Errors: those of `source`.
 */
export function withoutErased(source: PastRows, { entries, keys }: Ledger): PastRows {
  if (entries.length === 0) return source;
  const erased = new ErasedKeys(keys, entries.flatMap(({ hashes }) => hashes), entries.flatMap(({ rows }) => rows));
  const groups = planRemoval(source.graph, mapOf(entries));
  const rules = rulesOf(groups.flatMap(({ tables }) => tables)).tables;
  return {
    ...source,
    async *read(table, filter, after = null) {
      const rule = rules.find(({ name }) => nameOf(name) === nameOf(table));
      const columns = table.columns.map(({ name }) => name);
      const rewriter = rule === undefined ? null : new TableRewriter(erased, rule.table, columns);
      for await (const piece of source.read(table, filter, after)) {
        const bytes = rewriter === null || piece.rows.byteLength === 0 ? null : rewriteText(piece.rows, rewriter).bytes;
        yield bytes === null ? piece : { ...piece, rows: bytes };
      }
    },
  };
}
