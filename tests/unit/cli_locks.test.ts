import { describe, expect, it } from "vitest";
import { lockChecks } from "../../src/cli/checks/second_store.ts";

const lock = (days: number) => ({ preset: { mode: "COMPLIANCE", days } });
const statesOf = (facts: Parameters<typeof lockChecks>[0]) => lockChecks(facts).map(({ state }) => state);

describe("what doctor says of a bucket's locks", () => {
  it("refuses a lock by default of more than 29 days, and takes one of 29", () => {
    expect(statesOf({ versioning: "on", lock: lock(30) })).toEqual(["fail"]);
    expect(statesOf({ versioning: "on", lock: lock(365) })).toEqual(["fail"]);
    expect(statesOf({ versioning: "on", lock: lock(29) })).toEqual(["ok", "warn"]);
    expect(lockChecks({ versioning: "on", lock: lock(29) })[1]?.hint).toContain("Key files");
  });

  it("says how long what is new is locked, and how", () => {
    expect(lockChecks({ versioning: "on", lock: lock(7) })[0]?.message).toBe(
      "versions are kept; new objects are locked for 7 days (compliance)",
    );
  });

  it.each(
    [
      ["no S3", null, /has none/],
      ["no lock", { versioning: "off", lock: "off" }, /no versions are kept; no object lock/],
      ["versions alone", { versioning: "on", lock: "off" }, /versions are kept; no object lock/],
      ["a lock that nothing has", { versioning: "on", lock: { preset: null } }, /locks nothing/],
      ["a lock of no days", { versioning: "on", lock: lock(0) }, /locks nothing/],
      ["a server that tells nothing", { versioning: "unknown", lock: "unknown" }, /does not tell/],
    ] as const,
  )("warns of %s, with the way out", (_what, facts, message) => {
    const [check, ...more] = lockChecks(facts);
    expect(check).toMatchObject({ state: "warn", message: expect.stringMatching(message) });
    expect(check?.hint).toContain("at most 29 days");
    expect(more).toEqual([]);
  });
});
