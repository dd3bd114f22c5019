import { describe, expect, it } from "vitest";
import { lockChecks, seenChecks } from "../../src/cli/checks/locks.ts";
import type { LockSettings } from "../../src/shared/store/lock.ts";
import type { BucketFacts } from "../../src/shared/store/s3_bucket.ts";

const lock = (days: number) => ({ preset: { mode: "COMPLIANCE", days } });
const on = (preset: BucketFacts["lock"]): BucketFacts => ({ versioning: "on", lock: preset });
const statesOf = (facts: BucketFacts | null, asked: LockSettings | null = null) =>
  lockChecks(facts, asked).map(({ state }) => state);
const off = { days: 0, mode: "GOVERNANCE" } as const;

describe("what doctor says of a bucket's locks", () => {
  it("refuses a lock by default of more than 29 days, and takes one of 29", () => {
    expect(statesOf(on(lock(30)))).toEqual(["ok", "fail"]);
    expect(statesOf(on(lock(365)), off)).toEqual(["warn", "fail"]);
    expect(statesOf(on(lock(29)))).toEqual(["ok"]);
  });

  it("says how long what is new is locked, and how: by the address, else two weeks, whatever the bucket's default is", () => {
    for (const preset of [null, { mode: "COMPLIANCE", days: 7 }]) {
      expect(lockChecks(on({ preset }), null).map(({ message }) => message)).toEqual([
        "versions are kept; what is new is locked for 14 days (governance), keys are not",
      ]);
      expect(lockChecks(on({ preset }), { days: 29, mode: "COMPLIANCE" })[0]?.message).toContain(
        "29 days (compliance)",
      );
    }
  });

  it("says what lock=off leaves", () => {
    expect(lockChecks(on({ preset: null }), off)[0]).toMatchObject({
      state: "warn",
      message: expect.stringMatching(/locks nothing/),
    });
    expect(lockChecks(on(lock(7)), off)[0]).toMatchObject({
      state: "warn",
      message: expect.stringMatching(/7 days \(compliance\) by the bucket's default, and is not renewed/),
    });
  });

  it.each(
    [
      ["no S3", null, /has none/],
      ["no lock", { versioning: "off", lock: "off" }, /no versions are kept; no object lock/],
      ["versions alone", { versioning: "on", lock: "off" }, /versions are kept; no object lock/],
      ["a server that tells nothing", { versioning: "unknown", lock: "unknown" }, /does not tell/],
    ] as const,
  )("warns of %s, with the way out, and fails where the address asks for a lock", (_what, facts, message) => {
    const [check, ...more] = lockChecks(facts, null);
    expect(check).toMatchObject({ state: "warn", message: expect.stringMatching(message) });
    expect(check?.hint).toContain("object lock");
    expect(more).toEqual([]);
    if (facts !== null) expect(statesOf(facts, { days: 7, mode: "GOVERNANCE" })).toEqual(["fail"]);
  });
});

describe("what doctor says of what lies there", () => {
  const now = new Date("2026-11-22T12:00:00Z");
  const until = (days: number) => ({ mode: "GOVERNANCE", until: new Date(now.getTime() + days * 86_400_000) });

  it("is nothing where nothing lies there", () => {
    expect(seenChecks({ now, manifest: undefined, key: undefined })).toEqual([]);
  });

  it.each(
    [
      ["a backup that is locked", until(14), null, ["ok"]],
      ["one of 29 days", until(29), null, ["ok"]],
      ["one that is locked for longer, by whatever", until(365), null, ["fail"]],
      ["one whose lock has ended", until(-1), null, ["warn"]],
      ["one that is not locked, though the bucket can", null, null, ["warn"]],
      ["a key file within its first minutes", until(14), until(1 / 72), ["ok"]],
      ["a key file that is locked", until(14), until(7), ["ok", "warn"]],
    ] as const,
  )("tells %s", (_what, manifest, key, states) => {
    expect(seenChecks({ now, manifest, key }).map(({ state }) => state)).toEqual(states);
  });
});
