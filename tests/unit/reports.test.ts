/** What a report says and leaves open; and that a guardian's words in the ledger erase nothing. */
import { describe, expect, it } from "vitest";
import { reportLines } from "../../src/cli/report_shown.ts";
import type { LedgerEntry } from "../../src/shared/erase/entry.ts";
import { planRewriting } from "../../src/shared/erase/rewrite/plan_rewriting.ts";
import { cannotTell } from "../../src/shared/privacy/person_report.ts";
import { type Kept, keptFormat, type Live, type Report } from "../../src/shared/privacy/report_format.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";

const kept = (more: Partial<Kept> = {}): Kept =>
  keptFormat.parse({
    at: "2026-11-23T12:00:00Z",
    person: `person:${"0".repeat(64)}`,
    standing: "there",
    since: "2026-01-01T00:00:00Z",
    until: null,
    hold: null,
    isAdministrator: false,
    stores: { first: "s3://a", firstLock: null, second: "s3://b", secondLock: "14 days" },
    backups: [],
    stream: { segments: 0, from: null, to: null, copied: 0, window: 604_800 },
    fileCopies: { files: 0, versions: 0 },
    downloads: [],
    exports: [],
    imports: [],
    sides: [],
    guardians: [],
    erasure: null,
    seen: [],
    mayHaveSeen: [],
    most: 200,
    ...more,
  });

const act = {
  at: "2026-11-23T11:00:00Z",
  action: "download.made",
  subject: "download:1",
  who: "role:postgres",
  detail: {},
};
const live: Live = {
  tables: [{ table: "public.notes", rows: 3, shared: 1 }],
  files: [],
  withoutPath: [],
  suspects: [],
};
const shown = (more: Partial<Report>): string =>
  reportLines("anna", { ...kept(), live, notCounted: null, cannotTell: ["nothing more"], ...more }).join("\n");

describe("what cannot be told", () => {
  it("is said each time, and more where there is more that nobody knows", () => {
    const always = cannotTell(kept(), live);
    expect(always).toHaveLength(4);
    expect(cannotTell(kept({ mayHaveSeen: [act] }), live)).toHaveLength(5);
    expect(cannotTell(kept({ seen: Array(200).fill(act) }), live).join()).toContain("newest 200");
    expect(cannotTell(kept({ standing: "deleted", since: null }), null).join()).toContain("older backups");
    expect(cannotTell(kept({ standing: "erased" }), null).join()).toContain("what the ledger tells");
    expect(cannotTell(kept(), { ...live, suspects: ["public.events.user_id"] }).join()).toContain("no way leads");
  });
});

describe("a report for people", () => {
  it("says nothing where there is nothing, and never that there is nothing where it was not counted", () => {
    const text = shown({ live: null, notCounted: "counting took too long here" });
    expect(text).toContain("not counted: counting took too long here");
    expect(text).toMatch(/In the second store \(s3:\/\/b\):\n {2}nothing/);
    expect(shown({})).toContain("3 rows, and 1 rows that are others' as well");
  });

  it("names each backup with every day that keeps it", () => {
    const backup = {
      backup: "0b1f",
      tiers: ["weekly"],
      takenAt: "2026-11-01T00:00:00Z",
      until: "2026-12-01T00:00:00Z",
      latest: "2027-11-01T00:00:00Z",
      heldUntil: "2026-12-24T00:00:00Z",
      holdReason: "a court order",
      lockedUntil: "2026-11-15T00:00:00Z",
      second: true,
      secondLockedUntil: "2026-11-16T00:00:00Z",
    };
    const text = shown({ backups: [backup] });
    for (const part of Object.values(backup)) if (typeof part === "string") expect(text).toContain(part);
    expect(shown({ backups: [{ ...backup, until: null, latest: null }] })).toContain(
      "kept until it is removed by hand",
    );
  });

  it("tells who the person was to the audit, and what a guardian asked for", () => {
    const guardian = {
      request: "77aa",
      relation: "parent",
      asks: ["review", "erasure"],
      identityBy: "video",
      saidOn: "2026-11-20",
      recordedAt: "2026-11-21T00:00:00Z",
      entry: "v1/erasures/000000000000001",
      status: "open",
      reviewedAt: null,
      erasedAt: null,
    };
    expect(shown({ guardians: [guardian], seen: [act] })).toMatch(
      /A parent asked for review and erasure on 2026-11-20, known by video \(request 77aa\): open[\s\S]*download\.made download:1 by role:postgres/,
    );
  });
});

describe("a guardian's words in the ledger", () => {
  const entry = (number: number, more: Partial<LedgerEntry> = {}): LedgerEntry => ({
    number,
    erasure: `e${number}`,
    at: "2026-11-23T12:00:00Z",
    map: emptyMap,
    rows: [],
    hashes: [],
    ...more,
  });
  const consent = {
    child: "0".repeat(32),
    guardian: { name: "M", reach: "m@example.org", relation: "parent" },
    asks: ["erasure"],
    identityBy: "video",
    saidOn: "2026-11-20",
    statement: "x",
  } as const;

  it("make no backup due for a rewriting", () => {
    const backup = { name: "b", consistentAt: new Date(1), through: 1, hold: null };
    const erasures = [{ id: "e1", searchedAt: new Date(2) }];
    const words = { ...consent, asks: [...consent.asks] };
    expect(planRewriting([entry(1), entry(2, { consent: words })], erasures, [backup])).toMatchObject({
      backups: [],
      through: 1,
    });
    expect(planRewriting([entry(1), entry(2)], erasures, [backup])).toMatchObject({
      backups: [{ backup }],
      through: 2,
    });
  });
});
