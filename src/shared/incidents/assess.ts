/** What changed since a moment, read from the stored change stream and the backups alone. */
import { formatLsn } from "../changes/decode/lsn.ts";
import { type ListedSegment, readChain, type SegmentReadDeps } from "../changes/segments/chain_reader.ts";
import { uncoveredTables } from "../changes/segments/coverage.ts";
import { openSegment, type SegmentHeader } from "../changes/segments/segment.ts";
import type { ChangeHistory, KnownChain } from "../changes/segments/timeline.ts";
import { asHoldfastError } from "../errors.ts";
import { quarantineOf } from "../format/manifest.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { OpenedBackup } from "../verify/find_backup.ts";
import { type ChangedTable, LostChangesReader } from "./lost_changes.ts";
import { type RowsAtBackup, type Suspect, suspectsOf } from "./suspects.ts";

export interface Assessment {
  /** From which moment on changes were asked for. ISO 8601, as all moments here. */
  readonly since: string;
  /** Spans of which every change that the stream carries was read; empty: none. */
  readonly read: readonly { readonly from: string; readonly to: string; readonly chain: string }[];
  readonly tables: readonly ChangedTable[];
  /** The likeliest first. */
  readonly suspects: readonly Suspect[];
  readonly transactions: number;
  /** Of the backup that rows were compared with; null: there is none. */
  readonly backup: { readonly id: string; readonly consistentAt: string } | null;
  /** What could not be looked at, in sentences. */
  readonly notDone: readonly string[];
}

export interface AssessDeps extends Omit<SegmentReadDeps, "epochOf"> {
  /** Called after each segment. */
  readonly onSegment?: (read: number, of: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Reads every segment with a commit since that moment, chain by chain. What cannot be read is said and passed over: half an
 * assessment is better than none while something burns. Errors: `cancelled`, that of the signal.
 */
export async function assess(deps: AssessDeps, history: ChangeHistory, since: string): Promise<Assessment> {
  const notDone: string[] = [];
  const read: { from: string; to: string; chain: string }[] = [];
  const reader = new LostChangesReader(microsOf(since));
  const backup = comparedBackup(history, since);
  const chains = [...history.chains.values()].sort((a, b) => (a.until ?? "") < (b.until ?? "") ? -1 : 1);
  for (const chain of chains) {
    deps.signal?.throwIfAborted();
    if (chain.damage !== null) {
      notDone.push(`chain ${chain.id} of the change stream cannot be read: ${chain.damage.message}`);
      continue;
    }
    const epochOf = history.backups[0]?.epochOf;
    if (epochOf === undefined || chain.last === null || chain.last.takenAt < since) continue;
    try {
      const span = await readSpan({ ...deps, epochOf }, chain, since, reader);
      read.push({ ...span.read, chain: chain.id });
      notDone.push(...span.unseen);
    } catch (error) {
      deps.signal?.throwIfAborted();
      notDone.push(`chain ${chain.id} could not be read to its end: ${asHoldfastError(error).message}`);
    }
    if (chain.beyond !== null) {
      notDone.push(
        `changes of chain ${chain.id} from ${formatLsn(chain.beyond.startLsn)} on: a segment before is missing`,
      );
    }
  }
  if (read.length === 0) notDone.push(`no change since ${since} is stored: the change stream does not reach there`);
  const lost = reader.result();
  return {
    since,
    read,
    tables: lost.tables,
    suspects: suspectsOf(lost, rowsOf(backup)),
    transactions: lost.transactionsSeen,
    backup: backup === null ? null : { id: backup.manifest.id, consistentAt: backup.manifest.consistentAt },
    notDone,
  };
}

/** The newest one from before the moment, which shows what was there; else the oldest that there is. */
function comparedBackup({ backups }: ChangeHistory, since: string): OpenedBackup | null {
  const usable = backups.filter(({ manifest }) => quarantineOf(manifest) === null);
  return usable.find(({ manifest }) => manifest.consistentAt <= since) ?? usable.at(-1) ?? null;
}

export function rowsOf(backup: Pick<OpenedBackup, "manifest"> | null): RowsAtBackup {
  const rows = new Map(
    (backup?.manifest.tables ?? []).map((table) => [quoteQualified(table.schema, table.name), table.rows] as const),
  );
  return (table) => rows.get(table) ?? null;
}

async function readSpan(
  deps: SegmentReadDeps & Pick<AssessDeps, "onSegment" | "signal">,
  chain: KnownChain,
  since: string,
  reader: LostChangesReader,
): Promise<{ readonly read: { readonly from: string; readonly to: string }; readonly unseen: readonly string[] }> {
  const { segments, from } = await segmentsSince(deps, chain.segments, since);
  let first = from;
  let last: SegmentHeader | null = null;
  let done = 0;
  for await (const opened of readChain(deps, segments)) {
    deps.signal?.throwIfAborted();
    reader.take(opened);
    first ??= opened.header;
    last = opened.header;
    deps.onSegment?.(++done, segments.length);
  }
  const headers = [first, last].filter((header) => header !== null);
  const unseen = uncoveredTables(headers, since).map(({ schema, name, reason }) =>
    `updates and deletes of ${quoteQualified(schema, name)} are not in the change stream: ${reason}`
  );
  // The segment before was taken before the moment: all that was committed since is in those that were read.
  const begun = from === null ? first?.firstCommitAt ?? first?.takenAt ?? since : since;
  return { read: { from: begun > since ? begun : since, to: last?.takenAt ?? since }, unseen };
}

/**
 * Those that can hold a commit since the moment, found by halving: each says when it was taken, and everything before its end was
 * committed by then. The first may be a later part of a transaction: that was committed before the moment. `from`: the header of the one before them; null: there is none.
 */
async function segmentsSince(
  deps: SegmentReadDeps,
  segments: readonly ListedSegment[],
  since: string,
): Promise<{ readonly segments: readonly ListedSegment[]; readonly from: SegmentHeader | null }> {
  const headerOf = async (at: number): Promise<SegmentHeader | null> => {
    const one = segments[at];
    return one === undefined ? null : (await openSegment(deps, one.name, await deps.store.read(one.name))).header;
  };
  let [low, high] = [0, segments.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const header = await headerOf(middle);
    if (header !== null && header.takenAt < since) low = middle + 1;
    else high = middle;
  }
  return { segments: segments.slice(low), from: low === 0 ? null : await headerOf(low - 1) };
}

/** Microseconds since 1970 of ISO 8601. */
function microsOf(moment: string): bigint {
  const fraction = (/\.(\d{1,6})/.exec(moment)?.[1] ?? "").padEnd(6, "0");
  return BigInt(Date.parse(`${moment.slice(0, 19)}Z`)) * 1000n + BigInt(fraction);
}
