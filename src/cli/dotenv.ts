/**
 * Reads `.env`: `NAME=value` lines, `#` comments, an optional `export`, values bare, in single quotes (as they are) or in
 * double quotes (with \n, \" and \\). No expansion of `$`: a password may hold one.
 */
export function parseDotenv(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.replace(/^\uFEFF/, "").split(/\r?\n/)) {
    const found = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$/.exec(line);
    const [name, rest] = [found?.[1], found?.[2]];
    if (name !== undefined && rest !== undefined) values.set(name, unquote(rest));
  }
  return values;
}

function unquote(text: string): string {
  const single = /^'([^']*)'\s*(?:#.*)?$/.exec(text);
  if (single?.[1] !== undefined) return single[1];
  const double = /^"((?:[^"\\]|\\.)*)"\s*(?:#.*)?$/.exec(text);
  if (double?.[1] !== undefined) return double[1].replace(/\\(.)/g, (_, sign: string) => sign === "n" ? "\n" : sign);
  return text.replace(/\s+#.*$/, "");
}
