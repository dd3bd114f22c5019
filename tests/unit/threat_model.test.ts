import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cited, missingOf } from "./cited_tests.ts";
import { root } from "./project_files.ts";

const page = readFileSync(join(root, "docs/threat-model.md"), "utf8").replace(/\s+/g, " ");

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
    const all = cited(page);
    expect(all.flatMap(({ names }) => names).length).toBeGreaterThan(40);
    expect(missingOf(all)).toEqual([]);
  });
});
