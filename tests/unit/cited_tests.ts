/** Tests that a page names: a file in backticks, then titles in double quotes. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./project_files.ts";

const oneLine = (text: string) => text.replace(/\s+/g, " ");

export interface Cited {
  readonly file: string;
  readonly names: readonly string[];
}

/** Each file that the text names, with the names of tests that stand behind it before the next file. */
export function cited(text: string): Cited[] {
  const parts = oneLine(text).split(/`(tests\/[\w/.]+\.test\.ts)`/);
  return parts.flatMap((file, index) => {
    if (index % 2 === 0) return [];
    // Up to the end of the claim: an item of the list or a section.
    const behind = (parts[index + 1] ?? "").split(/ - | ## /)[0] ?? "";
    return [{ file, names: [...behind.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => name) }];
  });
}

/** Files and titles that are not there. */
export function missingOf(all: readonly Cited[]): string[] {
  return all.flatMap(({ file, names }) =>
    existsSync(join(root, file))
      ? names.filter((name) => !isThere(file, name)).map((name) => `${file}: ${name}`)
      : [file]
  );
}

/** What stands at the beginning, or in the middle, of a title of the file: tables of cases have theirs as words of their own. */
function isThere(file: string, name: string): boolean {
  const source = oneLine(readFileSync(join(root, file), "utf8"));
  return ['"', "`", "'"].some((quote) => {
    for (let at = source.indexOf(name); at >= 0; at = source.indexOf(name, at + 1)) {
      const opened = source.lastIndexOf(quote, at);
      const between = source.slice(opened + 1, at);
      if (opened >= 0 && !/[;{}]/.test(between) && between.length < 120) return true;
    }
    return false;
  });
}
