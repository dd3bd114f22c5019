/** Pieces of SQL that a capture wrote: our own words are lower case there, the server's upper case. Pure. */

export interface Token {
  readonly text: string;
  readonly start: number;
  /** Brackets that are open around it. */
  readonly depth: number;
}

const tokenPattern =
  /[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")+"|\$([\p{L}_][\p{L}\p{N}_]*)?\$[\s\S]*?\$\1\$|[\p{L}_][\p{L}\p{N}_$]*|\d+(?:\.\d+)?|\s+|[\s\S]/gu;

/** Words, names, constants and signs; spaces are left out. A dollar-quoted body is one token. */
export function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  let depth = 0;
  for (const match of text.matchAll(tokenPattern)) {
    const piece = match[0];
    if (/^\s/.test(piece)) continue;
    if (piece === ")" || piece === "]") depth--;
    tokens.push({ text: piece, start: match.index, depth });
    if (piece === "(" || piece === "[") depth++;
  }
  return tokens;
}

/** The pieces between commas outside of brackets and quotes, without spaces around them. */
export function splitAtCommas(text: string): string[] {
  const pieces: string[] = [];
  let from = 0;
  for (const token of tokensOf(text)) {
    if (token.text !== "," || token.depth !== 0) continue;
    pieces.push(text.slice(from, token.start).trim());
    from = token.start + 1;
  }
  const rest = text.slice(from).trim();
  if (rest !== "" || pieces.length > 0) pieces.push(rest);
  return pieces;
}

/** Where one of `words` stands by itself outside of brackets, from token `first` on; a part of a dotted name does not count. */
export function findWord(tokens: readonly Token[], words: ReadonlySet<string>, first: number): number {
  for (let at = first; at < tokens.length; at++) {
    const token = tokens[at];
    if (token?.depth === 0 && words.has(token.text) && tokens[at - 1]?.text !== ".") return at;
  }
  return tokens.length;
}

/** Is `name` (as `quoteIdent` writes it) one of the names in the text? Bodies in dollar quotes are not looked into. */
export function mentions(text: string, name: string): boolean {
  return text.includes(name) && tokensOf(text).some((token) => token.text === name);
}

/** As `mentions`, for `schema.name`, each part as `quoteIdent` writes it. */
export function mentionsQualified(text: string, qualified: string): boolean {
  return text.includes(qualified) && findQualified(text, qualified).length > 0;
}

/** Starts of `schema.name` where it is no part of a longer name. */
function findQualified(text: string, qualified: string): number[] {
  const wanted = tokensOf(qualified).map((token) => token.text);
  const tokens = tokensOf(text);
  return tokens.flatMap((token, at) =>
    wanted.every((part, offset) => tokens[at + offset]?.text === part) && tokens[at - 1]?.text !== "." &&
      !(tokens[at + wanted.length]?.text === "." && wanted.length < 2)
      ? [token.start]
      : []
  );
}

/** Puts `to` in the place of every `from`, a qualified name. */
export function replaceQualified(text: string, from: string, to: string): string {
  if (!text.includes(from)) return text;
  let result = text;
  for (const start of findQualified(text, from).reverse()) {
    result = result.slice(0, start) + to + result.slice(start + from.length);
  }
  return result;
}

/** Puts `to` in the place of every `from` that stands before a column: `from.a`, but not `schema.from.a`. */
export function replaceOwner(text: string, from: string, to: string): string {
  if (from === to || !text.includes(`${from}.`)) return text;
  const tokens = tokensOf(text);
  let result = text;
  for (let at = tokens.length - 1; at >= 0; at--) {
    const token = tokens[at];
    if (token?.text !== from || tokens[at + 1]?.text !== "." || tokens[at - 1]?.text === ".") continue;
    result = result.slice(0, token.start) + to + result.slice(token.start + from.length);
  }
  return result;
}

/** Puts `to` in the place of every name `from` (as `quoteIdent` writes it). */
export function replaceName(text: string, from: string, to: string): string {
  if (!text.includes(from)) return text;
  let result = text;
  for (const token of tokensOf(text).filter((one) => one.text === from).reverse()) {
    result = result.slice(0, token.start) + to + result.slice(token.start + from.length);
  }
  return result;
}

/**
 * As `replaceName`, for a column's name: an object of a schema that is called alike (`schema.from`), what stands before a
 * dot, and a function stay.
 */
export function replaceColumn(text: string, from: string, to: string, schemas: ReadonlySet<string>): string {
  if (!text.includes(from)) return text;
  const tokens = tokensOf(text);
  const isObject = (at: number) =>
    tokens[at - 1]?.text === "." && schemas.has(tokens[at - 2]?.text ?? "") && tokens[at - 3]?.text !== ".";
  let result = text;
  for (let at = tokens.length - 1; at >= 0; at--) {
    const token = tokens[at];
    const next = tokens[at + 1]?.text;
    if (token?.text !== from || next === "." || next === "(" || isObject(at)) continue;
    result = result.slice(0, token.start) + to + result.slice(token.start + from.length);
  }
  return result;
}
