/** A string of SQL as its statements, as psql and the server's lexer see them. */

/**
 * The statements between semicolons, without comments around them; null where the text cannot be cut with certainty (a
 * body in `begin atomic`, an open quote). String constants are read with `standard_conforming_strings = on`.
 */
export function splitStatements(sql: string): string[] | null {
  const statements: string[] = [];
  let start = 0;
  let at = 0;
  const push = (end: number) => {
    const statement = withoutOuterComments(sql.slice(start, end));
    if (statement !== "") statements.push(statement);
  };
  while (at < sql.length) {
    if (sql[at] === ";") {
      push(at);
      start = ++at;
      continue;
    }
    const next = skipToken(sql, at);
    if (next === null) return null;
    at = next;
  }
  push(sql.length);
  return /\bbegin\s+atomic\b/i.test(sql) ? null : statements;
}

/** Past the quoted thing, comment, word or sign at `at`; null when a quote or comment does not end. */
function skipToken(sql: string, at: number): number | null {
  const two = sql.slice(at, at + 2);
  if (two === "--") return past(sql.indexOf("\n", at), 1) ?? sql.length;
  if (two === "/*") return skipComment(sql, at);
  if (/^[eE]'/.test(two) && !isWordPart(sql[at - 1])) return skipQuoted(sql, at + 1, "'", true);
  const sign = sql[at];
  if (sign === "'" || sign === '"') return skipQuoted(sql, at, sign, false);
  if (sign === "$" && !isWordPart(sql[at - 1])) {
    const tag = /^\$(?:[\p{L}_][\p{L}\p{N}_]*)?\$/u.exec(sql.slice(at, at + 70))?.[0];
    if (tag !== undefined) return past(sql.indexOf(tag, at + tag.length), tag.length);
  }
  return at + 1;
}

function isWordPart(sign: string | undefined): boolean {
  return sign !== undefined && /[\p{L}\p{N}_$]/u.test(sign);
}

function past(found: number, length: number): number | null {
  return found < 0 ? null : found + length;
}

function skipComment(sql: string, start: number): number | null {
  let depth = 0;
  for (let at = start; at < sql.length; at++) {
    const two = sql.slice(at, at + 2);
    if (two === "/*") depth++;
    else if (two === "*/") depth--;
    else continue;
    at++;
    if (depth === 0) return at + 1;
  }
  return null;
}

function skipQuoted(sql: string, start: number, quote: string, escapes: boolean): number | null {
  for (let at = start + 1; at < sql.length; at++) {
    if (escapes && sql[at] === "\\") at++;
    else if (sql[at] === quote && sql[at + 1] === quote) at++;
    else if (sql[at] === quote) return at + 1;
  }
  return null;
}

/** What stands between the first and the last token that is no comment. */
function withoutOuterComments(text: string): string {
  let at = 0;
  for (;;) {
    while (/\s/.test(text[at] ?? "")) at++;
    const two = text.slice(at, at + 2);
    if (two !== "--" && two !== "/*") break;
    at = skipToken(text, at) ?? text.length;
  }
  return text.slice(at).trimEnd();
}

/** The words at a statement's start, lower case: what command it is. */
export function leadingWords(statement: string, atMost: number): string[] {
  const words: string[] = [];
  for (let at = 0; at < statement.length && words.length < atMost;) {
    if (/\s/.test(statement[at] ?? "")) {
      at++;
      continue;
    }
    const word = /^[\p{L}_][\p{L}\p{N}_$]*/u.exec(statement.slice(at, at + 80))?.[0];
    if (word !== undefined) words.push(word.toLowerCase());
    at = word === undefined ? skipToken(statement, at) ?? statement.length : at + word.length;
  }
  return words;
}

export interface Token {
  /** Of a name as the server reads it. */
  readonly text: string;
  readonly quoted: boolean;
  readonly isName: boolean;
}

/** What a statement begins with, past comments and white space: words, quoted names, signs. */
export function leadingTokens(statement: string, atMost: number): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < statement.length && tokens.length < atMost;) {
    const sign = statement[at] ?? "";
    const two = statement.slice(at, at + 2);
    const word = /^[\p{L}_][\p{L}\p{N}_$]*/u.exec(statement.slice(at, at + 300))?.[0];
    const end = word === undefined ? skipToken(statement, at) ?? statement.length : at + word.length;
    if (word !== undefined) tokens.push({ text: word.toLowerCase(), quoted: false, isName: true });
    else if (sign === '"') {
      const text = statement.slice(at + 1, end - 1).replaceAll('""', '"');
      tokens.push({ text, quoted: true, isName: true });
    } else if (!/\s/.test(sign) && two !== "--" && two !== "/*") {
      tokens.push({ text: statement.slice(at, end), quoted: false, isName: false });
    }
    at = end;
  }
  return tokens;
}
