import { describe, expect, it } from "vitest";
import { isSameProject, type Project, sourcesOf } from "../../src/shared/format/project.ts";

const project = (ref: string | null, systemIdentifier: string, database = "postgres"): Project => ({
  ref,
  systemIdentifier,
  database,
});
const named = (projects: readonly Project[]) =>
  [...sourcesOf(projects.map((one) => ({ manifest: { project: one } })))].map(([name, all]) => [name, all.length]);

describe("the sources of a store's backups", () => {
  it("are told apart by project, server and database", () => {
    expect(named([project("one", "1"), project("two", "1"), project(null, "2"), project(null, "2", "copy")])).toEqual([
      ["one", 1],
      ["two", 1],
      ["postgres@2", 1],
      ["copy@2", 1],
    ]);
  });

  it("are one where the project became known later, or its server was upgraded", () => {
    expect(named([project(null, "1"), project("one", "1"), project("one", "2")])).toEqual([["one", 3]]);
  });

  it("are not guessed where two projects have been on one server", () => {
    expect(named([project(null, "1"), project("one", "1"), project("two", "1")]).length).toBe(3);
  });
});

describe("the same project", () => {
  it.each([
    [true, project("one", "1"), project(null, "1")],
    [true, project("one", "1"), project("one", "1")],
    [false, project("one", "1"), project("two", "1")],
    [false, project(null, "1"), project(null, "2")],
    [false, project(null, "1"), project(null, "1", "copy")],
    [false, project("one", "1"), project("one", "2")],
  ])("is %s of these", (same, a, b) => {
    expect(isSameProject(a, b)).toBe(same);
  });
});
