import { describe, expect, it } from "vitest";
import { closingLine, tally } from "../support/tally.mjs";

const file = (name: string, status: string, ...tests: string[]) => ({
  name: `/clone/${name}`,
  status,
  assertionResults: tests.map((each) => ({ status: each })),
});

describe("the closing line of the suite", () => {
  it("counts passed, failed and skipped tests", () => {
    const report = {
      testResults: [file("a.test.ts", "failed", "passed", "failed"), file("b.test.ts", "passed", "pending", "todo")],
    };
    expect(closingLine(tally(report, []))).toBe("tests: 1 passed, 1 failed, 2 skipped");
  });

  it("counts a file that broke outside its tests as a failure", () => {
    const report = { testResults: [file("a.test.ts", "failed"), file("b.test.ts", "failed", "pending", "pending")] };
    expect(tally(report, [])).toMatchObject({ passed: 0, failed: 2, skipped: 2 });
  });

  it("names the files of which nothing ran", () => {
    const report = { testResults: [file("a.test.ts", "passed", "passed"), file("b.test.ts", "passed", "pending")] };
    expect(tally(report, ["a.test.ts", "b.test.ts", "c.test.ts"]).silent).toEqual(["b.test.ts", "c.test.ts"]);
  });
});
