/** The pages of docs/runbooks, taken apart: what is run, and what is only named. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./project_files.ts";

export interface Block {
  /** Heading of the second level that it stands below. */
  readonly section: string;
  readonly language: "sh" | "sql";
  /** Said behind `sh` as `exit=2` where it is not 0. */
  readonly exit: number;
  /** Without the indentation of the list that it stands in. */
  readonly text: string;
}

export interface Runbook {
  readonly name: string;
  readonly text: string;
  readonly blocks: readonly Block[];
  /** Code within sentences and tables. */
  readonly inline: readonly string[];
}

export function runbooks(): Runbook[] {
  const folder = join(root, "docs/runbooks");
  return readdirSync(folder).sort().map((name) => runbookOf(name, readFileSync(join(folder, name), "utf8")));
}

export function runbookOf(name: string, text: string): Runbook {
  const blocks: Block[] = [];
  const prose: string[] = [];
  let section = "";
  let open: { readonly indent: string; readonly language: string; readonly exit: number; lines: string[] } | null =
    null;
  for (const line of text.split("\n")) {
    const fence = /^(\s*)```(\w*)(?: exit=(\d))?\s*$/.exec(line);
    if (open !== null && fence === null) open.lines.push(line.slice(open.indent.length));
    else if (open !== null) {
      const { language, exit, lines } = open;
      if (language === "sh" || language === "sql") blocks.push({ section, language, exit, text: lines.join("\n") });
      open = null;
    } else if (fence !== null) {
      open = { indent: fence[1] ?? "", language: fence[2] ?? "", exit: Number(fence[3] ?? 0), lines: [] };
    } else {
      section = /^## (.+)$/.exec(line)?.[1] ?? section;
      prose.push(line);
    }
  }
  const inline = [...prose.join("\n").matchAll(/`([^`]+)`/g)].map(([, code]) => (code ?? "").replace(/\s+/g, " "));
  return { name, text, blocks, inline };
}

/** Names that a block sets for the commands after it; null: it is no block of `export` lines. */
export function exportsOf({ language, text }: Block): string[] | null {
  const lines = text.split("\n");
  // With a space before it a line stays out of the shell's history.
  if (language !== "sh" || !lines.every((line) => /^ ?export [A-Z]/.test(line))) return null;
  return lines.flatMap((line) => [...line.matchAll(/ ([A-Z][A-Z0-9_]*)=/g)].map(([, name]) => name ?? ""));
}

/** The words of a line of `sh`, quotes taken off and variables left as they are. */
export function shellWords(line: string): string[] {
  return [...line.matchAll(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g)].map(([word]) => word.replace(/["']/g, ""));
}
