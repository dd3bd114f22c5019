/** A row as JSON text with other values of some columns, and every other byte as it was: numbers may be longer than a double. Pure. */

/** `values`: new texts by column; null: NULL. A column stands at the top of the object; of two of one name both change. */
export function withColumns(row: string, values: ReadonlyMap<string, string | null>): string {
  let out = "";
  let copied = 0;
  let depth = 0;
  for (let at = 0; at < row.length; at++) {
    const letter = row[at];
    if (letter === "{" || letter === "[") depth++;
    else if (letter === "}" || letter === "]") depth--;
    if (letter !== '"') continue;
    const keyEnd = stringEnd(row, at);
    const colon = nextOf(row, keyEnd);
    const isKey = depth === 1 && row[colon] === ":";
    const value = isKey ? values.get(JSON.parse(row.slice(at, keyEnd)) as string) : undefined;
    at = keyEnd - 1;
    if (value === undefined) continue;
    const from = nextOf(row, colon + 1);
    const to = valueEnd(row, from);
    out += row.slice(copied, from) + JSON.stringify(value);
    copied = to;
    at = to - 1;
  }
  return out + row.slice(copied);
}

/** Behind the closing quote. */
function stringEnd(text: string, from: number): number {
  let at = from + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

function nextOf(text: string, from: number): number {
  let at = from;
  while (/\s/.test(text[at] ?? "x")) at++;
  return at;
}

function valueEnd(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const letter = text[at];
    if (letter === '"') at = stringEnd(text, at) - 1;
    else if (letter === "{" || letter === "[") depth++;
    else if (depth === 0 && (letter === "," || letter === "}")) return at;
    else if (letter === "}" || letter === "]") depth--;
  }
  return text.length;
}
