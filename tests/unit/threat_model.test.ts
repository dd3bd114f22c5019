import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { root } from "./project_files.ts";

const oneLine = (text: string) => text.replace(/\s+/g, " ");
const page = oneLine(readFileSync(join(root, "docs/threat-model.md"), "utf8"));

/** Each file that the page names, with the names of tests that stand behind it before the next file. */
function cited(): { readonly file: string; readonly names: readonly string[] }[] {
  const parts = page.split(/`(tests\/[\w/.]+\.test\.ts)`/);
  return parts.flatMap((file, index) => {
    if (index % 2 === 0) return [];
    // Up to the end of the claim: an item of the list or a section.
    const behind = (parts[index + 1] ?? "").split(/ - | ## /)[0] ?? "";
    return [{ file, names: [...behind.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => name) }];
  });
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

describe("docs/threat-model.md", () => {
  it("has a section for each adversary", () => {
    const wanted = [
      "Somebody with the anon key",
      "Somebody with the secret key",
      "Somebody with the worker secret",
      "A member of the dashboard",
      "A malicious administrator",
      "A thief of one store",
      "A thief of both stores",
      "A thief of the database",
      "A compromised function",
      "A lost key",
      "A deleted project",
      "What the organisation has to set",
    ];
    expect(wanted.filter((title) => !page.includes(`## ${title}`))).toEqual([]);
  });

  it("names tests that are there", () => {
    const all = cited();
    expect(all.flatMap(({ names }) => names).length).toBeGreaterThan(40);
    const missing = all.flatMap(({ file, names }) =>
      existsSync(join(root, file))
        ? names.filter((name) => !isThere(file, name)).map((name) => `${file}: ${name}`)
        : [file]
    );
    expect(missing).toEqual([]);
  });
});
