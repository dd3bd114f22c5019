/** What can be restored, found from the store and the keys alone. */
import { epochSource } from "../../crypto/epochs.ts";
import { HoldfastError } from "../../errors.ts";
import type { OpenDeps } from "../../format/container.ts";
import { type Manifest, quarantineOf } from "../../format/manifest.ts";
import { sourcesOf } from "../../format/project.ts";
import { openManifest } from "../../format/manifest_codec.ts";
import { readRepository } from "../../format/repository.ts";
import { readAhead } from "../../store/read_ahead.ts";
import { listBackups, type OpenedBackup, type ReadDeps } from "../../verify/find_backup.ts";
import { parseLsn } from "../decode/lsn.ts";
import { inOrder, type ListedSegment, listSegments, marginSegments, withoutOpenEnd } from "./chain_reader.ts";
import { openSegment, type SegmentHeader } from "./segment.ts";

/** A chain as far as it can be followed. */
export interface KnownChain {
  readonly id: string;
  /** The chain had segments before the first one here: they were removed. */
  readonly startsMidway: boolean;
  /** In order, whole transactions only. */
  readonly segments: readonly ListedSegment[];
  /** Of the last of them; null: there is none. */
  readonly last: SegmentHeader | null;
  /** The first segment that lies behind the end and cannot be reached: one between is missing. */
  readonly beyond: ListedSegment | null;
  /** When the last stored segment was taken; later than that of `last` where there is something beyond. */
  readonly until: string | null;
  /** Why nothing of it can be followed: a segment at its beginning or end does not open; null: it can be. */
  readonly damage: HoldfastError | null;
}

/** Every moment from `from` to `to` can be restored. ISO 8601. */
export interface TimelineWindow {
  readonly from: string;
  readonly to: string;
  readonly chain: string;
}

export interface TimelineGap {
  readonly from: string;
  readonly to: string;
  readonly reason?: string;
}

export interface Timeline {
  readonly windows: readonly TimelineWindow[];
  /** Between windows, and behind the last one where more is stored than can be restored. `reason`: where the store tells it. */
  readonly gaps: readonly TimelineGap[];
  readonly fulls: readonly { readonly id: string; readonly consistentAt: string; readonly chain: string | null }[];
}

/** The store's backups and chains, each opened once. */
export class ChangeHistory {
  /** Newest first. */
  readonly backups: readonly OpenedBackup[];
  readonly chains: ReadonlyMap<string, KnownChain>;

  private constructor(backups: readonly OpenedBackup[], chains: ReadonlyMap<string, KnownChain>) {
    this.backups = backups;
    this.chains = chains;
  }

  /**
   * Opens every manifest, and the first and the last segment of every chain. Errors: those of keys and store, `manifest_damaged`, …;
   * a segment that is damaged is in the way of its own chain alone.
   */
  static async read(deps: ReadDeps): Promise<ChangeHistory> {
    const listed = await listBackups(deps.store);
    const repository = await readRepository(deps.store);
    if (repository === null || listed.length === 0) {
      throw new HoldfastError("backup_not_found", `${deps.store.label} holds no backup`);
    }
    const epochOf = epochSource(deps.store, deps.ring, repository.id);
    const openDeps = { compressor: deps.compressor, epochOf };
    const backups: OpenedBackup[] = [];
    for await (const { object, bytes } of readAhead(deps.store, listed)) {
      backups.push({ ...await openManifest(openDeps, object.name, bytes), epochOf });
    }
    // Names tell seconds only; two small backups can have the same one.
    backups.sort((a, b) => b.manifest.generation - a.manifest.generation);
    const chains = new Map<string, KnownChain>();
    for (const [id, segments] of await listSegments(deps.store)) {
      const chain = await knownChain({ ...openDeps, store: deps.store }, id, segments);
      if (chain !== null) chains.set(id, chain);
    }
    return new ChangeHistory(backups, chains);
  }

  /**
   * What is of one source alone: of `name`, or of the only one that there is. Errors: `backup_ambiguous` with their names where
   * there are several and none is named, `backup_not_found` for a name that none has.
   */
  of(name: string | null): ChangeHistory {
    const sources = sourcesOf(this.backups);
    if (sources.size <= 1 && name === null) return this;
    const chosen = name === null ? undefined : sources.get(name);
    if (chosen === undefined) {
      const names = [...sources.keys()].sort().join(", ");
      throw name === null
        ? new HoldfastError("backup_ambiguous", `the store holds backups of several databases: ${names}`, {
          hint: "`restore-point` and `timeline` take one of these names with --source.",
        })
        : new HoldfastError("backup_not_found", `the store holds no backup of ${name}, but of ${names}`);
    }
    const ids = new Set(chosen.map(({ manifest }) => manifest.chain));
    return new ChangeHistory(chosen, new Map([...this.chains].filter(([id]) => ids.has(id))));
  }

