/** Promise 4: what retention may remove, held against brute force over years; each rule that keeps everything, alone. */
import process from "node:process";
import { afterAll, describe, expect, it } from "vitest";
import type {
  KnownBackup,
  KnownChain,
  KnownSegment,
  Listing,
  RetentionFacts,
} from "../../src/shared/retention/facts.ts";
import { fileListName } from "../../src/shared/format/layout.ts";
import { planRetention } from "../../src/shared/retention/plan.ts";
import { keptSegments } from "../../src/shared/retention/segments.ts";
import { seeded } from "../support/sample_app/words.ts";
import {
  day,
  factsOf,
  type History,
  history,
  hour,
  needed,
  passHour,
  remove,
  standard,
  takeBackup,
} from "./retention_fixture.ts";

const zone = process.env["TZ"];
afterAll(() => {
  if (zone === undefined) delete process.env["TZ"];
  else process.env["TZ"] = zone;
});

const start = Date.UTC(2023, 10, 1);

/** Daily and weekly backups of so many days, with holds, quarantines and lazy verification now and then; pruned each day. */
function live(seed: number, days: number, over: (world: History) => Partial<RetentionFacts> = () => ({})) {
  const random = seeded(seed);
  const world = history(start);
  const counts = { removedBackups: 0, removedSegments: 0, refused: 0, plans: 0 };
  for (let today = 0; today < days; today++) {
    for (let hours = 0; hours < 24; hours++) passHour(world, random);
    const odd = random.integer(25);
    const tiers = new Date(world.now).getUTCDay() === 0 ? ["weekly"] : ["daily"];
    takeBackup(world, odd === 1 ? [...tiers, "manual"] : tiers, {
      ...(odd === 2 ? { status: "quarantined" as const, wasQuarantined: true } : {}),
      ...(odd === 3 ? { wasQuarantined: true } : {}),
      ...(odd === 4 ? { isVerified: false } : {}),
      ...(odd === 5 ? { holdUntil: world.now + 120 * day } : {}),
      ...(odd === 6 ? { chain: null } : {}),
    });
    const used = world.backups[random.integer(world.backups.length)] as KnownBackup;
    const uses = random.integer(5) === 0 ? [{ backup: used.id, why: "restore" }] : [];
    const facts = factsOf(world, { uses, ...over(world) });
    const plan = planRetention(facts);
    counts.plans++;
    if (plan.refused !== null) counts.refused++;
    const gone = new Set(plan.remove.map(({ object }) => object));
    const must = needed(world, facts);
    for (const name of gone) if (must.has(name)) throw new Error(`day ${today}, seed ${seed}: ${name} was needed`);
    const listed = facts.listings?.[0].names ?? new Set();
    expect(plan.remove.length + plan.keep.length).toBe(listed.size);
    counts.removedBackups += plan.remove.filter(({ backup }) => backup !== null).length;
    counts.removedSegments += plan.remove.filter(({ backup }) => backup === null).length;
    remove(world, gone);
  }
  return { world, counts };
}

describe("a plan, over years", () => {
  it.each([1, 2, 3])("removes nothing that brute force needs (seed %i), and does remove", (seed) => {
    const { world, counts } = live(seed, 250);
    expect(counts.removedBackups).toBeGreaterThan(100);
    expect(counts.removedSegments).toBeGreaterThan(4000);
    expect(counts.refused).toBeGreaterThan(5);
    expect(counts.refused).toBeLessThan(counts.plans / 2);
    // What is left is what the policy says, not all that ever was: 30 daily, 13 weekly, holds, manual ones.
    expect(world.backups.length).toBeLessThan(75);
  }, 120_000);

  it("keeps a chain without a hole", () => {
    const { world } = live(7, 120);
    for (const { segments } of world.chains) {
      for (const [index, segment] of segments.entries()) {
        const before = segments[index - 1];
        if (before === undefined) expect(segment.part).toBe(0);
        else if (segment.part === 0) expect(segment.start).toBe(before.end);
        else expect([segment.start, segment.part]).toEqual([before.start, before.part + 1]);
      }
    }
  }, 60_000);

  it("says the same in every zone, over changes of summer time and a leap day", () => {
    const left = ["UTC", "America/New_York", "Australia/Lord_Howe"].map((name) => {
      process.env["TZ"] = name;
      return live(11, 180).world.backups.map(({ manifest }) => manifest);
    });
    expect(left[0]?.length).toBeGreaterThan(30);
    expect(left[1]).toEqual(left[0]);
    expect(left[2]).toEqual(left[0]);
  }, 120_000);

  it("keeps the first backup of each month and year where the policy says so", () => {
    const policy = {
      ...standard,
      keepMs: new Map([["daily", 7 * day], ["weekly", 35 * day], ["manual", 7 * day]]),
      monthlyMs: 366 * day,
      yearlyMs: 1200 * day,
    };
    const { world } = live(13, 900, () => ({ policy }));
    const old = world.backups.filter(({ consistentAt, holdUntil }) =>
      world.now - consistentAt > 40 * day && holdUntil === null
    ).map(({ consistentAt }) => new Date(consistentAt).toISOString().slice(0, 10));
    const months = old.map((moment) => moment.slice(0, 7));
    expect(new Set(months).size).toBe(months.length);
    expect(old.length).toBeGreaterThanOrEqual(12);
    expect(old.length).toBeLessThanOrEqual(16);
    expect(old.filter((moment) => world.now - Date.parse(moment) > 370 * day).map((moment) => moment.slice(0, 4)))
      .toEqual(
        ["2023", "2024", "2025"].filter((year) =>
          world.now - Date.parse(`${year}-01-02`) > 370 * day || year === "2023"
        ),
      );
  }, 120_000);
});

