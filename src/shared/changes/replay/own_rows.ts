/** What becomes of a change where the target has no rows of our own buckets, since the full backup left them out. Pure. */
import { bucketColumnOf, isOwnBucket, notOfOwnBuckets } from "../../schema/own_objects.ts";
import type { TableShape } from "../../schema/capture_format.ts";
import { quoteQualified } from "../../schema/quote.ts";
import type { Relation, RowChange, Value } from "../decode/messages.ts";
import { fillUnchanged } from "./fold_values.ts";

/** By `schema.name`, quoted where needed, of the tables that a full backup holds without those rows: the column of the bucket. */
export function ownRowsOf(
  tables: readonly Pick<TableShape, "schema" | "name" | "rowFilter">[],
): ReadonlyMap<string, string> {
  return new Map(tables.flatMap((table) => {
    const bucket = bucketColumnOf(table);
    const leftOut = bucket !== null && table.rowFilter === notOfOwnBuckets(bucket);
    return leftOut ? [[quoteQualified(table.schema, table.name), bucket] as const] : [];
  }));
}

/**
 * The change as the target has to take it; null: nothing of it. `gone`: the row with these key columns is none of the
 * target's from here on, and may never have been: the old key of a file does not say which bucket it was in.
 */
export function withoutOwnRow(
  relation: Relation,
  bucket: string,
  change: RowChange,
): RowChange | { readonly gone: readonly Value[] } | null {
  const at = relation.columns.findIndex(({ name }) => name === bucket);
  const isOwn = (values: readonly Value[]) => isOwnBucket(String(values[at]));
  if (change.kind === "insert") return isOwn(change.row) ? null : change;
  const { old } = change;
  const isKnown = old !== null && (old.what === "row" || relation.columns[at]?.isKey === true);
  const wasOwn = isKnown && isOwn(old.values);
  const keyAt = relation.columns.flatMap(({ isKey }, place) => isKey ? [place] : []);
  if (change.kind === "delete") return wasOwn ? null : isKnown ? change : { gone: change.old.values };
  if (!isOwn(change.row)) {
    if (!wasOwn) return change;
    const row = fillUnchanged(change.row, old.values, old.what === "row" ? null : keyAt);
    return { kind: "insert", relation: change.relation, row };
  }
  if (wasOwn) return null;
  return isKnown ? { kind: "delete", relation: change.relation, old } : { gone: old?.values ?? change.row };
}
