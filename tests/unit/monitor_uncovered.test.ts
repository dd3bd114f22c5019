/** Tables whose changes are not all in the stream, in words. */
import { describe, expect, it } from "vitest";
import { uncoveredReasons } from "../../src/shared/monitor/uncovered.ts";

const tables = (why: "identity" | "unlogged" | "unpublished" | "rewritten", ...names: string[]) =>
  names.map((name) => ({ name: `a.${name}`, why }));

describe("tables that the stream does not hold all changes of", () => {
  it("are named by threes, and counted", () => {
    expect(uncoveredReasons(tables("identity", "b", "c", "d", "e", "f"))).toEqual([
      expect.stringContaining("changes of a.b, a.c, a.d and 2 more are not all"),
    ]);
    expect(uncoveredReasons([])).toEqual([]);
  });

  it("come with the remedy for each kind", () => {
    const uncovered = [
      ...tables("unlogged", "b"),
      ...tables("identity", "c"),
      ...tables("unpublished", "d"),
      ...tables("rewritten", "e"),
    ];
    expect(uncoveredReasons(uncovered)).toEqual([
      expect.stringMatching(/a\.c .*primary key.*replica identity full/),
      expect.stringMatching(/a\.b .*set logged/),
      expect.stringMatching(/a\.d .*role that drains/),
      expect.stringMatching(/a\.e .*full backup/),
    ]);
  });

  it("are called what they are called now, with what they were called then", () => {
    const uncovered = [{ name: "a.b", why: "rewritten" as const, formerly: "a.c" }, ...tables("rewritten", "d")];
    expect(uncoveredReasons(uncovered)).toEqual([
      expect.stringContaining("changes of a.b (formerly a.c), a.d are not all"),
    ]);
  });
});
