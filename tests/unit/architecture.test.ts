import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { root } from "./project_files.ts";

/** Names in backticks in the table below a heading of docs/architecture.md, in their order; `column` counts from 1. */
function named(heading: string, column: number): string[] {
  const page = readFileSync(join(root, "docs/architecture.md"), "utf8");
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? "";
  const cells = section.split("\n").filter((line) => line.startsWith("|")).map((line) => line.split("|")[column] ?? "");
  return cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? ""));
}

describe("architecture.md", () => {
  it("names every migration by its subject, in the order in which they are applied", () => {
    const subjects = readdirSync(join(root, "supabase/migrations")).sort()
      .map((name) => /^\d+_holdfast_(\w+)\.sql$/.exec(name)?.[1]);
    expect(named("Migrations", 1)).toEqual(subjects);
  });

  it("names every folder of the change stream, and where to begin in it", () => {
    const folder = join(root, "src/shared/changes");
    const folders = named("Change stream", 1);
    expect([...folders].sort()).toEqual(readdirSync(folder).sort());
    for (const [index, file] of named("Change stream", 3).entries()) {
      expect(readdirSync(join(folder, folders[index] ?? ""))).toContain(file);
    }
  });
});
