/** Segments as bytes, and the order in which a listing's segments follow each other. */
import { describe, expect, it } from "vitest";
import { inOrder, type ListedSegment } from "../../src/shared/changes/segments/chain_reader.ts";
import {
  leftTables,
  uncoveredTables,
  type UnsettledTable,
  unsettledTables,
  unsettledWarnings,
} from "../../src/shared/changes/segments/coverage.ts";
import {
  decodeSegment,
  encodeSegment,
  readRecords,
  RecordBuffer,
  segmentFormat,
  type SegmentHeader,
} from "../../src/shared/changes/segments/segment.ts";
import { snapshotView, widenXid } from "../../src/shared/changes/segments/visibility.ts";
import { segmentName } from "../../src/shared/format/layout.ts";

const header: SegmentHeader = {
  format: segmentFormat,
  version: 1,
  repositoryId: "01234567-89ab-4cde-8f01-23456789abcd",
  chain: "c1",
  startLsn: "0/10",
  endLsn: "0/20",
  part: 0,
  previous: null,
  startsInTransaction: false,
  endsInTransaction: false,
  transactions: 1,
  changes: 1,
  ddl: 0,
  firstCommitAt: null,
  lastCommitAt: null,
  takenAt: "2026-01-01T00:00:00.000000Z",
  nextXid: "800",
  server: { systemIdentifier: "1", database: "d", versionNum: 150_000 },
  sequences: [],
  uncovered: [],
};
const name = segmentName({ chain: "c1", startLsn: 0x10n, endLsn: 0x20n, part: 0 });

function records(count: number): Uint8Array {
  const buffer = new RecordBuffer();
  for (let at = 0; at < count; at++) buffer.append(BigInt(at) << 32n, at, new Uint8Array(at % 300).fill(at));
  return new Uint8Array(buffer.bytes());
}

describe("a segment", () => {
  it("gives back header and records as they were", () => {
    const plaintext = encodeSegment(header, records(3000));
    const opened = decodeSegment(name, plaintext);
    expect(opened.header).toEqual(header);
    const read = [...readRecords(name, opened.records)];
    expect(read.length).toBe(3000);
    expect(
      read.every((one, at) =>
        one.lsn === BigInt(at) << 32n && one.xid === at && one.data.length === at % 300 &&
        one.data.every((b) => b === at % 256)
      ),
    ).toBe(true);
  });

  it("is refused by name wherever it is cut", () => {
    const plaintext = encodeSegment(header, records(4));
    const headEnd = plaintext.length - records(4).length;
    let whole = 0;
    for (let length = 0; length < plaintext.length; length++) {
      const read = () => [...readRecords(name, decodeSegment(name, plaintext.subarray(0, length)).records)];
      // Between two records the sealed container is what knows.
      if (length >= headEnd && [0, 16, 33, 51].includes(length - headEnd)) {
        expect(read().length).toBeLessThan(4);
        whole++;
      } else expect(read, String(length)).toThrow(name);
    }
    expect(whole).toBe(4);
  });

  it("is refused under another's name, and when a newer Holdfast wrote it", () => {
    const plaintext = encodeSegment(header, records(1));
    const moved = segmentName({ chain: "c1", startLsn: 0x10n, endLsn: 0x30n, part: 0 });
    expect(() => decodeSegment(moved, plaintext)).toThrow("under another's name");
    const text = new TextDecoder().decode(plaintext.subarray(4)).replace('"version":1', '"version":9');
    const newer = new Uint8Array([...plaintext.subarray(0, 4), ...new TextEncoder().encode(text)]);
    expect(() => decodeSegment(name, newer)).toThrow(expect.objectContaining({ code: "format_newer" }));
  });
});

function listed(...given: [start: number, end: number, part?: number][]): ListedSegment[] {
  return given.map(([start, end, part = 0]) => {
    const parsed = { chain: "c", startLsn: BigInt(start), endLsn: BigInt(end), part };
    return { ...parsed, name: segmentName(parsed), size: 1 };
  });
}

