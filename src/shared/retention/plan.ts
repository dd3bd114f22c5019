/** What is kept and what is removed, each with its reasons. Pure: docs/decisions/0030-retention.md, promise 4. */
import { parseFileListName, parseManifestName } from "../format/layout.ts";
import type { KnownBackup, Moment, RetentionFacts } from "./facts.ts";
import { whyNothing } from "./refusals.ts";
import { keptSegments } from "./segments.ts";

export interface Kept {
  readonly object: string;
  /** Of a backup; null for a segment. */
  readonly backup: string | null;
  readonly reasons: readonly string[];
}

export interface Removed {
  readonly object: string;
  readonly backup: string | null;
  readonly reason: string;
}

export interface RetentionPlan {
  /** Why nothing is removed, whatever its age; then `remove` is empty. */
  readonly refused: string | null;
  /** In the order in which it has to go: manifests, then segments, oldest first. */
  readonly remove: readonly Removed[];
  readonly keep: readonly Kept[];
}

export function planRetention(facts: RetentionFacts): RetentionPlan {
  const refused = whyNothing(facts);
  const decisions = [...backupDecisions(facts), ...strangers(facts), ...segmentDecisions(facts)];
  if (refused !== null) {
    return { refused, remove: [], keep: decisions.map((one) => "reasons" in one ? one : withReason(one, refused)) };
  }
  return {
    refused,
    remove: decisions.filter((one): one is Removed => "reason" in one),
    keep: decisions.filter((one): one is Kept => "reasons" in one),
  };
}

type Decision = Kept | Removed;

function withReason({ object, backup }: Removed, refused: string): Kept {
  return { object, backup, reasons: [`nothing is removed: ${refused}`] };
}

function backupDecisions(facts: RetentionFacts): Decision[] {
  const first = facts.listings?.[0].names;
  const here = facts.backups.filter(({ manifest }) => first === undefined || first.has(manifest));
  const isHere = new Set(here);
  const reasonsOf = keepReasons(facts, here);
  return [...facts.backups].sort((a, b) => a.consistentAt - b.consistentAt).map((backup): Decision => {
    const [object, id] = [backup.manifest, backup.id];
    if (!isHere.has(backup)) return { object, backup: id, reasons: ["it is not in this store"] };
    const reasons = reasonsOf(backup);
    if (reasons.length > 0) return { object, backup: id, reasons };
    return { object, backup: id, reason: `older than ${describeTiers(backup, facts)}` };
  });
}

/** All reasons for which a backup is kept; none: it goes. `here`: the backups in the store. */
function keepReasons(facts: RetentionFacts, here: readonly KnownBackup[]): (backup: KnownBackup) => string[] {
  const { now, policy } = facts;
  const newestFirst = [...here].sort((a, b) => b.consistentAt - a.consistentAt);
  const good = newestFirst.filter(({ status }) => status === "succeeded");
  const verified = good.find(({ isVerified }) => isVerified);
  const unasked = good.find(({ wasQuarantined }) => !wasQuarantined);
  const atLeast = new Set(good.slice(0, Math.max(1, policy.atLeast)));
  const bases = windowBases(facts, here);
  const monthly = firstsOf(good, 7);
  const yearly = firstsOf(good, 4);
  return (backup) => {
    const age = now - backup.consistentAt;
    const reasons = backup.tiers.filter((tier) => age <= (policy.keepMs.get(tier) ?? Infinity)).map((tier) =>
      `tier ${tier}`
    );
    if (backup === verified) reasons.push("the newest that is verified");
    if (backup === unasked) reasons.push("the newest that was never quarantined");
    if (atLeast.has(backup)) reasons.push(`one of the newest ${policy.atLeast}`);
    if (backup.holdUntil !== null && backup.holdUntil > now) reasons.push("on hold");
    for (const use of facts.uses) if (use.backup === backup.id) reasons.push(`in use: ${use.why}`);
    if (bases.has(backup)) reasons.push("a moment within the window needs it");
    if (monthly.has(backup) && age <= (policy.monthlyMs ?? -1)) reasons.push("first of its month");
    if (yearly.has(backup) && age <= (policy.yearlyMs ?? -1)) reasons.push("first of its year");
    return reasons;
  };
}

