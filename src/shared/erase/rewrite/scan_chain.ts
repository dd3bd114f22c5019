/** The segments of one chain looked through until nothing more is found to go. */
import type { ListedSegment } from "../../changes/segments/chain_reader.ts";
import type { Identity, LedgerEntry } from "../entry.ts";
import type { HashKey } from "../hashes.ts";
import type { Hands, SegmentDone, StandingSegment, StreamRules } from "./hands.ts";
import { inParallel } from "./scan_full.ts";
import type { FoundTerm } from "./terms.ts";

export interface ChainToScan {
  /** Parts of one range together, in order. */
  readonly ranges: readonly (readonly ListedSegment[])[];
  readonly entries: readonly LedgerEntry[];
  /** What goes in the backups that the chain goes on from. */
  readonly gone: ReadonlySet<string>;
  readonly identities: readonly Identity[];
  readonly rules: StreamRules;
  readonly keys: readonly HashKey[];
  readonly kept: ReadonlySet<string>;
}

export interface ScannedChain {
  /** Names of segments that change. */
  readonly touched: ReadonlySet<string>;
  /** Beside what goes in the backups. */
  readonly gone: ReadonlySet<string>;
  /** Of rows that went somewhere and stay somewhere else. */
  readonly disputed: ReadonlySet<string>;
  readonly terms: readonly FoundTerm[];
  /** Those that were rewritten before, by name. */
  readonly standing: ReadonlyMap<string, StandingSegment>;
}

export interface ChainOptions {
  readonly signal?: AbortSignal;
  readonly onRead: (storedBytes: number) => void;
}

export function rangesOf(segments: readonly ListedSegment[]): ListedSegment[][] {
  const ranges = new Map<string, ListedSegment[]>();
  const sorted = [...segments].sort((a, b) =>
    a.startLsn !== b.startLsn
      ? (a.startLsn < b.startLsn ? -1 : 1)
      : a.endLsn !== b.endLsn
      ? (a.endLsn < b.endLsn ? -1 : 1)
      : a.part - b.part
  );
  for (const segment of sorted) {
    const key = `${segment.startLsn}-${segment.endLsn}`;
    ranges.set(key, [...ranges.get(key) ?? [], segment]);
  }
  return [...ranges.values()];
}

/** Rows of children can stand before what tells that their parents go: looked at again as long as something new is learnt. */
export async function scanChain(hands: Hands, chain: ChainToScan, options: ChainOptions): Promise<ScannedChain> {
  const hashes = [...new Set(chain.entries.flatMap((entry) => entry.hashes))];
  const identities = [...chain.entries.flatMap(({ rows }) => rows), ...chain.identities];
  const allIdentities = chain.rules.tables.flatMap(({ table }) => table.identities);
  await hands.begin({ keys: chain.keys, hashes, identities, kept: [...chain.kept] }, chain.rules);
  await hands.learn([...chain.gone], []);
  const ledger = new Set(hashes);
  const gone = new Set<string>();
  for (;;) {
    const found = {
      touched: new Set<string>(),
      disputed: new Set<string>(),
      terms: [] as FoundTerm[],
      gone: [] as string[],
      standing: new Map<string, StandingSegment>(),
    };
    await inParallel(chain.ranges, hands.atOnce, options.signal, async (range) => {
      const done = await hands.segment({ names: range.map(({ name }) => name), through: null });
      for (const one of done) take(one, found);
      options.onRead(range.reduce((sum, { size }) => sum + size, 0));
    });
    const fresh = [...new Set(found.gone)].filter((hash) =>
      !ledger.has(hash) && !gone.has(hash) && !chain.gone.has(hash)
    );
    for (const hash of fresh) gone.add(hash);
    if (fresh.length === 0) return { ...found, gone };
    await hands.learn(fresh, allIdentities);
  }
}

function take(
  one: SegmentDone,
  found: {
    touched: Set<string>;
    disputed: Set<string>;
    terms: FoundTerm[];
    gone: string[];
    standing: Map<string, StandingSegment>;
  },
): void {
  if (one.removed + one.changed > 0) found.touched.add(one.name);
  for (const hash of one.disputed) found.disputed.add(hash);
  found.terms.push(...one.terms);
  found.gone.push(...one.gone);
  if (one.standing !== null) found.standing.set(one.name, one.standing);
}
