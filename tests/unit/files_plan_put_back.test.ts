/** What would become of each file, by what stands in its place. */
import { describe, expect, it } from "vitest";
import { planPutBack, type PresentFile } from "../../src/shared/files/plan_put_back.ts";
import type { ListedFile } from "../../src/shared/format/file_list.ts";

const row = { version: "v1", owner_id: "somebody", metadata: { eTag: '"1"' } };
const listed = (more: Partial<ListedFile> = {}): ListedFile => ({
  bucket: "notes",
  name: "a",
  id: "1",
  size: 7,
  inSnapshot: true,
  missed: null,
  parts: [],
  row: JSON.stringify(row),
  ...more,
});
const present = (more: Partial<PresentFile> = {}): PresentFile => ({
  id: "2",
  bucket: "notes",
  name: "a",
  version: "v2",
  size: 7,
  etag: '"1"',
  isOwned: true,
  isHalf: false,
  ...more,
});

describe("a file that comes back", () => {
  it.each([
    ["gone", null, {}, true, true],
    ["same", present(), {}, false, false],
    ["same", present({ version: "v1", etag: null, isOwned: false }), {}, false, false],
    ["differs", present({ etag: '"2"' }), {}, false, true],
    ["differs", present({ size: 8 }), {}, false, true],
    // Nobody's, and the backup knows whose it was: a restore was broken off between bytes and row.
    ["half", present({ isOwned: false }), {}, true, true],
    ["same", present({ isOwned: false }), { row: JSON.stringify({ ...row, owner_id: null }) }, false, false],
    // By its mark, whatever its content: the restore that was broken off may have been another backup's.
    ["half", present({ isHalf: true, etag: '"2"' }), {}, true, true],
    ["lost", present({ isHalf: true }), { missed: "changed" as const }, false, false],
    ["later", null, { inSnapshot: false }, true, true],
  ])("is %s", (state, there, more, missing, merge) => {
    const plans = (["missing", "merge"] as const).map((mode) =>
      planPutBack([listed(more)], there === null ? [] : [there], mode).files[0]
    );
    expect(plans.map((plan) => plan?.state)).toEqual([state, state]);
    expect(plans.map((plan) => plan?.puts)).toEqual([missing, merge]);
    expect(plans.map((plan) => plan?.replaces)).toEqual([there !== null, there !== null]);
  });
});
