import { describe, expect, it } from "vitest";
import type { SegmentHeader } from "../../src/shared/changes/segments/segment.ts";
import { unloggedDefinitions } from "../../src/shared/changes/segments/unlogged.ts";

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

const off = { logged: false };
const catalog = (letter: string): Partial<SegmentHeader> => ({
  definitions: { hash: "a".repeat(32), logged: false, catalog: letter.repeat(64) },
});

describe("definitions that changed while nobody logged it", () => {
  it("are an obstacle with their place, whether the triggers came back or not", () => {
    for (const later of [header(2, "b", off), header(2, "b")]) {
      expect(unloggedDefinitions([header(1, "a", off), later], true)).toMatchObject({
        lsn: "0/2",
        why: expect.stringMatching(/missing or switched off/) as string,
      });
    }
    expect(unloggedDefinitions([header(1, "a"), header(2, "b", off)], true)).not.toBeNull();
  });

  it("are an obstacle where no column is another one: the whole catalog counts", () => {
    expect(unloggedDefinitions([header(1, "a", catalog("c")), header(2, "a", catalog("d"))], true)).toMatchObject({
      lsn: "0/2",
    });
    expect(unloggedDefinitions([header(1, "a", catalog("c")), header(2, "a", catalog("c"))], true)).toBeNull();
  });

  it("may have changed unseen where the triggers went or came", () => {
    expect(unloggedDefinitions([header(1, "a"), header(2, "a", catalog("c"))], true)).toMatchObject({ lsn: "0/2" });
    expect(unloggedDefinitions([header(1, "a", catalog("c")), header(2, "a")], true)).toMatchObject({ lsn: "0/2" });
  });

  it("may have changed before the first segment behind the full backup, where none was taken before it", () => {
    expect(unloggedDefinitions([header(1, "a", catalog("c"))], false)).toMatchObject({ lsn: "0/1" });
    expect(unloggedDefinitions([header(1, "a")], false)).toBeNull();
  });

  it("are none while the triggers are on: the change stands in a later segment of a drain that is behind", () => {
    expect(unloggedDefinitions([header(1, "a"), header(2, "b"), header(3, "b", { ddl: 1 })], true)).toBeNull();
  });

  it("are none where nothing changed, and where nothing is known", () => {
    expect(unloggedDefinitions([header(1, "a", off), header(2, "a", off)], true)).toBeNull();
    const { definitions: _, ...old } = header(1, "a");
    expect(unloggedDefinitions([old, header(2, "b", off)], true)).toBeNull();
    expect(unloggedDefinitions([], true)).toBeNull();
  });
});
