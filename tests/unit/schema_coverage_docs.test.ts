import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { catalogSources } from "../../src/shared/schema/inventory.ts";
import { definitionKinds } from "../../src/shared/schema/definition_kinds.ts";

const text = await readFile(new URL("../../docs/coverage.md", import.meta.url), "utf8");

describe("docs/coverage.md", () => {
  it("lists every kind of definition, and no other", () => {
    const listed = [...text.matchAll(/^\| `([^`]+)`\s+\| (?:roles|pre-data|post-data|last)\s/gm)].map((match) =>
      match[1]
    );
    expect(listed.sort()).toEqual([...definitionKinds].sort());
  });

  it("lists every catalog of the inventory, and no other", () => {
    const section = /^## Catalogs in the inventory\n\n(.*?)\n\n/ms.exec(text)?.[1] ?? "";
    const listed = [...section.matchAll(/`(pg_\w+)`/g)].map((match) => match[1]);
    expect(listed).toEqual(catalogSources.map((source) => source.catalog));
  });
});
