/** A file of SQL, cut into its statements. Pure. */

export interface SmokeStatement {
  readonly text: string;
  /** Where it begins, from 1. */
  readonly line: number;
}

/** Quoted texts and names, dollar quotes, comments: a semicolon in them ends nothing. Broken off ones go to the end. */
const pieces =
  /[eE]'(?:[^'\\]|\\[\s\S]|'')*(?:'|$)|'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|\$([\p{L}_][\p{L}\p{N}_]*)?\$[\s\S]*?(?:\$\1\$|$)|--[^\n]*|\/\*|[\p{L}_][\p{L}\p{N}_$]*|[\s\S]/gu;

/** In the file's order, without those that are empty or comments alone. */
export function smokeStatements(sql: string): SmokeStatement[] {
  const found: SmokeStatement[] = [];
  let text = "";
  let start = -1;
  const end = (): void => {
    if (start >= 0) found.push({ text: text.trim(), line: sql.slice(0, start).split("\n").length });
    [text, start] = ["", -1];
  };
  pieces.lastIndex = 0;
  for (let match = pieces.exec(sql); match !== null; match = pieces.exec(sql)) {
    const [piece] = match;
    if (piece === "/*") pieces.lastIndex = endOfComment(sql, match.index);
    if (piece === "/*" || piece.startsWith("--")) {
      text += " ";
      continue;
    }
    if (piece === ";") {
      end();
      continue;
    }
    if (start < 0 && !/^\s/.test(piece)) start = match.index;
    text += piece;
  }
  end();
  return found;
}

/** Comments of this kind hold others. */
function endOfComment(sql: string, start: number): number {
  const marks = /\/\*|\*\//g;
  marks.lastIndex = start;
  let depth = 0;
  for (let mark = marks.exec(sql); mark !== null; mark = marks.exec(sql)) {
    depth += mark[0] === "/*" ? 1 : -1;
    if (depth === 0) return marks.lastIndex;
  }
  return sql.length;
}