  /** Errors: `object_damaged` where backups are on a chain that cannot be followed. */
  timeline(): Timeline {
    const ascending = [...this.backups].reverse().map(({ manifest }) => manifest);
    const fulls = ascending.map(({ id, consistentAt, chain }) => ({ id, consistentAt, chain: chain ?? null }));
    // What was quarantined is not restored from unasked.
    const usable = ascending.filter((manifest) => quarantineOf(manifest) === null);
    const chains = [...this.chains.values()];
    const damaged = chains.find(({ id, damage }) => damage !== null && usable.some(({ chain }) => chain === id));
    if (damaged?.damage != null) throw damaged.damage;
    const stretches = chains
      .flatMap((chain) => stretchesOf(chain, usable.filter((full) => full.chain === chain.id)))
      .sort((a, b) => a.from < b.from ? -1 : 1);
    // What was stored last, on a chain without a full backup too.
    const newest = chains.reduce((most, { until }) => until !== null && until > most ? until : most, "");
    const gaps = stretches.flatMap(({ to, end }, index) => {
      const next = stretches[index + 1]?.from ?? newest;
      return to >= next ? [] : [{ from: to, to: next, ...end === null ? {} : { reason: end.reason } }];
    });
    return { windows: stretches.map(({ from, to, chain }) => ({ from, to, chain })), gaps, fulls };
  }
}

type ChainDeps = OpenDeps & Pick<ReadDeps, "store">;

/** Null: there is no segment. Errors: those of keys and store. */
async function knownChain(
  deps: ChainDeps,
  id: string,
  segments: readonly ListedSegment[],
): Promise<KnownChain | null> {
  const ordered = inOrder(segments);
  const end = ordered.at(-1);
  if (end === undefined) return null;
  const headed = async ({ name }: ListedSegment) => await openSegment(deps, name, await deps.store.read(name));
  try {
    const { previous } = (await headed(ordered[0] ?? end)).header;
    const last = await headed(end);
    const whole = withoutOpenEnd(ordered, last);
    const wholeEnd = whole.at(-1);
    const header = wholeEnd === undefined ? null : wholeEnd === end ? last.header : (await headed(wholeEnd)).header;
    const beyond = segments.filter((one) => one.startLsn >= end.endLsn)
      .reduce<ListedSegment | null>(
        (least, one) => least === null || one.startLsn < least.startLsn ? one : least,
        null,
      );
    const furthest = segments.reduce((most, one) => one.endLsn > most.endLsn ? one : most);
    const until = beyond === null ? header?.takenAt ?? null : (await headed(furthest)).header.takenAt;
    return { id, startsMidway: previous !== null, segments: whole, last: header, beyond, until, damage: null };
  } catch (error) {
    if (!(error instanceof HoldfastError && error.code === "object_damaged")) throw error;
    return { id, startsMidway: false, segments: [], last: null, beyond: null, until: null, damage: error };
  }
}

/** A window; `end`: why it ends although more of its chain is stored. */
interface Stretch extends TimelineWindow {
  readonly end: { readonly reason: string } | null;
}

/** `fulls`: those on the chain, oldest first. Each goes as far as the first place that cannot be replayed. */
function stretchesOf(
  { id, startsMidway, segments, last, beyond }: KnownChain,
  fulls: readonly Manifest[],
): Stretch[] {
  if (last === null) return [];
  const found: Stretch[] = [];
  for (const { consistentAt: from, snapshot } of fulls) {
    const position = parseLsn(snapshot.walInsertLsn);
    if (startsMidway && segments.filter((segment) => segment.endLsn <= position).length < marginSegments) continue;
    const obstacle = (last.obstacles ?? []).find(({ lsn }) => parseLsn(lsn) > position);
    const to = obstacle === undefined || obstacle.at > last.takenAt ? last.takenAt : obstacle.at;
    const before = found.at(-1);
    if (to <= from || (before !== undefined && before.to >= to)) continue;
    const reason = obstacle !== undefined
      ? `${obstacle.what} cannot be replayed: ${obstacle.why}`
      : beyond === null
      ? null
      : `the segment before ${beyond.name} is missing`;
    found.push({ from, to, chain: id, end: reason === null ? null : { reason } });
  }
  return found;
}

/** `from … to`, one a line; for messages. */
export function describeWindows({ windows }: Timeline): string {
  if (windows.length === 0) return "no moment between full backups";
  return windows.map((window) => `${window.from} to ${window.to}`).join(", ");
}