/**
 * Backups that a restore to a moment of the window begins with: those within it, the newest before it, and the newest before it
 * on each chain that reaches into it. A quarantined one is no such backup unless somebody names it, so it never stands for another.
 */
export function windowBases({ now, policy, chains }: RetentionFacts, here: readonly KnownBackup[]): Set<KnownBackup> {
  const from = now - policy.windowMs;
  const usable = here.filter(({ status, wasQuarantined }) => status === "succeeded" && !wasQuarantined);
  const bases = new Set(usable.filter(({ consistentAt }) => consistentAt >= from));
  const before = (chain: string | null) => {
    const newest = newestOf(
      usable.filter((one) => one.consistentAt <= from && (chain === null || one.chain === chain)),
    );
    if (newest !== null) bases.add(newest);
  };
  before(null);
  for (const { id, segments } of chains) if (segments.some(({ takenAt }) => takenAt >= from)) before(id);
  return bases;
}

function newestOf(backups: readonly KnownBackup[]): KnownBackup | null {
  return backups.reduce<KnownBackup | null>(
    (best, one) => best === null || one.consistentAt > best.consistentAt ? one : best,
    null,
  );
}

/** The oldest backup of each span, told by so many letters of the moment: 7 are a month, 4 a year, in UTC. */
function firstsOf(backups: readonly KnownBackup[], letters: number): Set<KnownBackup> {
  const firsts = new Map<string, KnownBackup>();
  for (const backup of backups) {
    const span = new Date(backup.consistentAt).toISOString().slice(0, letters);
    const known = firsts.get(span);
    if (known === undefined || backup.consistentAt < known.consistentAt) firsts.set(span, backup);
  }
  return new Set(firsts.values());
}

/** Manifests that the catalogue does not offer. */
function strangers({ listings, backups, removedManifests }: RetentionFacts): Decision[] {
  const known = new Set(backups.map(({ manifest }) => manifest));
  const listed = new Set((listings ?? []).flatMap(({ names }) => [...names]));
  return [...listed].sort().flatMap((object): Decision[] => {
    const backup = parseManifestName(object)?.id;
    if (backup === undefined || known.has(object)) return [];
    if (removedManifests.has(object)) return [{ object, backup, reason: "it was removed before, and is here again" }];
    return [{ object, backup, reasons: ["the catalogue does not know it"] }];
  });
}

function segmentDecisions(facts: RetentionFacts): Decision[] {
  const first = facts.listings?.[0].names;
  const here = facts.backups.filter(({ manifest }) => first === undefined || first.has(manifest));
  const bases = windowBases(facts, here);
  const used = new Set(facts.uses.map(({ backup }) => backup));
  const from: Moment = facts.now - facts.policy.windowMs;
  const listed = [...new Set((facts.listings ?? []).flatMap(({ names }) => [...names]))].sort();
  return facts.chains.flatMap((chain) => {
    const onChain = (backup: KnownBackup) => backup.chain === chain.id;
    const needing = facts.backups.filter((one) => onChain(one) && (bases.has(one) || used.has(one.id)));
    const places = facts.backups.filter(onChain).map(({ snapshot }) => snapshot);
    const firstKept = keptSegments(chain, needing, places, from);
    const segments = chain.segments.map(({ name }, index) => segmentDecision(name, index >= firstKept));
    // What it lists was copied by then: a version that lived on is in the lists of a backup that is kept.
    const keptFrom = chain.segments[firstKept]?.start ?? null;
    const lists = listed.flatMap((name) => {
      const list = parseFileListName(name);
      return list?.chain !== chain.id
        ? []
        : [segmentDecision(name, keptFrom === null ? chain.isOpen : list.lsn >= keptFrom)];
    });
    return [...segments, ...lists];
  });
}

function segmentDecision(object: string, isKept: boolean): Decision {
  return isKept
    ? { object, backup: null, reasons: ["moments within the window, or a restore, need it"] }
    : { object, backup: null, reason: "no moment within the window needs it" };
}

function describeTiers({ tiers }: KnownBackup, { policy }: RetentionFacts): string {
  const hours = (tier: string) => Math.round((policy.keepMs.get(tier) ?? 0) / 3_600_000);
  return tiers.map((tier) => `its tier ${tier} keeps it (${hours(tier)} h)`).join(" and ");
}
