/**
 * Labels of enums in rows that were written before a rename and committed behind it: no lock of the server stands between the
 * two, and the row has the old label. Pure.
 */
import type { Relation, RowChange, Value } from "../decode/messages.ts";
import type { DdlRow, DdlStep } from "../definitions/ddl_replay.ts";

interface Rename {
  readonly from: string;
  readonly to: string;
  /** Of the commit that made it seen. */
  readonly commitLsn: bigint;
}

/** Is told of the rows of the DDL log in the order of the stream. */
export class RenamedLabels {
  /** By the oid of the type at the source. */
  readonly #renames = new Map<number, Rename[]>();

  /** `step`: what its transaction's `DdlTransaction` says of the row. */
  follow(row: DdlRow, step: DdlStep, commitLsn: bigint): void {
    if (row.tag !== "ALTER TYPE" || step.do !== "run") return;
    const texts = step.statements.flatMap((one) => [...one.matchAll(renaming)]);
    for (const { type, oid } of row.objects) {
      if (type !== "type" || oid == null) continue;
      for (const [, from = "", to = ""] of texts) {
        const rename = { from: from.replaceAll("''", "'"), to: to.replaceAll("''", "'"), commitLsn };
        this.#renames.set(oid, [...this.#renames.get(oid) ?? [], rename]);
      }
    }
  }

  /** The change with the labels of its place. `lsn`: of the change; `commitLsn`: of its transaction. */
  asNamed<T extends RowChange>(relation: Relation, change: T, lsn: bigint, commitLsn: bigint): T {
    const of = relation.columns.map((column) =>
      (this.#renames.get(column.typeOid) ?? []).filter((one) => one.commitLsn > lsn && one.commitLsn !== commitLsn)
    );
    if (of.every((renames) => renames.length === 0)) return change;
    const named = (values: readonly Value[]) =>
      values.map((value, index) =>
        (of[index] ?? []).reduce((label, { from, to }) => label === from ? to : label, value)
      );
    return {
      ...change,
      ...("row" in change ? { row: named(change.row) } : {}),
      ...("old" in change && change.old !== null ? { old: { ...change.old, values: named(change.old.values) } } : {}),
    };
  }
}

const renaming = /^alter\s+type\s.*\srename\s+value\s+'((?:[^']|'')*)'\s+to\s+'((?:[^']|'')*)'\s*$/gis;
