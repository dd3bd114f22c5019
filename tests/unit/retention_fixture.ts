/** A history of years as retention would find it, with the transactions that were really under way, and an oracle made of the promise alone. */
import { manifestName } from "../../src/shared/format/layout.ts";
import type {
  KnownBackup,
  KnownChain,
  KnownSegment,
  Listing,
  Policy,
  RetentionFacts,
} from "../../src/shared/retention/facts.ts";
import { type Seeded } from "../support/sample_app/words.ts";

export const hour = 3_600_000;
export const day = 24 * hour;

export const standard: Policy = {
  keepMs: new Map([["hourly", day], ["daily", 30 * day], ["weekly", 90 * day], ["manual", 90 * day], [
    "safety",
    30 * day,
  ]]),
  windowMs: 7 * day,
  atLeast: 3,
  newestMs: 2 * day,
};

/** Where a transaction began, and until when it ran: what no catalogue has. */
interface Transaction {
  readonly xid: bigint;
  readonly began: bigint;
  readonly endsAt: number;
}

export interface History {
  backups: KnownBackup[];
  chains: KnownChain[];
  removed: Set<string>;
  /** By backup: where the oldest transaction began that its snapshot saw under way. */
  readonly oldest: Map<string, bigint>;
  now: number;
  lsn: bigint;
  xid: bigint;
  running: Transaction[];
  serial: number;
}

export function history(from: number): History {
  return {
    backups: [],
    chains: [{ id: "c1", isOpen: true, segments: [], formerSnapshots: [] }],
    removed: new Set(),
    oldest: new Map(),
    now: from,
    lsn: 1000n,
    xid: 100n,
    running: [],
    serial: 0,
  };
}

/** An hour goes by: transactions begin and end, a segment is drained, perhaps in parts; now and then a chain ends. */
export function passHour(world: History, random: Seeded): void {
  world.now += hour;
  world.running = world.running.filter(({ endsAt }) => endsAt > world.now);
  const openChain = world.chains.at(-1) as KnownChain;
  const start = openChain.segments.at(-1)?.end ?? world.lsn;
  for (let count = random.integer(3); count > 0; count--) {
    world.lsn += 10n + BigInt(random.integer(50));
    world.xid++;
    // Most last minutes; one now and then is left open for days.
    const lasts = random.integer(40) === 0 ? random.integer(72) * hour : random.integer(60) * 60_000;
    world.running.push({ xid: world.xid, began: world.lsn, endsAt: world.now + lasts });
  }
  world.lsn += 5n;
  world.xid++;
  const end = world.lsn;
  const parts = random.integer(30) === 0 ? 3 : 1;
  // A drain that was behind tells a later moment.
  const takenAt = world.now + (random.integer(20) === 0 ? 5 * hour : 0);
  const segments = Array.from({ length: parts }, (_, part): KnownSegment => ({
    name: `v1/changes/${openChain.id}/${hex(start)}-${hex(end)}${
      part === 0 ? "" : `.${String(part).padStart(6, "0")}`
    }`,
    start,
    end,
    part,
    takenAt,
  }));
  world.chains[world.chains.length - 1] = { ...openChain, segments: [...openChain.segments, ...segments] };
  if (random.integer(1500) === 0) {
    world.chains[world.chains.length - 1] = { ...world.chains.at(-1) as KnownChain, isOpen: false };
    world.chains.push({ id: `c${world.chains.length + 1}`, isOpen: true, segments: [], formerSnapshots: [] });
  }
}

export function takeBackup(world: History, tiers: readonly string[], facts: Partial<KnownBackup> = {}): KnownBackup {
  const id = `00000000-0000-4000-8000-${String(++world.serial).padStart(12, "0")}`;
  world.lsn += 3n;
  const xmin = world.running.reduce((least, { xid }) => xid < least ? xid : least, world.xid + 1n);
  const oldest = world.running.reduce((least, { began }) => began < least ? began : least, world.lsn);
  const backup: KnownBackup = {
    id,
    manifest: manifestName({ createdAt: new Date(world.now), tier: tiers[0] ?? "daily", id }),
    tiers,
    consistentAt: world.now,
    status: "succeeded",
    wasQuarantined: false,
    isVerified: true,
    holdUntil: null,
    mayBeElsewhere: false,
    chain: world.chains.at(-1)?.id ?? null,
    snapshot: { lsn: world.lsn, xmin, xmax: world.xid + 1n },
    ...facts,
  };
  world.oldest.set(id, oldest);
  world.backups.push(backup);
  return backup;
}

