/** What many changes of one table come to in the end, where rows have no key. Pure: nothing here knows the target. */
import { HoldfastError } from "../../errors.ts";
import { fillUnchanged, rowText } from "./fold_values.ts";
import { type RowChange, unchanged, type Value } from "../decode/messages.ts";

/** A row that the target has to lose, as often as `copies` says. */
export interface CountedRow {
  readonly row: readonly (string | null)[];
  readonly copies: number;
}

/**
 * Changes of one table whose rows are known by all of their values, duplicates by their number. A row that was inserted
 * and then deleted is not heard of again; one that was deleted and then inserted is, so that the target has to have it.
 * Errors: `internal` for a message without its old row.
 */
export class CountedFold {
  readonly #table: string;
  readonly #rows = new Map<string, { readonly row: readonly (string | null)[]; removed: number; added: number }>();

  constructor(table: string) {
    this.#table = table;
  }

  add(change: RowChange): void {
    if (change.kind === "insert") {
      this.#counts(change.row).added++;
      return;
    }
    const { old } = change;
    if (old?.what !== "row") throw this.#nameless();
    const counts = this.#counts(old.values);
    if (counts.added > 0) counts.added--;
    else counts.removed++;
    if (change.kind === "update") this.#counts(fillUnchanged(change.row, old.values, null)).added++;
  }

  effect(): { readonly deleted: readonly CountedRow[]; readonly inserted: readonly (readonly Value[])[] } {
    const deleted: CountedRow[] = [];
    const inserted: (readonly Value[])[] = [];
    for (const { row, removed, added } of this.#rows.values()) {
      if (removed > 0) deleted.push({ row, copies: removed });
      for (let copy = 0; copy < added; copy++) inserted.push(row);
    }
    return { deleted, inserted };
  }

  #counts(values: readonly Value[]) {
    const row = values.map((value) => {
      if (value === unchanged) throw this.#nameless();
      return value;
    });
    const text = rowText(row);
    let counts = this.#rows.get(text);
    if (counts === undefined) this.#rows.set(text, counts = { row, removed: 0, added: 0 });
    return counts;
  }

  #nameless(): HoldfastError {
    return new HoldfastError("internal", `a change of ${this.#table} came without the row as it was`);
  }
}
