import { describe, expect, it } from "vitest";
import type { Claim } from "../../src/shared/identity/claim.ts";
import { type Found, hasMoved, type Identity, judge, type Verdict } from "../../src/shared/identity/judge.ts";

const here = { systemIdentifier: "1", database: "postgres" };
const known: Identity = {
  install: "7b0c2f6e-8a51-4a39-b7f5-2f2b8b2f6a10",
  ref: "abcdefghijklmnopqrst",
  presentRef: null,
  recorded: here,
  present: here,
  prefix: "",
  isCopy: false,
  adopting: false,
  adoptedAt: null,
};
const unknown: Identity = { ...known, ref: null };
const claim: Claim = {
  number: 7,
  nonce: "00112233445566778899aabbccddeeff",
  install: known.install,
  ref: known.ref,
  ...here,
  at: "2026-11-22T18:00:00Z",
};
const empty: Found = { newest: null, backup: null, hasClaimed: false, hasClaimedHere: false, hasAdoptedHere: false };
const ours: Found = {
  newest: { number: 7, claim, isOurs: true },
  backup: null,
  hasClaimed: true,
  hasClaimedHere: true,
  hasAdoptedHere: false,
};
const foreign: Found = { ...ours, newest: { number: 8, claim: { ...claim, number: 8 }, isOurs: false } };
const stranger = { ...claim, install: "00000000-0000-4000-8000-000000000000" };
const ofStranger: Found = { ...ours, newest: { number: 8, claim: stranger, isOurs: false } };
const adopted: Identity = { ...known, adoptedAt: "2026-11-22T18:00:00Z" };
const upgraded = { ...here, systemIdentifier: "2" };
const renamed = { ...here, database: "other" };
const backupOf = (project: typeof here & { ref: string | null }, isKnown = false): Found => ({
  ...empty,
  backup: { project, isKnown },
});

describe("whether a database may write where it wrote", () => {
  it.each<[string, Identity, Found, Verdict["kind"]]>([
    ["a first database in an empty store", unknown, empty, "own"],
    ["the one that claimed last", known, ours, "own"],
    ["one whose claims are gone from the store, which is empty", known, { ...empty, hasClaimed: true }, "own"],
    ["one that was upgraded in its project", { ...known, present: upgraded }, ours, "own"],
    ["one that was upgraded while somebody else wrote", { ...known, present: upgraded }, foreign, "copy"],
    ["one on another server, of no known project", { ...unknown, present: upgraded }, ours, "copy"],
    [
      "one on another server that has never written, of no known project",
      { ...unknown, present: upgraded },
      empty,
      "own",
    ],
    ["one under another name, also in its project", { ...known, present: renamed }, ours, "copy"],
    ["one that somebody has overtaken", known, foreign, "copy"],
    ["one whose last claim is damaged", known, { ...ours, newest: { number: 7, claim: null, isOurs: false } }, "copy"],
    [
      "one in a store with its own backups from before there were claims",
      known,
      backupOf({ ref: null, ...here }),
      "own",
    ],
    ["the same after an upgrade", { ...known, present: upgraded }, backupOf({ ref: known.ref, ...here }, true), "own"],
    [
      "one in a store with backups of another project",
      known,
      backupOf({ ref: "zyxwvutsrqponmlkjihg", ...here }),
      "copy",
    ],
    ["one whose store another install has claimed", known, ofStranger, "copy"],
    [
      "a first one in another install's store",
      known,
      { ...ofStranger, hasClaimed: false, hasClaimedHere: false },
      "copy",
    ],
    [
      "one that writes elsewhere, in another install's store",
      known,
      { ...ofStranger, hasClaimedHere: false },
      "strange",
    ],
    ["one that writes elsewhere, in a store with another's backups", unknown, {
      ...backupOf({ ref: null, ...upgraded }),
      hasClaimed: true,
    }, "strange"],
    ["one that has adopted, in a further store", adopted, { ...foreign, hasClaimedHere: false }, "own"],
    ["one that has adopted, and was overtaken since", adopted, { ...foreign, hasAdoptedHere: true }, "copy"],
    ["one that has adopted, in a further store that is claimed since", {
      ...adopted,
      adoptedAt: "2026-11-22T17:59:59Z",
    }, {
      ...foreign,
      hasClaimedHere: false,
    }, "copy"],
    ["one that has adopted and is a copy again", { ...adopted, prefix: "clone-1" }, {
      ...foreign,
      hasClaimedHere: false,
    }, "copy"],
    ["one that has adopted, in a further store whose last claim is damaged", adopted, {
      ...ours,
      newest: { number: 8, claim: null, isOurs: false },
      hasClaimedHere: false,
    }, "strange"],
    [
      "a copy on a further server that has never written",
      { ...unknown, present: upgraded, isCopy: true },
      empty,
      "copy",
    ],
    ["one of a known project under another name that has never written", { ...known, present: renamed }, empty, "copy"],
    [
      "one in another project than before, in a store with that one's backups",
      { ...known, presentRef: "zyxwvutsrqponmlkjihg" },
      backupOf({ ref: "zyxwvutsrqponmlkjihg", ...here }),
      "own",
    ],
    [
      "one in its project after an upgrade, in a store with backups that it does not know",
      { ...known, present: upgraded },
      backupOf({ ref: known.ref, ...here }),
      "copy",
    ],
    ["one in a store with backups of another server", unknown, backupOf({ ref: null, ...upgraded }, true), "copy"],
  ])("%s", (_what, identity, found, verdict) => {
    expect(judge(identity, found).kind).toBe(verdict);
  });

  it("says who wrote, and when", () => {
    expect(judge(known, foreign)).toMatchObject({
      because: expect.stringMatching(/abcdefghij.*2026-11-22T18:00:00Z/) as string,
    });
    expect(judge(known, ofStranger))
      .toMatchObject({ because: expect.stringContaining("another install") as string });
  });

  it("counts a server or a database that is another one as moved", () => {
    expect([known, { ...known, present: upgraded }, { ...known, present: renamed }].map(hasMoved)).toEqual([
      false,
      true,
      true,
    ]);
  });
});