/** As a prune would read it, with every name listed. */
export function factsOf(world: History, over: Partial<RetentionFacts> = {}): RetentionFacts {
  const names = new Set([
    ...world.backups.map(({ manifest }) => manifest),
    ...world.chains.flatMap(({ segments }) => segments.map(({ name }) => name)),
  ]);
  const listing: Listing = { store: "first", names, expected: [...names] };
  return {
    now: world.now,
    elsewhere: world.now,
    latestRecorded: world.now,
    isOriginal: true,
    newestEnd: world.backups.at(-1)?.status ?? null,
    backups: world.backups,
    chains: world.chains,
    uses: [],
    removedManifests: world.removed,
    policy: standard,
    listings: [listing],
    ...over,
  };
}

/** Takes away what a plan removes, as the catalogue then remembers it. */
export function remove(world: History, names: ReadonlySet<string>): void {
  world.chains = world.chains.map((chain) => ({
    ...chain,
    segments: chain.segments.filter(({ name }) => !names.has(name)),
    formerSnapshots: [
      ...chain.formerSnapshots,
      ...world.backups.filter((one) => names.has(one.manifest) && one.chain === chain.id).map(({ snapshot }) =>
        snapshot
      ),
    ],
  }));
  for (const { manifest } of world.backups) if (names.has(manifest)) world.removed.add(manifest);
  world.backups = world.backups.filter(({ manifest }) => !names.has(manifest));
}

/**
 * What promise 4 lets nobody remove, by brute force: each moment of the window is asked for, hour by hour and at each backup's, and
 * what its restore reads is marked.
 */
export function needed(world: History, facts: RetentionFacts): Set<string> {
  const marked = new Set<string>();
  const { policy, now } = facts;
  const usable = facts.backups.filter((one) => one.status === "succeeded" && !one.wasQuarantined);
  const moments = facts.backups.map(({ consistentAt }) => consistentAt);
  for (let at = now - policy.windowMs; at <= now; at += hour) moments.push(at);
  const restores = moments.filter((at) => at >= now - policy.windowMs && at <= now).map((at) => {
    const before = usable.filter(({ consistentAt }) => consistentAt <= at);
    return before.sort((a, b) => b.consistentAt - a.consistentAt)[0];
  });
  const inUse = facts.backups.filter(({ id }) => facts.uses.some(({ backup }) => backup === id));
  for (const base of new Set([...restores, ...inUse])) {
    if (base === undefined) continue;
    marked.add(base.manifest);
    const segments = facts.chains.find(({ id }) => id === base.chain)?.segments ?? [];
    const reach = world.oldest.get(base.id) ?? 0n;
    const whole = segments.filter(({ end }) => end <= base.snapshot.lsn);
    for (const { name, end, start } of segments) {
      // Behind the position, three before it, and all from where the oldest transaction that was under way began.
      const isMargin = whole.slice(-3).some((one) => one.start === start);
      if (end > base.snapshot.lsn || isMargin || end > reach) marked.add(name);
    }
  }
  for (const backup of facts.backups) {
    const age = now - backup.consistentAt;
    if (backup.tiers.some((tier) => age <= (policy.keepMs.get(tier) ?? 0))) marked.add(backup.manifest);
    if ((backup.holdUntil ?? 0) > now) marked.add(backup.manifest);
  }
  const succeeded = facts.backups.filter(({ status }) => status === "succeeded");
  const newest = (those: readonly KnownBackup[]) =>
    [...those].sort((a, b) => b.consistentAt - a.consistentAt)[0]?.manifest;
  for (const those of [succeeded, succeeded.filter(({ isVerified }) => isVerified), usable]) {
    marked.add(newest(those) ?? "");
  }
  marked.delete("");
  return marked;
}

function hex(lsn: bigint): string {
  return lsn.toString(16).padStart(16, "0");
}
