/** Rows that may be wanted, out of COPY text, by the bytes of their fields: nothing is decoded. */
import { HoldfastError } from "../../errors.ts";
import type { RowFilter } from "./past.ts";
import { compileCondition, type CompiledCondition, type FilterColumn } from "./row_filter_condition.ts";
import { findNeedle, type Needle, needleOf } from "./row_filter_needle.ts";

export type { FilterColumn } from "./row_filter_condition.ts";

/** Whole rows in, those of them that may fit out: the text itself where all do, else a copy. */
export type RowKeeper = (text: Uint8Array) => Uint8Array;

const newline = 0x0a;
const tab = 0x09;

/**
 * What keeps the rows that may fit `filter`; null where none can, so that nothing has to be read. `columns`: the fields
 * of a row in their order. Columns without a form, of which values of another form are wanted, or that are not among
 * `columns`, are not looked at. The keeper's errors: `object_damaged` for a row that is cut or has too few fields.
 */
export function compileRowFilter(columns: readonly FilterColumn[], filter: RowFilter): RowKeeper | null {
  if (filter === null) return (text) => text;
  const conditions = filter.map((condition) => compileCondition(columns, condition));
  const wanted = conditions.filter(({ count }) => count > 0);
  if (wanted.length === 0) return null;
  if (wanted.some((condition) => condition.fields.length === 0)) return (text) => text;
  const needle = needleOf(wanted, columns.length);
  return (text) => new Sieve(text, wanted, needle).kept();
}

/** Those rows of `text` that may fit. Errors: as `compileRowFilter` says. */
export function filterRows(text: Uint8Array, columns: readonly FilterColumn[], filter: RowFilter): Uint8Array {
  return compileRowFilter(columns, filter)?.(text) ?? text.subarray(0, 0);
}

/** A row's rest is looked through byte by byte so far; then the engine's own search is faster in spite of its call. */
const shortRest = 48;

/** One pass over one text. */
class Sieve {
  readonly #text: Uint8Array;
  readonly #conditions: readonly CompiledCondition[];
  readonly #needle: Needle | null;
  /** Fields that are looked at end here. */
  readonly #last: number;
  /** Start of each field up to the last; its end is one before the next one's. */
  readonly #starts: Int32Array;

  constructor(text: Uint8Array, conditions: readonly CompiledCondition[], needle: Needle | null) {
    this.#text = text;
    this.#conditions = conditions;
    this.#needle = needle;
    this.#last = Math.max(...conditions.map(({ fields }) => Math.max(...fields)));
    this.#starts = new Int32Array(this.#last + 2);
  }

  kept(): Uint8Array {
    const text = this.#text;
    if (text.byteLength > 0 && text[text.byteLength - 1] !== newline) throw damaged("the last row of a chunk is cut");
    /** Start and end of stretches that are kept. */
    const stretches: number[] = [];
    let bytes = 0;
    for (let row = this.#next(0); row < text.byteLength;) {
      const end = this.#split(row);
      if (this.#fits()) {
        if (stretches[stretches.length - 1] === row) stretches[stretches.length - 1] = end;
        else stretches.push(row, end);
        bytes += end - row;
      }
      row = this.#next(end);
    }
    return bytes === text.byteLength ? text : this.#copy(stretches, bytes);
  }

  /** Start of the first row from `row` on that has to be looked at. */
  #next(row: number): number {
    if (this.#needle === null) return row;
    const found = findNeedle(this.#text, this.#needle, row);
    return found < 0 ? this.#text.byteLength : this.#text.lastIndexOf(newline, found) + 1;
  }

  /** Notes where the fields of the row start. Gives the start of the next row. */
  #split(row: number): number {
    const text = this.#text;
    const starts = this.#starts;
    const last = this.#last;
    let field = 0;
    let at = row;
    starts[0] = row;
    for (;; at++) {
      const byte = text[at];
      if (byte === undefined) throw damaged("the last row of a chunk is cut");
      if (byte > tab + 1 || byte < tab) continue;
      starts[field + 1] = at + 1;
      if (byte === newline) {
        if (field < last) throw damaged(`a row of a chunk has ${field + 1} fields, at least ${last + 1} were written`);
        return at + 1;
      }
      if (field === last) break;
      field++;
    }
    for (const limit = at + shortRest; at < limit; at++) if (text[at] === newline) return at + 1;
    return text.indexOf(newline, at) + 1;
  }

  #fits(): boolean {
    for (const condition of this.#conditions) if (condition.fits(this.#text, this.#starts)) return true;
    return false;
  }

  #copy(stretches: readonly number[], bytes: number): Uint8Array {
    const out = new Uint8Array(bytes);
    let length = 0;
    for (let at = 0; at < stretches.length; at += 2) {
      const stretch = this.#text.subarray(stretches[at], stretches[at + 1]);
      out.set(stretch, length);
      length += stretch.byteLength;
    }
    return out;
  }
}

function damaged(what: string): HoldfastError {
  return new HoldfastError("object_damaged", what);
}