const spans = (segments: readonly ListedSegment[]) =>
  inOrder(segments).map((one) => `${one.startLsn}-${one.endLsn}${one.part > 0 ? `#${one.part}` : ""}`);

describe("inOrder", () => {
  it("follows the recorded segments past those that a drainer put and never recorded", () => {
    expect(spans(listed([1, 4], [1, 3], [3, 6], [6, 9]))).toEqual(["1-3", "3-6", "6-9"]);
    expect(spans(listed([1, 3], [1, 2], [3, 6]))).toEqual(["1-3", "3-6"]);
    // The long one ends where the recorded ones come by.
    expect(spans(listed([1, 6], [1, 3], [3, 6], [6, 9]))).toEqual(["1-3", "3-6", "6-9"]);
  });

  it("takes the longest at the end, and ends where one is missing", () => {
    expect(spans(listed([1, 3], [3, 4], [3, 7], [3, 5]))).toEqual(["1-3", "3-7"]);
    expect(spans(listed([1, 3], [4, 7]))).toEqual(["1-3"]);
    expect(spans([])).toEqual([]);
  });

  it("keeps the parts of a transaction in their order, and ends before one of which a part is missing", () => {
    expect(spans(listed([3, 9, 2], [1, 3], [3, 9], [9, 10], [3, 9, 1]))).toEqual([
      "1-3",
      "3-9",
      "3-9#1",
      "3-9#2",
      "9-10",
    ]);
    expect(spans(listed([3, 9, 2], [1, 3], [3, 9], [9, 10]))).toEqual(["1-3"]);
  });
});

describe("transaction ids", () => {
  it("are widened to the nearest, on both sides of the next one and of a turn of the counter", () => {
    expect(widenXid(700, 800n)).toBe(700n);
    expect(widenXid(801, 800n)).toBe(801n);
    const turn = 5n << 32n;
    expect(widenXid(0xfffffff0, turn + 3n)).toBe(turn - 16n);
    expect(widenXid(7, turn + 3n)).toBe(turn + 7n);
    expect(widenXid(7, turn - 3n)).toBe(turn + 7n);
    expect(widenXid(3, turn + 0x70000000n)).toBe(turn + 3n);
  });

  it("are seen when below the end and not in progress", () => {
    const view = snapshotView("10:20:12,15");
    expect([9n, 12n, 13n, 15n, 19n, 20n].filter((xid) => view.sees(xid))).toEqual([9n, 13n, 19n]);
  });
});

describe("tables that the stream does not carry", () => {
  const at = (updated: number | null, inserted = 0): SegmentHeader => ({
    ...header,
    uncovered: updated === null ? [] : [{
      schema: "app",
      name: "t",
      missing: "updates and deletes",
      reason: "why",
      updated,
      deleted: 0,
      inserted,
    }],
  });

  const since = header.takenAt;
  const seen = (headers: readonly SegmentHeader[]) => uncoveredTables(headers, since);

  it("are named when all that is known of them is younger than the full backup", () => {
    expect(uncoveredTables([at(5)], "2025-12-31T23:59:59.000000Z")).toHaveLength(1);
    expect(uncoveredTables([at(0)], "2025-12-31T23:59:59.000000Z")).toEqual([]);
  });

  it("are named once a row of them can have changed unseen, and not before", () => {
    expect(seen([at(5), at(5, 9)])).toEqual([]);
    expect(seen([at(5), at(6)])).toEqual([{ schema: "app", name: "t", reason: "why" }]);
    expect(seen([at(null), at(0)])).toEqual([]);
    expect(seen([at(null), at(1), at(1)])).toHaveLength(1);
    expect(seen([at(5), at(null), at(6)])).toHaveLength(1);
    expect(seen([at(5), at(0)]), "counters that were reset cannot clear a table").toHaveLength(1);
  });

  it("are named after a delete as after an update, and after an insert where nothing of them is carried", () => {
    const counted = (more: Partial<SegmentHeader["uncovered"][number]>): SegmentHeader => ({
      ...header,
      uncovered: at(5).uncovered.map((table) => ({ ...table, ...more })),
    });
    expect(seen([counted({}), counted({ deleted: 1 })])).toHaveLength(1);
    expect(seen([counted({}), counted({ updated: 4, deleted: 2 })])).toHaveLength(1);
    const missing = "everything";
    expect(seen([counted({ missing }), counted({ missing, inserted: 1 })])).toHaveLength(1);
    expect(seen([counted({ missing }), counted({ missing })])).toEqual([]);
  });

  it("are told apart by their oids, whatever they are called", () => {
    const as = (oid: number, name: string, updated: number): SegmentHeader => ({
      ...header,
      uncovered: at(updated).uncovered.map((table) => ({ ...table, oid, name })),
    });
    expect(seen([as(1, "t", 5), as(2, "t", 5)]), "made anew, and changed as often").toEqual([
      { oid: 2, schema: "app", name: "t", reason: "why" },
    ]);
    expect(seen([as(1, "t", 5), as(2, "t", 0)])).toEqual([]);
    expect(seen([as(1, "t", 5), as(1, "renamed", 5)])).toEqual([]);
    expect(seen([at(5), as(1, "t", 5)]), "an older segment does not tell which it was").toHaveLength(1);
  });

  it("are named where their file is another one", () => {
    const filed = (file: number): SegmentHeader => ({
      ...header,
      uncovered: at(5).uncovered.map((table) => ({ ...table, missing: "everything" as const, file })),
    });
    expect(seen([filed(1), filed(1)])).toEqual([]);
    expect(seen([filed(1), filed(2)])).toHaveLength(1);
  });

  it("are named once the server has begun to count anew, whatever it counted before and after", () => {
    const counting = (countedSince: string, updated: number | null) => ({ ...at(updated), countedSince });
    expect(seen([counting("1", 0), counting("1", 0)])).toEqual([]);
    expect(seen([counting("1", 0), counting("2", 0)])).toHaveLength(1);
    expect(seen([counting("1", null), counting("2", 0)]), "it was covered before").toEqual([]);
  });

  it("are in doubt until the server must have counted what was done before the point", () => {
    const countedUntil = "2026-01-01T00:00:00.000002Z";
    const last = { ...at(0), countedUntil };
    const named = [{ schema: "app", name: "t", reason: "why", before: "point" }];
    expect(unsettledTables(last, "2026-01-01T00:00:00.000001Z")).toEqual([]);
    expect(unsettledTables(last, countedUntil)).toEqual(named);
    expect(unsettledTables(last, null)).toEqual(named);
    expect(unsettledTables({ ...last, countedUntil: null }, "2025-01-01T00:00:00.000000Z")).toEqual(named);
    expect(unsettledTables(at(0), "2025-01-01T00:00:00.000000Z"), "nobody said until when").toEqual(named);
    expect(unsettledTables({ ...at(null), countedUntil }, null)).toEqual([]);
  });

  it("are in doubt for good where they leave the list", () => {
    const left = (headers: readonly SegmentHeader[], now: readonly string[] = ["app.t"]) =>
      leftTables(headers, () => now);
    expect(left([at(0), at(0), at(null), at(null)])).toEqual(["app.t"]);
    expect(left([at(0), at(null), at(0), at(null)])).toEqual(["app.t"]);
    expect(left([at(null), at(0), at(0)])).toEqual([]);
    expect(left([at(0), at(null)], [])).toEqual([]);
    const renamed = { ...at(0), uncovered: at(0).uncovered.map((table) => ({ ...table, name: "t2" })) };
    expect(left([at(0), renamed]), "by another name it is there").toEqual([]);
  });

  it("are told of in a line for each kind of doubt, without those that were given up", () => {
    const table = (name: string, before: UnsettledTable["before"]) => ({ schema: "app", name, reason: "", before });
    expect(unsettledWarnings([table("T", "point"), table("u", "identity"), table("v", "point")], [])).toEqual([
      expect.stringContaining('missing in app."T", app.v:'),
      expect.stringContaining("missing in app.u:"),
    ]);
    expect(unsettledWarnings([table("T", "point"), table("u", "identity")], ['app."T"', "app.u"])).toEqual([]);
  });
});
