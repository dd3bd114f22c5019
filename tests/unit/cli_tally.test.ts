import { describe, expect, it } from "vitest";
import { closingLine, failures, tally } from "../support/tally.mjs";

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

  it("comes behind each failed test and broken file by name, with the beginning of why", () => {
    const why = `expected 1 to be 2\n${"at line\n".repeat(100)}`;
    const report = {
      testResults: [
        {
          ...file("a.test.ts", "failed", "passed"),
          assertionResults: [{ status: "passed", fullName: "a holds" }, {
            status: "failed",
            fullName: "a breaks",
            failureMessages: [why],
          }],
        },
        { ...file("b.test.ts", "failed", "pending"), message: "no server" },
        file("c.test.ts", "passed", "passed"),
      ],
    };
    const [test, broken, ...more] = failures(report);
    expect(test).toMatch(/^\/clone\/a\.test\.ts > a breaks: expected 1 to be 2\n/);
    expect(test?.length).toBeLessThan(200);
    expect(broken).toBe("/clone/b.test.ts: no server");
    expect(more).toEqual([]);
  });
});