/** Forty quiet days, of which the oldest ten are to go. */
function fortyDays(): History {
  const random = seeded(22);
  const world = history(start);
  for (let today = 0; today < 40; today++) {
    for (let hours = 0; hours < 24; hours++) passHour(world, random);
    takeBackup(world, ["daily"]);
  }
  return world;
}

const listed = (facts: RetentionFacts): Listing => (facts.listings as [Listing])[0];

describe("nothing at all is removed", () => {
  const world = fortyDays();
  const good = factsOf(world);
  const last = world.backups.at(-1) as KnownBackup;
  const withLast = (over: Partial<KnownBackup>) => [...world.backups.slice(0, -1), { ...last, ...over }];
  const without = (name: string): Listing[] => [{
    ...listed(good),
    names: new Set([...listed(good).names].filter((one) => one !== name)),
  }];
  const newer = `v1/backups/20991231T000000Z-daily-${last.id}/manifest`;

  it("is a rule that has something to hold back", () => {
    const plan = planRetention(good);
    expect(plan.refused).toBeNull();
    expect(plan.remove.filter(({ backup }) => backup !== null).length).toBe(9);
    expect(plan.remove.find(({ backup }) => backup !== null)?.reason).toBe(
      "older than its tier daily keeps it (720 h)",
    );
  });

  it.each<readonly [string, Partial<RetentionFacts>]>([
    ["in a copy", { isOriginal: false }],
    ["where a listing failed", { listings: null }],
    ["where a listing lacks a recorded manifest", {
      listings: without(world.backups[20]?.manifest ?? "") as [Listing],
    }],
    ["where a listing lacks a recorded segment", {
      listings: without(world.chains[0]?.segments.at(-3)?.name ?? "") as [Listing],
    }],
    ["where the second store's listing is cut short", {
      listings: [listed(good), { store: "second", names: new Set(), expected: [last.manifest] }],
    }],
    ["where the clocks differ", { elsewhere: world.now + 6 * 60_000 }],
    ["where the database's clock was moved back", { now: world.now - hour, elsewhere: world.now - hour }],
    ["where something on record is newer than now", { latestRecorded: world.now + 6 * 60_000 }],
    ["where something in the store is newer than now", {
      listings: [{ ...listed(good), names: new Set([...listed(good).names, newer]) }],
    }],
    ["where the newest run failed", { newestEnd: "failed" }],
    ["where the newest run is quarantined", { newestEnd: "quarantined" }],
    ["where the newest backup is quarantined", { backups: withLast({ status: "quarantined", wasQuarantined: true }) }],
    ["where the newest backup is not verified", { backups: withLast({ isVerified: false }) }],
    ["where the newest backup is old: the clock jumped, or nothing was backed up", {
      now: world.now + 3 * day,
      elsewhere: world.now + 3 * day,
    }],
    ["where the newest backup is not in the store", {
      backups: withLast({ manifest: newer.replace("2099", "2023"), mayBeElsewhere: true }),
    }],
    ["where there is no backup", { newestEnd: null, backups: [] }],
  ])("%s", (_, over) => {
    const plan = planRetention({ ...good, ...over });
    expect(plan.refused).not.toBeNull();
    expect(plan.remove).toEqual([]);
  });
});

