import { describe, expect, it } from "vitest";
import { sinceFull } from "../../src/shared/changes/segments/coverage.ts";
import type { SegmentHeader } from "../../src/shared/changes/segments/segment.ts";

const moment = (minute: number) => `2026-01-01T00:${String(minute).padStart(2, "0")}:00.000000Z`;

/** Taken at this minute; its end and the next transaction id are those of `place`. */
function header(minute: number, place: number): SegmentHeader {
  return {
    format: "holdfast/segment",
    version: 1,
    repositoryId: "r",
    chain: "c",
    startLsn: `0/${place}00`,
    endLsn: `0/${place}FF`,
    part: 0,
    previous: null,
    startsInTransaction: false,
    endsInTransaction: false,
    transactions: 0,
    changes: 0,
    ddl: 0,
    firstCommitAt: null,
    lastCommitAt: null,
    takenAt: moment(minute),
    nextXid: String(place * 100),
    server: { systemIdentifier: "1", database: "d", versionNum: 150000 },
    sequences: [],
    uncovered: [],
  };
}

describe("what happened since a full backup", () => {
  const full = { consistentAt: moment(30), snapshot: { text: "450:450:", walInsertLsn: "0/4FF" } };

  it("begins with the last segment that was taken before it", () => {
    const headers = [header(10, 1), header(20, 2), header(29, 4), header(31, 5), header(40, 6)];
    expect(sinceFull(headers, full)).toEqual({ headers: headers.slice(2), since: moment(29) });
  });

  it("begins before all that is known where every segment was taken behind it", () => {
    const headers = [header(31, 5), header(40, 6)];
    expect(sinceFull(headers, full)).toEqual({ headers, since: "" });
    expect(sinceFull([], full)).toEqual({ headers: [], since: "" });
  });

  it("is not taken for older by a clock that was moved back: the log and the transaction ids know better", () => {
    const [before, behind] = [header(29, 4), header(5, 6)];
    expect(sinceFull([before, behind], full)).toEqual({ headers: [before, behind], since: moment(29) });
    // A drain that is behind reads old log, but its transaction ids are of now.
    const late = { ...header(5, 3), nextXid: "700" };
    expect(sinceFull([before, late], full).headers).toHaveLength(2);
    const further = { ...header(5, 6), nextXid: "400" };
    expect(sinceFull([before, further], full).headers).toHaveLength(2);
  });

  it("holds a segment whose counters may have been read behind the full's snapshot", () => {
    const reading = (countedNextXid: string) => ({ ...header(29, 4), countedNextXid });
    expect(sinceFull([header(20, 2), reading("449")], full).headers).toHaveLength(1);
    expect(sinceFull([header(20, 2), reading("450")], full).headers).toHaveLength(2);
  });

  it("holds a segment that was taken later, though its part of the log is older", () => {
    expect(sinceFull([header(29, 2), header(35, 3)], full).headers).toHaveLength(2);
  });
});
