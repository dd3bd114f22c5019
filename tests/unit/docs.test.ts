import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { commandNames } from "../../src/cli/command_table.ts";
import { cliReference } from "../../src/cli/usage.ts";
import { byHandPage, byHandScript } from "../../src/shared/download/by_hand.ts";
import { errorTable } from "../../src/shared/errors.ts";
import { exportSchema } from "../../src/shared/export/document_format.ts";

import { projectFiles, root } from "./project_files.ts";

const read = (path: string) => readFileSync(join(root, path), "utf8");

describe("docs", () => {
  it("errors.md lists every code with its facts, and no other", () => {
    const entries = read("docs/errors.md").matchAll(
      /^- `([a-z_]+)` \((HF\d{3}), exit (\d), HTTP (\d{3}), (never|backoff|after_fix)\): \S/gm,
    );
    const documented = [...entries].map(([, code, sqlstate, exit, status, retry]) =>
      [code, sqlstate, exit, status, retry].join(" ")
    );
    const coded = Object.entries(errorTable).map(([code, facts]) =>
      [code, facts.sqlstate, facts.exit, facts.status, facts.retry].join(" ")
    );
    expect(documented).toEqual(coded);
  });

  it("errors.md has an entry in every line that begins like one", () => {
    const begun = read("docs/errors.md").match(/^- `/gm) ?? [];
    expect(begun).toHaveLength(Object.keys(errorTable).length);
  });

  it("SQLSTATEs are different for different codes", () => {
    const states = Object.values(errorTable).map((facts) => facts.sqlstate);
    expect(new Set(states).size).toBe(states.length);
  });

  it("cli.md is what --help says (deno run -A src/cli/write_reference.ts)", () => {
    expect(read("docs/cli.md")).toBe(cliReference());
  });

  it("restore-by-hand goes into bundles as it stands here (deno run -A src/cli/write_reference.ts)", () => {
    expect(byHandPage).toBe(read("docs/restore-by-hand.md"));
    expect(byHandScript).toBe(read("docs/restore-by-hand.mjs"));
  });

  it("export.schema.json is what exports are held against (deno run -A src/cli/write_reference.ts)", () => {
    expect(JSON.parse(read("docs/export.schema.json"))).toEqual(JSON.parse(JSON.stringify(exportSchema())));
  });

  it("README names every command, and every test it cites is there", () => {
    const readme = read("README.md");
    for (const command of commandNames) expect(readme).toMatch(new RegExp(`backup:${command}(?![a-z-])`));
    const cited = [...readme.matchAll(/`(tests\/[\w/.-]+)`/g)].map(([, path]) => path ?? "");
    expect(cited.length).toBeGreaterThan(5);
    for (const path of cited) expect(existsSync(join(root, path)), path).toBe(true);
  });

  it("every relative link in a page leads to a file", () => {
    const broken = projectFiles().filter((path) => path.endsWith(".md")).flatMap((path) =>
      [...read(path).matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)]
        .map(([, target]) => target ?? "")
        .filter((target) => !existsSync(join(root, dirname(path), target)))
        .map((target) => `${path} → ${target}`)
    );
    expect(broken).toEqual([]);
  });

  it("every npm script that a page tells people to run exists", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const missing = projectFiles().filter((path) => path.endsWith(".md")).flatMap((path) =>
      [...read(path).matchAll(/npm run (?:-s )?([a-z][a-z:-]*[a-z])/g)]
        .map(([, name]) => name ?? "")
        .filter((name) => !(name in scripts))
        .map((name) => `${path}: ${name}`)
    );
    expect(missing).toEqual([]);
  });

  it("decisions have a number of their own and say when they were made", () => {
    const names = readdirSync(join(root, "docs/decisions"));
    const numbers = names.map((name) => /^(\d{4})-[a-z0-9-]+\.md$/.exec(name)?.[1]);
    expect(numbers).not.toContain(undefined);
    expect(new Set(numbers).size).toBe(names.length);
    const undated = names.filter((name) => !/\b20\d\d-\d\d-\d\d\b/.test(read(`docs/decisions/${name}`)));
    expect(undated).toEqual([]);
  });
});
