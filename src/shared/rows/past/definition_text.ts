/** Reads the few statements of a capture that say what a graph needs: names, columns, keys. Pure. */
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { unquoteIdent } from "../../schema/quote.ts";

interface Word {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

/** A quoted name, a string (the server doubles quotes within, even where it escapes), a word or number, or one sign. */
const wordPattern = /"(?:[^"]|"")*"|'(?:[^']|'')*'|[\p{L}\p{N}_$]+|\S/gu;

/** The words of one statement, read from left to right. Errors: `internal` when the text is not what was expected. */
export class DefinitionText {
  readonly #text: string;
  readonly #words: readonly Word[];
  #at = 0;

  constructor(text: string) {
    this.#text = text;
    this.#words = [...text.matchAll(wordPattern)].map((match) => ({
      text: match[0],
      start: match.index,
      end: match.index + match[0].length,
    }));
  }

  /** Goes past the words when they come next, in any case of letters. */
  take(...words: readonly string[]): boolean {
    const fits = words.every((word, index) => this.#words[this.#at + index]?.text.toLowerCase() === word);
    if (fits) this.#at += words.length;
    return fits;
  }

  expect(...words: readonly string[]): void {
    if (!this.take(...words)) throw unknown(words.join(" "));
  }

  name(): string {
    const word = this.#words[this.#at];
    if (word === undefined || !/^["\p{L}_]/u.test(word.text)) throw unknown("a name");
    this.#at += 1;
    return unquoteIdent(word.text);
  }

  tableName(): TableName {
    const schema = this.name();
    this.expect(".");
    return { schema, name: this.name() };
  }

  /** `(a, "b c")` */
  names(): string[] {
    this.expect("(");
    const names = [this.name()];
    while (this.take(",")) names.push(this.name());
    this.expect(")");
    return names;
  }

  /** The text up to one of the words (or the end), outside of brackets; the word itself is not taken. */
  upTo(...words: readonly string[]): string {
    const from = this.#at;
    let depth = 0;
    for (let word = this.#words[from]; word !== undefined; word = this.#words[this.#at]) {
      if (depth === 0 && words.includes(word.text.toLowerCase())) break;
      if (word.text === "(" || word.text === "[") depth += 1;
      if (word.text === ")" || word.text === "]") depth -= 1;
      this.#at += 1;
    }
    return this.#text.slice(
      this.#words[from]?.start,
      this.#at === from ? this.#words[from]?.start : this.#words[this.#at - 1]?.end,
    );
  }
}

function unknown(expected: string): HoldfastError {
  return new HoldfastError(
    "internal",
    `a definition of the capture is not written as expected: ${expected} is missing`,
  );
}
