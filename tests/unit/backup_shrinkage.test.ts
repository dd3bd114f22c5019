import { describe, expect, it } from "vitest";
import { shrinkage, type TableRows } from "../../src/shared/backup/shrinkage.ts";

function table(rows: number, facts: Partial<TableRows> = {}): TableRows {
  return { oid: "1", relfilenode: "10", name: "public.entries", rows, deleted: 0, ...facts };
}

describe("a table that lost most of its rows", () => {
  it("is named when the database knows of no cause", () => {
    expect(shrinkage([table(5_000)], [table(100)])).toContain("public.entries went from 5000 to 100 rows");
  });
  it("is fine when as many deletes were counted", () => {
    expect(shrinkage([table(5_000)], [table(100, { deleted: 4_900 })])).toBeNull();
  });
  it("is fine after TRUNCATE or a rewrite, which give it another file", () => {
    expect(shrinkage([table(5_000)], [table(0, { relfilenode: "11" })])).toBeNull();
  });
  it("is fine when it was dropped", () => expect(shrinkage([table(5_000)], [])).toBeNull());
  it("is named when counters went back, since that is no cause", () => {
    expect(shrinkage([table(5_000, { deleted: 9_000 })], [table(100, { deleted: 10 })])).not.toBeNull();
  });
  it("is nobody's concern below a thousand rows while others keep theirs", () => {
    const other = table(10_000, { oid: "2" });
    expect(shrinkage([table(900), other], [table(0), other])).toBeNull();
  });
});

describe("a backup", () => {
  it("that became empty without a cause is named, however small it was", () => {
    expect(shrinkage([table(3)], [table(0)])).toContain("all rows are gone (3 before)");
  });
  it("that became empty by counted deletes is fine", () => {
    expect(shrinkage([table(3)], [table(0, { deleted: 3 })])).toBeNull();
  });
  it("that grew or stayed is fine", () => {
    expect(shrinkage([table(3)], [table(3)])).toBeNull();
    expect(shrinkage([table(3)], [table(4_000)])).toBeNull();
  });
});
