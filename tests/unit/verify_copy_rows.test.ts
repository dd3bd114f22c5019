import { describe, expect, it } from "vitest";
import { countCopyRows, projectCopyFields } from "../../src/shared/verify/copy_rows.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (of: Uint8Array): string => new TextDecoder().decode(of);

describe("rows of COPY text", () => {
  it("counts newline bytes, since a newline in a value is written as two letters", () => {
    expect(countCopyRows(bytes("1\ta\\nb\n2\t\\N\n"))).toBe(2);
    expect(countCopyRows(bytes(""))).toBe(0);
  });

  it("counts the empty lines of a table without columns", () => {
    expect(countCopyRows(bytes("\n\n\n"))).toBe(3);
  });

  it("refuses a last row that is cut", () => {
    expect(() => countCopyRows(bytes("1\ta\n2"))).toThrow(expect.objectContaining({ code: "object_damaged" }));
  });
});

describe("fields of COPY text", () => {
  it("keeps the fields asked for, in their order, escapes and nulls untouched", () => {
    const source = "1\ta\\tb\t\\N\tü\n2\t\tx\ty\\\\\n";
    expect(text(projectCopyFields(bytes(source), 4, [0, 1, 3]))).toBe("1\ta\\tb\tü\n2\t\ty\\\\\n");
    expect(text(projectCopyFields(bytes(source), 4, [2]))).toBe("\\N\nx\n");
    expect(text(projectCopyFields(bytes(source), 4, []))).toBe("\n\n");
  });

  it("refuses rows with another number of fields and a cut end", () => {
    expect(() => projectCopyFields(bytes("1\t2\n1\n"), 2, [0])).toThrow(
      expect.objectContaining({ code: "object_damaged" }),
    );
    expect(() => projectCopyFields(bytes("1\t2\n1\t2\t3\n"), 2, [0])).toThrow();
    expect(() => projectCopyFields(bytes("1\t2\n1\t2"), 2, [0])).toThrow();
  });
});
