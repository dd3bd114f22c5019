/** docs/compliance.md: each line of the law has a command and a test that are there, or says that it is not done. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cited, missingOf } from "./cited_tests.ts";
import { httpPage } from "./http_page.ts";
import { root } from "./project_files.ts";

const page = readFileSync(join(root, "docs/compliance.md"), "utf8");
const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
const actions = new Set(httpPage().actions.map(({ functionName, action }) => `${functionName}: ${action}`));

interface Line {
  readonly law: string;
  readonly title: string;
  readonly text: string;
}

function lines(): Line[] {
  return page.split(/^## /m).slice(1).flatMap((section) => {
    const law = section.slice(0, section.indexOf("\n"));
    return section.split(/^- /m).slice(1).map((item) => {
      const text = item.replace(/\s+/g, " ").trim();
      return { law, title: /^\*\*([^*]+)\*\*/.exec(text)?.[1] ?? text.slice(0, 40), text };
    });
  });
}

/** Words in backticks that are commands: of the CLI, as people type them, or actions of a function. */
const commandsOf = ({ text }: Line) => [
  ...[...text.matchAll(/`npm run -s (backup:[a-z-]+)[^`]*`/g)].map(([, name = ""]) => name),
  ...[...text.matchAll(/`([a-z-]+: [a-z]+)`/g)].map(([, name = ""]) => name),
];

describe("docs/compliance.md", () => {
  it("has every line that we answer to", () => {
    const wanted: Readonly<Record<string, readonly string[]>> = {
      GDPR: ["5(1)(e)", "Art. 15", "Art. 16", "Art. 17", "18", "Art. 20", "Art. 30", "Art. 32", "Art. 33"],
      CCPA: ["§1798.110", "§1798.105", "§1798.106", "§1798.130(a)(3)(B)", "§1798.115"],
      COPPA: ["312.5", "312.6(a)(1)", "312.6(a)(2)", "312.8", "312.10"],
    };
    for (const [law, parts] of Object.entries(wanted)) {
      const titles = lines().filter((line) => line.law === law).map(({ title }) => title);
      expect(parts.filter((part) => !titles.some((title) => title.includes(part))), law).toEqual([]);
    }
  });

  it("names a command and a test in each", () => {
    for (const line of lines()) {
      expect(commandsOf(line), line.title).not.toEqual([]);
      expect(cited(line.text).flatMap(({ names }) => names), line.title).not.toEqual([]);
    }
  });

  it("names commands and actions that are there", () => {
    const all = lines().flatMap(commandsOf);
    expect(all.filter((name) => !(name in scripts) && !actions.has(name))).toEqual([]);
  });

  it("names tests that are there", () => {
    expect(missingOf(cited(page))).toEqual([]);
  });

  it("would notice a test or a command that is gone", () => {
    expect(missingOf(cited('`tests/sql/access.test.ts` "has no such title"'))).toHaveLength(1);
    expect(missingOf(cited('`tests/sql/gone.test.ts` "x"'))).toEqual(["tests/sql/gone.test.ts"]);
    expect(commandsOf({ law: "", title: "", text: "`npm run -s backup:nothing x` `privacy: nothing`" })).toEqual([
      "backup:nothing",
      "privacy: nothing",
    ]);
  });
});
