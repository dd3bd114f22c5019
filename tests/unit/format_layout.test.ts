import { describe, expect, it } from "vitest";
import {
  claimName,
  contentName,
  epochName,
  fileListName,
  manifestName,
  parseClaimName,
  parseEpochName,
  parseFileListName,
  parseManifestName,
  parseSegmentName,
  parseUtcStamp,
  segmentName,
  utcStamp,
} from "../../src/shared/format/layout.ts";
import { checkName } from "../../src/shared/store/names.ts";
import { failureOf } from "./format_fixture.ts";

const id = "7b0c2f6e-8a51-4a39-b7f5-2f2b8b2f6a10";
const hash = "ab".repeat(32);

describe("names (docs/format.md)", () => {
  it("are the documented ones, and every store takes them", () => {
    const names = [
      epochName("e20261121T184500Z-0db5aae6"),
      contentName("chunk", hash),
      contentName("schema", hash),
      contentName("blob", hash),
      segmentName({ chain: "s-1", startLsn: 0x16b374d848n, endLsn: 0x16b374d900n, part: 0 }),
      segmentName({ chain: "s-1", startLsn: 0x16b374d848n, endLsn: 0x16b374d900n, part: 12 }),
      manifestName({ createdAt: new Date("2026-11-21T18:45:00.999Z"), tier: "daily", id }),
      claimName(42),
    ];
    expect(names).toEqual([
      "v1/keys/e20261121T184500Z-0db5aae6.jwe.json",
      `v1/objects/ab/${hash}`,
      `v1/objects/ab/${hash}`,
      `v1/blobs/ab/${hash}`,
      "v1/changes/s-1/00000016b374d848-00000016b374d900",
      "v1/changes/s-1/00000016b374d848-00000016b374d900.000012",
      `v1/backups/20261121T184500Z-daily-${id}/manifest`,
      "v1/claims/000000000000042",
    ]);
    names.forEach(checkName);
  });

  it("of claims say their number, and no other name is taken for one", () => {
    expect(parseClaimName(claimName(999_999_999_999_999))).toBe(999_999_999_999_999);
    for (
      const name of [
        "v1/claims/000000000000000",
        "v1/claims/42",
        "v1/claims/0000000000000042",
        "v1/claims/00000000000004a",
      ]
    ) {
      expect(parseClaimName(name), name).toBeNull();
    }
  });

  it("of segments sort as positions do", () => {
    const ends = [9n, 10n, 0xffffffffn, 1n << 32n, 9n << 32n, 10n << 32n, 16n << 32n];
    const names = ends.flatMap((lsn) =>
      [0, 1, 2, 10].map((part) => segmentName({ chain: "c", startLsn: lsn, endLsn: lsn, part }))
    );
    expect([...names].sort()).toEqual(names);
  });

  it("of segments say what they were made of, and no other name is taken for one", () => {
    for (const part of [0, 1, 999_999]) {
      const segment = { chain: "a-1", startLsn: 1n, endLsn: 0xfedcba9876543210n, part };
      expect(parseSegmentName(segmentName(segment))).toEqual(segment);
    }
    const range = "0000000000000001-0000000000000002";
    for (
      const name of [
        `v1/changes/A/${range}`,
        `v1/changes/a/${range}.000000`,
        `v1/changes/a/${range}.1`,
        `v1/changes/${range}`,
      ]
    ) {
      expect(parseSegmentName(name)).toBeNull();
    }
  });

  it("of lists of files stand beside the segments, sort as positions do, and are taken for no segment", () => {
    const hash = "0123456789abcdef".repeat(4);
    const lsns = [9n, 10n, 0xffffffffn, 1n << 32n, 16n << 32n];
    const names = lsns.map((lsn) => fileListName({ chain: "a-1", lsn, hash }));
    expect([...names].sort()).toEqual(names);
    for (const [index, name] of names.entries()) {
      expect(parseFileListName(name)).toEqual({ chain: "a-1", lsn: lsns[index], hash });
      expect(parseSegmentName(name)).toBeNull();
      expect(() => checkName(name)).not.toThrow();
    }
    const segment = segmentName({ chain: "a-1", startLsn: 1n, endLsn: 2n, part: 0 });
    for (const name of [segment, names[0]?.slice(0, -1), `${names[0]}0`, names[0]?.replace("a-1", "A")]) {
      expect(parseFileListName(name ?? "")).toBeNull();
    }
  });

  it("of manifests and epochs say what they were made of", () => {
    const backup = { createdAt: new Date("2026-11-21T18:45:00Z"), tier: "daily", id };
    expect(parseManifestName(manifestName(backup))).toEqual(backup);
    expect(parseEpochName(epochName("e20261121T184500Z-0db5aae6"))).toBe("e20261121T184500Z-0db5aae6");
  });

  it.each([
    "",
    "v1/backups/x/manifest",
    `v1/backups/20261321T184500Z-daily-${id}/manifest`,
    `v1/backups/20260230T184500Z-daily-${id}/manifest`,
    `v1/backups/20261121T184500Z-Daily-${id}/manifest`,
    `v1/backups/20261121T184500Z-daily-${id.toUpperCase()}/manifest`,
    `v1/backups/20261121T184500Z-daily-${id}/manifest.bak`,
    `x/v1/backups/20261121T184500Z-daily-${id}/manifest`,
  ])("that no manifest has are not taken for one: %s", (name) => {
    expect(parseManifestName(name)).toBeNull();
    expect(parseEpochName(name)).toBeNull();
  });

  it("are never made of what could leave its place", async () => {
    expect((await failureOf(() => contentName("chunk", "../x"))).code).toBe("internal");
    expect((await failureOf(() => segmentName({ chain: "../x", startLsn: 1n, endLsn: 2n, part: 0 }))).code).toBe(
      "internal",
    );
    expect((await failureOf(() => epochName("../x"))).code).toBe("internal");
  });

  it("have times that survive the way there and back, leap days included", () => {
    for (const iso of ["2024-02-29T23:59:59Z", "2026-12-31T00:00:00Z"]) {
      expect(parseUtcStamp(utcStamp(new Date(iso)))).toEqual(new Date(iso));
    }
    for (const stamp of ["", "2026", "20260229T000000Z", "20261121T250000Z"]) expect(parseUtcStamp(stamp)).toBeNull();
  });
});
