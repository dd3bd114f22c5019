/** What many changes of one table come to in the end, by key. Pure: nothing here knows the target. */
import { HoldfastError } from "../../errors.ts";
import { fillUnchanged, rowText } from "./fold_values.ts";
import { type RowChange, unchanged, type Update, type Value } from "../decode/messages.ts";

/** The texts of a row's key columns, in the order of the columns. */
export type Key = readonly string[];

/** A row of which the target holds some values: they are `unchanged` in `row`, and stay what they are. */
export interface KeptRow {
  /** Under which the target has it now. */
  readonly key: Key;
  readonly row: readonly Value[];
}

export interface NetEffect {
  /** Rows that go; a row that is in `kept` is not among them. */
  readonly deleted: readonly Key[];
  readonly kept: readonly KeptRow[];
  readonly inserted: readonly (readonly Value[])[];
}

/** Where the target held this key before the group, and what stands under it after the changes so far. */
interface Place {
  readonly key: Key;
  readonly before: boolean;
  row: readonly Value[] | null;
  /** The place before the group of a row with `unchanged` values. */
  origin: Place | null;
}

/**
 * Changes of one table, folded as they come. Keys are compared as text: within a stream the text of a row's key is the
 * same from its insert to its delete, and the server has made sure that no two rows have equal keys at a time.
 * Errors: `counts_differ` for a change that contradicts an earlier one; `internal` for a message without its key.
 */
export class KeyedFold {
  readonly #table: string;
  readonly #keyAt: readonly number[];
  readonly #places = new Map<string, Place>();

  /** `table` names it in errors; `keyAt` are the key's places in a row, at least one. */
  constructor(table: string, keyAt: readonly number[]) {
    this.#table = table;
    this.#keyAt = keyAt;
  }

  add(change: RowChange): void {
    if (change.kind === "insert") this.#put(change.row, null);
    else if (change.kind === "delete") this.#take(change.old.values);
    else this.#update(change);
  }

  /** The row under this key is none of the target's from here on, whether or not it was. */
  drop(values: readonly Value[]): void {
    if (this.#places.get(this.#text(values))?.row !== null) this.#take(values);
  }

  effect(): NetEffect {
    const kept: KeptRow[] = [];
    const inserted: (readonly Value[])[] = [];
    const origins = new Set<Place>();
    for (const { row, origin } of this.#places.values()) {
      if (row === null) continue;
      if (!row.includes(unchanged)) {
        inserted.push(row);
        continue;
      }
      if (origin === null) throw this.#nameless();
      origins.add(origin);
      kept.push({ key: origin.key, row });
    }
    const deleted: Key[] = [];
    for (const place of this.#places.values()) if (place.before && !origins.has(place)) deleted.push(place.key);
    return { deleted, kept, inserted };
  }

  #update({ old, row }: Update): void {
    // A key that is stored out of line comes with the old key, even where it did not change.
    const named = old === null ? row : fillUnchanged(row, old.values, old.what === "row" ? null : this.#keyAt);
    const { row: previous, origin } = this.#take(old === null ? row : old.values);
    this.#put(previous === null ? named : fillUnchanged(named, previous, null), origin);
  }

  /** Removes the row under this key; `row` is null where only the target knows it. */
  #take(values: readonly Value[]): { readonly row: readonly Value[] | null; readonly origin: Place | null } {
    const text = this.#text(values);
    const place = this.#places.get(text);
    if (place === undefined) {
      const added: Place = { key: this.#key(values), before: true, row: null, origin: null };
      this.#places.set(text, added);
      return { row: null, origin: added };
    }
    const { row, origin } = place;
    if (row === null) throw this.#differs("changes a row that it has deleted");
    if (place.before) place.row = place.origin = null;
    else this.#places.delete(text);
    return { row, origin };
  }

  #put(row: readonly Value[], origin: Place | null): void {
    const text = this.#text(row);
    const place = this.#places.get(text);
    if (place === undefined) {
      this.#places.set(text, { key: this.#key(row), before: false, row, origin });
      return;
    }
    if (place.row !== null) throw this.#differs("has two rows under one key");
    place.row = row;
    place.origin = origin;
  }

  #key(values: readonly Value[]): Key {
    return this.#keyAt.map((at) => this.#part(values, at));
  }

  #text(values: readonly Value[]): string {
    const [first] = this.#keyAt;
    if (first !== undefined && this.#keyAt.length === 1) return this.#part(values, first);
    return rowText(this.#key(values));
  }

  #part(values: readonly Value[], at: number): string {
    const value = values[at];
    if (typeof value !== "string") throw this.#nameless();
    return value;
  }

  #nameless(): HoldfastError {
    return new HoldfastError("internal", `a change of ${this.#table} came without its key`);
  }

  #differs(what: string): HoldfastError {
    return new HoldfastError("counts_differ", `the change stream of ${this.#table} ${what}`);
  }
}
