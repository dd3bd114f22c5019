import { describe, expect, it } from "vitest";
import { type BaseChunk, type PlannedTable, planTasks, rangesOf } from "../../src/shared/backup/plan.ts";
import { comparePlaces, halve, isSingleRow, type Place, type Range } from "../../src/shared/backup/ranges.ts";
import { numbersFrom } from "./backup_numbers.ts";

const mib = 1024 * 1024;

function table(facts: Partial<PlannedTable> = {}): PlannedTable {
  return {
    oid: "1",
    relfilenode: "10",
    blocks: 5_000,
    blockBytes: 8192,
    toastBytes: 0,
    heap: true,
    fingerprint: "f",
    reusable: true,
    ...facts,
  };
}

function baseChunk(range: Range, facts: Partial<BaseChunk> = {}): BaseChunk {
  return {
    oid: "1",
    relfilenode: "10",
    fingerprint: "f",
    range,
    rows: 1,
    rawBytes: 100,
    storedBytes: 50,
    object: "v1/objects/aa/x",
    hash: "h",
    storedHash: "s",
    takenFrom: "run",
    xmin: "700",
    seen: true,
    ...facts,
  };
}

const at = (block: number, item = 0): Place => ({ block, item });

/** The ranges as a reader needs them: from the table's start, each going on where the one before ends, the last open. */
function expectWhole(ranges: readonly { readonly range: Range }[]): void {
  expect(ranges[0]?.range.from).toEqual(at(0));
  for (const [index, { range }] of ranges.entries()) {
    const next = ranges[index + 1];
    if (next === undefined) expect(range.to).toBeNull();
    else {
      expect(range.to).toEqual(next.range.from);
      expect(comparePlaces(range.from, next.range.from)).toBeLessThan(0);
    }
  }
}

describe("ranges of a table", () => {
  it("cover it without a gap or an overlap, the last without an upper end", () => {
    const ranges = rangesOf(table(), [], 8 * mib);
    expectWhole(ranges);
    expect(ranges).toHaveLength(5);
  });

  it("are none for a table without blocks, and one for what is no heap", () => {
    expect(rangesOf(table({ blocks: 0 }), [], 8 * mib)).toEqual([]);
    expect(rangesOf(table({ heap: false }), [], 8 * mib)).toHaveLength(1);
  });

  it("are narrower where values lie outside the heap", () => {
    const plain = rangesOf(table(), [], 8 * mib).length;
    expect(rangesOf(table({ toastBytes: 5_000 * 8192 * 4 }), [], 8 * mib).length).toBeGreaterThan(plain * 5);
  });

  it("cover the table whatever the base was, over random bases", () => {
    const next = numbersFrom(20261121);
    for (let round = 0; round < 500; round++) {
      const places = [at(0), ...Array.from({ length: next(12) }, () => at(next(3_000), next(3) === 0 ? next(200) : 0))]
        .sort(comparePlaces)
        .filter((place, index, all) => index === 0 || comparePlaces(place, all[index - 1] ?? at(0)) > 0);
      const base = places
        .map((from, index) => baseChunk({ from, to: places[index + 1] ?? null }))
        .filter(() => next(4) > 0);
      const blocks = 1 + next(4_000);
      const ranges = rangesOf(table({ blocks }), base, mib);
      expectWhole(ranges);
      for (const { range, base: taken } of ranges) {
        if (taken === null) continue;
        expect(taken.range.from).toEqual(range.from);
        // The same range; or one of them is open, and nothing of the table lies between their ends.
        const same = JSON.stringify(taken.range.to) === JSON.stringify(range.to);
        const baseOpen = taken.range.to === null;
        const tableEndsBefore = range.to === null && (taken.range.to?.block ?? 0) >= blocks;
        expect(same || baseOpen || tableEndsBefore).toBe(true);
      }
    }
  });
});

describe("a range of the base", () => {
  const base = [baseChunk({ from: at(0), to: at(1_500) }), baseChunk({ from: at(1_500), to: null })];
  const taken = (facts: Partial<PlannedTable>, chunks = base) =>
    rangesOf(table({ blocks: 2_000, ...facts }), chunks, 8 * mib).filter((range) => range.base !== null).length;

  it("keeps its bounds and may be taken over while the table's file lives", () => {
    expect(taken({})).toBe(2);
  });

  it("is read again after a rewrite of the table", () => expect(taken({ relfilenode: "11" })).toBe(0));
  it("is read again when the fingerprint is another", () => expect(taken({ fingerprint: "g" })).toBe(0));
  it("is read again in a table whose text is looked up elsewhere", () => expect(taken({ reusable: false })).toBe(0));
  it("is read again when its object was not seen", () => {
    expect(taken({}, base.map((chunk) => ({ ...chunk, seen: false })))).toBe(0);
  });
  it("is not cut anew when the table grew a little at its end", () => expect(taken({ blocks: 2_300 })).toBe(2));
});

describe("tasks", () => {
  it("gather a thousand tiny tables into a few, each table in a range of its own", () => {
    const tables = Array.from({ length: 1_000 }, (_, index) => table({ oid: String(index + 1), blocks: 1 }));
    const tasks = planTasks(tables, [], { chunkBytes: 8 * mib, countBytes: 1024 * mib });
    const chunks = tasks.filter((task) => task.kind === "chunks");
    expect(chunks.length).toBeLessThanOrEqual(6);
    expect(new Set(chunks.flatMap((task) => task.ranges.map((range) => range.oid))).size).toBe(1_000);
    expect(tasks.at(-1)?.kind).toBe("manifest");
  });

  it("read about one chunk of text each", () => {
    const tasks = planTasks([table({ blocks: 100_000 })], [], { chunkBytes: 8 * mib, countBytes: 1024 * mib });
    for (const task of tasks.filter((each) => each.kind === "chunks")) {
      expect(task.estimatedBytes).toBeLessThanOrEqual(12 * mib);
    }
  });

  it("count every table, by other cuts than the chunks'", () => {
    const tables = [table({ blocks: 400_000 }), table({ oid: "2", blocks: 0 })];
    const tasks = planTasks(tables, [], { chunkBytes: 8 * mib, countBytes: 1024 * mib });
    const counts = tasks.filter((task) => task.kind === "counts").flatMap((task) => task.ranges);
    expectWhole(counts.filter((range) => range.oid === "1"));
    expect(counts.filter((range) => range.oid === "2")).toHaveLength(1);
  });

  it("of a database without tables are the manifest alone", () => {
    expect(planTasks([], [], { chunkBytes: mib, countBytes: mib }).map((task) => task.kind)).toEqual(["manifest"]);
  });
});

describe("halving", () => {
  it("comes to single rows, and its parts are the whole", () => {
    const leaves: Range[] = [];
    const open: Range[] = [{ from: at(0), to: null }];
    for (let steps = 0; open.length > 0; steps++) {
      expect(steps).toBeLessThan(20_000);
      const range = open.pop() as Range;
      const parts = halve(range, 4);
      if (parts === null) leaves.push(range);
      else open.push(parts[1], parts[0]);
    }
    expectWhole(leaves.map((range) => ({ range })));
    expect(leaves.slice(0, -1).every(isSingleRow)).toBe(true);
    // Every line pointer that a page can have is alone in its range.
    const firstPage = leaves.filter((range) => range.from.block === 0).map((range) => range.from.item);
    expect(firstPage.length).toBeGreaterThanOrEqual(291);
  });
});
