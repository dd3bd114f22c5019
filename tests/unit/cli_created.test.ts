import { describe, expect, it } from "vitest";
import { warningLines } from "../../src/cli/created.ts";

describe("warnings of a backup on the terminal", () => {
  it("are all shown where they are few", () => {
    expect(warningLines([{ code: "a", message: "one" }, { code: "b", message: "two" }])).toEqual(["a: one", "b: two"]);
  });

  it("of one code never drown those of another", () => {
    const many = Array.from({ length: 9 }, (_, index) => ({ code: "many", message: String(index) }));
    expect(warningLines([...many, { code: "quarantined", message: "look" }])).toEqual([
      "many: 0",
      "many: 1",
      "many: 2",
      "many: and 6 more, which --json lists",
      "quarantined: look",
    ]);
  });
});
