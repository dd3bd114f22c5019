/** One condition of a filter, over bytes. */
import type { RowCondition } from "./past.ts";
import type { TextForm } from "./row_filter_types.ts";

/** A field of COPY text. `form`: of the texts of its type, where they tell equality; null: they do not. */
export interface FilterColumn {
  readonly name: string;
  readonly form: TextForm | null;
}

export interface CompiledCondition {
  /** Indexes of the fields that are looked at; empty: every row may fit. */
  readonly fields: readonly number[];
  /** Values that are looked for, each once. */
  readonly count: number;
  /** The only value, by field; null: there are several. */
  readonly single: readonly Uint8Array[] | null;
  /** `starts`: of the fields and of what follows the last, each one behind the end of the field before. */
  fits(text: Uint8Array, starts: Int32Array): boolean;
}

/** `\N`; a text of these letters is escaped. */
const nullText = "\\N";

export interface ExactPart {
  /** Indexes of the fields whose text tells. */
  readonly fields: readonly number[];
  /** One text a field, escaped as the server does it; each tuple once. Those with a null are left out. */
  readonly tuples: readonly (readonly string[])[];
}

/** What of a condition the texts of the fields can answer. */
export function exactPart(columns: readonly FilterColumn[], condition: RowCondition): ExactPart {
  const wanted = [...condition.values].map((value) => value.split("\t")).filter((parts) => !parts.includes(nullText));
  const looked = condition.columns.flatMap((name, part) => {
    const field = columns.findIndex((column) => column.name === name);
    const form = columns[field]?.form ?? null;
    return form !== null && wanted.every((parts) => form.test(parts[part] ?? "")) ? [{ field, part }] : [];
  });
  const tuples = new Map(
    wanted.map((parts) => {
      const kept = looked.map(({ part }) => asWritten(parts[part] ?? ""));
      return [kept.join("\t"), kept] as const;
    }),
  );
  return { fields: looked.map(({ field }) => field), tuples: [...tuples.values()] };
}

export function compileCondition(columns: readonly FilterColumn[], condition: RowCondition): CompiledCondition {
  const { fields, tuples } = exactPart(columns, condition);
  const encoder = new TextEncoder();
  const values = tuples.map((parts) => parts.map((text) => encoder.encode(text)));
  const [only] = values;
  const single = values.length === 1 && only !== undefined ? only : null;
  const found = single === null ? new ByteSet(values, fields) : new OneValue(single, fields);
  return { fields, count: values.length, single, fits: (text, starts) => found.has(text, starts) };
}

const signs: Readonly<Record<string, string>> = { "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\v": "\\v" };

/** The server writes these signs with a backslash; unescaped ones mean the same. */
function asWritten(text: string): string {
  return text.replace(/[\b\f\n\r\v]/g, (sign) => signs[sign] ?? sign);
}

class OneValue {
  readonly #value: readonly Uint8Array[];
  readonly #fields: readonly number[];

  constructor(value: readonly Uint8Array[], fields: readonly number[]) {
    this.#value = value;
    this.#fields = fields;
  }

  has(text: Uint8Array, starts: Int32Array): boolean {
    for (let index = 0; index < this.#fields.length; index++) {
      const field = this.#fields[index] ?? 0;
      const value = this.#value[index];
      const start = starts[field] ?? 0;
      if (value === undefined || (starts[field + 1] ?? 0) - 1 - start !== value.length) return false;
      for (let at = 0; at < value.length; at++) if (text[start + at] !== value[at]) return false;
    }
    return true;
  }
}

/** Values in one buffer, found by a hash of all their bytes. About 100 bytes a value of the size of a UUID. */
class ByteSet {
  readonly #fields: readonly number[];
  /** Fields of each value, one after the other, each behind a tab. */
  readonly #bytes: Uint8Array;
  /** Where each value starts, and the end of the last. */
  readonly #starts: Uint32Array;
  /** Number of the value, plus one, at its hash or behind; 0: none. At most half of it is taken. */
  readonly #slots: Int32Array;

  constructor(values: readonly (readonly Uint8Array[])[], fields: readonly number[]) {
    this.#fields = fields;
    this.#bytes = new Uint8Array(
      values.reduce((sum, parts) => sum + parts.reduce((all, part) => all + part.length + 1, 0), 0),
    );
    this.#starts = new Uint32Array(values.length + 1);
    let size = 16;
    while (size < values.length * 2) size *= 2;
    this.#slots = new Int32Array(size);
    let length = 0;
    for (const [index, parts] of values.entries()) {
      this.#starts[index] = length;
      let hash = seed;
      for (const part of parts) {
        this.#bytes[length++] = 0x09;
        hash = hashOf(hash, part, 0, part.length);
        this.#bytes.set(part, length);
        length += part.length;
      }
      let slot = slotOf(hash, size);
      while (this.#slots[slot] !== 0) slot = (slot + 1) & (size - 1);
      this.#slots[slot] = index + 1;
    }
    this.#starts[values.length] = length;
  }

  has(text: Uint8Array, starts: Int32Array): boolean {
    let hash = seed;
    for (let index = 0; index < this.#fields.length; index++) {
      const field = this.#fields[index] ?? 0;
      hash = hashOf(hash, text, starts[field] ?? 0, (starts[field + 1] ?? 0) - 1);
    }
    const size = this.#slots.length;
    for (let slot = slotOf(hash, size);; slot = (slot + 1) & (size - 1)) {
      const found = this.#slots[slot] ?? 0;
      if (found === 0) return false;
      if (this.#is(found - 1, text, starts)) return true;
    }
  }

  #is(value: number, text: Uint8Array, starts: Int32Array): boolean {
    let at = this.#starts[value] ?? 0;
    const end = this.#starts[value + 1] ?? 0;
    for (let index = 0; index < this.#fields.length; index++) {
      const field = this.#fields[index] ?? 0;
      const stop = (starts[field + 1] ?? 0) - 1;
      if (this.#bytes[at++] !== 0x09) return false;
      for (let from = starts[field] ?? 0; from < stop; from++, at++) if (text[from] !== this.#bytes[at]) return false;
    }
    return at === end;
  }
}

/** FNV-1a with 32 bits. */
const seed = 0x811c9dc5 | 0;

function hashOf(seeded: number, bytes: Uint8Array, start: number, end: number): number {
  let hash = seeded;
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
  return Math.imul(hash ^ 0x09, 0x01000193);
}

function slotOf(hash: number, size: number): number {
  return (hash ^ (hash >>> 15)) & (size - 1);
}
