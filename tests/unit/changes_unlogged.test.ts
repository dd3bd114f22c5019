import { describe, expect, it } from "vitest";
import type { SegmentHeader } from "../../src/shared/changes/segment.ts";
import { unloggedDefinitions } from "../../src/shared/changes/unlogged.ts";

const since = "2026-11-21T10:00:00.000000Z";

/** A header of the nth minute; `hash` is one letter. */
function header(minute: number, hash: string, more: Partial<SegmentHeader> & { logged?: boolean } = {}): SegmentHeader {
  const { logged = true, ...rest } = more;
  return {
    format: "holdfast/segment",
    version: 1,
    repositoryId: "7b0c2f6e-8a51-4a39-b7f5-2f2b8b2f6a10",
    chain: "c",
    startLsn: `0/${minute}`,
    endLsn: `0/${minute + 1}`,
    part: 0,
    previous: null,
    startsInTransaction: false,
    endsInTransaction: false,
    transactions: 0,
    changes: 0,
    ddl: 0,
    firstCommitAt: null,
    lastCommitAt: null,
    takenAt: `2026-11-21T10:0${minute}:00.000000Z`,
    nextXid: "1",
    server: { systemIdentifier: "1", database: "d", versionNum: 150000 },
    sequences: [],
    definitions: { hash: hash.repeat(32), logged },
    uncovered: [],
    ...rest,
  };
}

describe("definitions that changed without a row of the log", () => {
  it("are an obstacle with their place, whether the triggers are there or not", () => {
    const silent = [header(1, "a"), header(2, "b"), header(3, "b")];
    expect(unloggedDefinitions(silent, since)).toMatchObject({ lsn: "0/2", why: "it was not logged" });
    const without = [header(1, "a", { logged: false }), header(2, "b", { logged: false })];
    expect(unloggedDefinitions(without, since)).toMatchObject({
      lsn: "0/2",
      why: expect.stringMatching(/missing or switched off/),
    });
  });

  it("are none where the log has a row in that segment, in a later part of it, or in the next one", () => {
    expect(unloggedDefinitions([header(1, "a"), header(2, "b", { ddl: 1 })], since)).toBeNull();
    expect(unloggedDefinitions([header(1, "a"), header(2, "b"), header(2, "b", { part: 1, ddl: 2 })], since))
      .toBeNull();
    expect(unloggedDefinitions([header(1, "a"), header(2, "b"), header(3, "b", { ddl: 1 })], since)).toBeNull();
  });

  it("are none at the end of a chain that logs: the row comes with the next segment", () => {
    expect(unloggedDefinitions([header(1, "a"), header(2, "b")], since)).toBeNull();
  });

  it("are none before the full backup, where nothing changed, and where nothing is known", () => {
    expect(unloggedDefinitions([header(1, "a"), header(2, "b"), header(3, "b")], "2026-11-21T10:02:00.000000Z"))
      .toBeNull();
    expect(unloggedDefinitions([header(1, "a"), header(2, "a")], since)).toBeNull();
    const { definitions: _, ...old } = header(1, "a");
    expect(unloggedDefinitions([old, header(2, "b"), header(3, "b")], since)).toBeNull();
    expect(unloggedDefinitions([], since)).toBeNull();
  });
});