describe("a single backup or segment is kept", () => {
  const world = fortyDays();
  const [oldest, second] = world.backups as [KnownBackup, KnownBackup];
  const reasons = (facts: RetentionFacts) => new Map(planRetention(facts).keep.map((one) => [one.object, one.reasons]));
  const kept = (facts: RetentionFacts, object: string) => reasons(facts).get(object);

  it("on hold, and not a moment longer", () => {
    const held = (until: number) =>
      factsOf(world, { backups: [{ ...oldest, holdUntil: until }, ...world.backups.slice(1)] });
    expect(kept(held(world.now + 1), oldest.manifest)).toEqual(["on hold"]);
    expect(kept(held(world.now), oldest.manifest)).toBeUndefined();
  });

  it("in use, with the segments of its chain from there on", () => {
    const facts = factsOf(world, { uses: [{ backup: second.id, why: "a restore" }] });
    expect(kept(facts, second.manifest)).toEqual(["in use: a restore"]);
    const segments = world.chains[0]?.segments ?? [];
    const behind = segments.filter(({ end }) => end > second.snapshot.lsn);
    const stays = reasons(facts);
    for (const { name } of behind) expect(stays.get(name), name).toBeDefined();
    expect(kept(factsOf(world), behind[0]?.name ?? "")).toBeUndefined();
  });

  it("as the newest that is verified, however old", () => {
    const lazy = world.backups.map((one, index) => ({ ...one, isVerified: index === 0 || index === 39 }));
    const facts = factsOf(world, { backups: lazy });
    expect(kept(facts, oldest.manifest)).toBeUndefined();
    const alone = lazy.slice(0, 39).map((one) => ({ ...one }));
    // The newest is not verified: nothing is removed, and the plan still names why this one would stay.
    expect(kept(factsOf(world, { backups: alone }), oldest.manifest)).toContain("the newest that is verified");
  });

  it("that the newest moments of another chain begin with, which reaches into the window", () => {
    const chain = { ...world.chains.at(-1) as KnownChain, id: "c0", isOpen: false };
    const other = { ...oldest, chain: "c0", snapshot: { ...oldest.snapshot, lsn: chain.segments[20]?.end ?? 0n } };
    const facts = factsOf(world, { backups: [other, ...world.backups.slice(1)], chains: [chain, ...world.chains] });
    expect(kept(facts, other.manifest)).toEqual(["a moment within the window needs it"]);
  });

  it("of the segments before a backup three, where nothing was under way in its snapshot", () => {
    const segments = Array.from({ length: 20 }, (_, index): KnownSegment => ({
      name: String(index),
      start: BigInt(index * 10),
      end: BigInt(index * 10 + 10),
      part: 0,
      takenAt: index * hour,
    }));
    const at = (xmin: bigint): KnownBackup => ({
      ...oldest,
      consistentAt: 11.5 * hour,
      snapshot: { lsn: 125n, xmin, xmax: 50n },
    });
    const chain = { id: "c", isOpen: true, segments, formerSnapshots: [{ lsn: 55n, xmin: 30n, xmax: 31n }] };
    const first = (xmin: bigint) => keptSegments(chain, [at(xmin)], [], 19 * hour);
    expect(first(50n)).toBe(9);
    // One was under way that had begun behind the snapshot of a backup that is removed by now; and one before it.
    expect(first(31n)).toBe(2);
    expect(first(30n)).toBe(0);
    expect(keptSegments(chain, [], [], 19 * hour)).toBe(0);
    expect(keptSegments({ ...chain, isOpen: false }, [], [], 30 * hour)).toBe(20);
  });

  it("of the lists of files those that were made where kept segments are, or behind them", () => {
    const facts = factsOf(world);
    const chain = world.chains.at(-1) as KnownChain;
    const keptNames = new Set(planRetention(facts).keep.map(({ object }) => object));
    const first = chain.segments.findIndex(({ name }) => keptNames.has(name));
    expect(first).toBeGreaterThan(0);
    const from = chain.segments[first]?.start ?? 0n;
    const at = (lsn: bigint, id = chain.id) => fileListName({ chain: id, lsn, hash: "ab".repeat(32) });
    const end = chain.segments.at(-1)?.end ?? 0n;
    const names = [at(from - 1n), at(from), at(end + 5n), at(1n, "strange")];
    const seen = {
      ...facts,
      listings: [{ ...listed(facts), names: new Set([...listed(facts).names, ...names]) }] as [Listing],
    };
    const plan = planRetention(seen);
    const removed = plan.remove.map(({ object }) => object);
    expect(names.map((name) => removed.includes(name))).toEqual([true, false, false, false]);
    expect(names.slice(1, 3).map((name) => plan.keep.some(({ object }) => object === name))).toEqual([true, true]);
    // What it was made of goes before it.
    expect(removed.indexOf(names[0] ?? "")).toBeGreaterThan(removed.indexOf(chain.segments[first - 1]?.name ?? ""));
    const over = { ...chain, isOpen: false, segments: [] };
    const gone = planRetention({ ...seen, chains: [over] }).remove.map(({ object }) => object);
    expect(names.map((name) => gone.includes(name))).toEqual([true, true, true, false]);
  });

  it("that somebody else put there, and not one that comes back after its removal", () => {
    const stranger = `v1/backups/20230101T000000Z-daily-${oldest.id.replace(/^0/, "f")}/manifest`;
    const facts = factsOf(world);
    const names = new Set([...listed(facts).names, stranger]);
    const seen = { ...facts, listings: [{ ...listed(facts), names }] as [Listing] };
    expect(kept(seen, stranger)).toEqual(["the catalogue does not know it"]);
    const again = planRetention({ ...seen, removedManifests: new Set([stranger]) });
    expect(again.remove.map(({ object }) => object)).toContain(stranger);
  });
});
