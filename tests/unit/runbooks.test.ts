import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseArguments } from "../../src/cli/arguments.ts";
import { commandNames, optionsOf } from "../../src/cli/command_table.ts";
import { root } from "./project_files.ts";
import { exportsOf, runbooks, shellWords } from "./runbook_pages.ts";

const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
const pages = runbooks();
const everyOption = new Set<string>(commandNames.flatMap(optionsOf));
const backupScript = /^npm run (?:-s )?backup:([a-z-]+)(.*)$/;

describe("every runbook", () => {
  it("is there for each procedure", () => {
    expect(pages.map(({ name }) => name)).toEqual(expect.arrayContaining([
      "a-deleted-row.md",
      "a-moment.md",
      "a-person.md",
      "a-table.md",
      "a-whole-database-in-place.md",
      "a-whole-database.md",
      "an-incident.md",
      "drills.md",
      "erase-a-person.md",
      "maintenance.md",
      "retention.md",
      "the-first-provider-is-gone.md",
    ]));
  });

  it.each(pages)("$name says who owns it and when it was last reviewed", ({ text }) => {
    const head = text.split("\n").slice(0, 4).join("\n");
    const [, owner, date] = /^Owner: (\S.*?)\. (?:Reviewed|Last review): (\d{4}-\d\d-\d\d)\./m.exec(head) ?? [];
    expect(owner, head).toBeTruthy();
    expect(new Date(`${date}T00:00:00Z`).toJSON()).toBe(`${date}T00:00:00.000Z`);
  });

  it.each(pages)("$name has blocks of commands that the program takes", ({ blocks }) => {
    const commands = blocks.filter((block) => block.language === "sh" && exportsOf(block) === null);
    const lines = commands.flatMap(({ text }) => text.split("\n"));
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) {
      const [, command = "", rest = ""] = backupScript.exec(line) ?? [];
      expect(scripts[`backup:${command}`], line).toBe(`node -- src/cli/holdfast.mjs ${command}`);
      const words = shellWords(rest);
      const separator = words.indexOf("--");
      const toNpm = separator === -1 ? words : words.slice(0, separator);
      expect(toNpm.filter((word) => word.startsWith("-")), `options belong behind --: ${line}`).toEqual([]);
      expect(() => parseArguments([command, ...words.filter((word) => word !== "--")]), line).not.toThrow();
    }
  });

  it.each(pages)("$name sets only what the program, psql or its own commands read", ({ blocks }) => {
    const readme = readFileSync(join(root, "README.md"), "utf8");
    for (const name of blocks.flatMap((block) => exportsOf(block) ?? [])) {
      expect(readme.includes(`\`${name}\``) || blocks.some(({ text }) => text.includes(`$${name}`)), name).toBe(true);
    }
  });

  it.each(pages)("$name names in its sentences only what there is", ({ inline }) => {
    for (const code of inline) {
      const [first = "", second = ""] = shellWords(code);
      if (first === "holdfast") expect(commandNames, code).toContain(second);
      const script = /^npm run (?:-s )?(\S+)/.exec(code)?.[1];
      if (script !== undefined) expect(Object.keys(scripts), code).toContain(script);
      if (["pg_dump", "psql"].includes(first)) continue;
      const command = commandNames.find((name) => name === second || script === `backup:${name}`);
      const known = first === "holdfast" || script !== undefined
        ? new Set<string>(command === undefined ? [] : optionsOf(command))
        : everyOption;
      for (const [, option = ""] of code.matchAll(/(?:^|\s)--([a-z][a-z-]*)/g)) {
        expect(known.has(option), `--${option} in ${code}`).toBe(true);
      }
    }
  });
});
