/** The segments of a store, in the order in which they follow each other. */
import type { EpochSource } from "../../crypto/epoch.ts";
import { HoldfastError } from "../../errors.ts";
import type { Compressor } from "../../format/compressor.ts";
import { parseSegmentName, prefixes, type SegmentName } from "../../format/layout.ts";
import { readAhead } from "../../store/read_ahead.ts";
import type { Store } from "../../store/store.ts";
import { formatLsn } from "../decode/lsn.ts";
import { type OpenedSegment, openSegment } from "./segment.ts";

export interface ListedSegment extends SegmentName {
  readonly name: string;
  readonly size: number;
}

export interface SegmentReadDeps {
  readonly store: Store;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
}

/** A replay reads so many segments before the one with the full's position: a commit can be in the log and not yet be seen. */
export const marginSegments = 3;

/** Every segment by its chain; nothing is opened. */
export async function listSegments(store: Store): Promise<Map<string, ListedSegment[]>> {
  const chains = new Map<string, ListedSegment[]>();
  for await (const { name, size } of store.list(prefixes.changes)) {
    const parsed = parseSegmentName(name);
    if (parsed === null) continue;
    const chain = chains.get(parsed.chain) ?? [];
    chain.push({ ...parsed, name, size });
    chains.set(parsed.chain, chain);
  }
  return chains;
}

/**
 * One chain in order, from its first segment up to where it ends or breaks, without the parts of a transaction whose end
 * is not there. Several segments with one start: a drainer died between its put and its record. The shortest that is gone on
 * with is the recorded one, since what is recorded goes on from its own end, and a longer one ends where the chain comes by
 * later, if at all. At the end of the chain the longest: all hold the truth, that one most of it.
 */
export function inOrder(segments: readonly ListedSegment[]): ListedSegment[] {
  const byStart = new Map<bigint, ListedSegment[]>();
  for (const segment of segments) {
    if (segment.part === 0) byStart.set(segment.startLsn, [...(byStart.get(segment.startLsn) ?? []), segment]);
  }
  const parts = new Map<string, ListedSegment[]>();
  for (const segment of segments) {
    const key = `${segment.startLsn}-${segment.endLsn}`;
    parts.set(key, [...(parts.get(key) ?? []), segment]);
  }
  const ordered: ListedSegment[] = [];
  let start = segments.reduce<bigint | null>(
    (least, one) => least === null || one.startLsn < least ? one.startLsn : least,
    null,
  );
  while (start !== null) {
    const candidates: ListedSegment[] = [...(byStart.get(start) ?? [])]
      .sort((a, b) => a.endLsn < b.endLsn ? -1 : 1);
    const chosen: ListedSegment | undefined = candidates.find((one) => byStart.has(one.endLsn)) ?? candidates.at(-1);
    if (chosen === undefined) break;
    const whole = (parts.get(`${chosen.startLsn}-${chosen.endLsn}`) ?? []).sort((a, b) => a.part - b.part);
    if (whole.some((one, index) => one.part !== index)) break;
    ordered.push(...whole);
    start = chosen.endLsn;
  }
  return ordered;
}

/**
 * Opens the segments one after the other and checks that each names the one before, with its hash. With `after`, the
 * first has to follow that one. Parts of a transaction that is not whole end the reading.
 * Errors: `chain_broken` naming the segment, `object_missing`, `object_damaged`, `format_newer`, those of keys and store.
 */
export async function* readChain(
  deps: SegmentReadDeps,
  segments: readonly ListedSegment[],
): AsyncGenerator<OpenedSegment> {
  let before: OpenedSegment | null = null;
  for await (const { object, bytes } of readAhead(deps.store, segments)) {
    const opened: OpenedSegment = await openSegment(deps, object.name, bytes);
    if (before !== null) checkLink(before, opened);
    yield opened;
    before = opened;
  }
}

function checkLink(before: OpenedSegment, segment: OpenedSegment): void {
  const { previous, startsInTransaction } = segment.header;
  if (previous?.name === before.name && previous.hash === before.linkHash) {
    if (startsInTransaction === before.header.endsInTransaction) return;
  }
  throw new HoldfastError(
    "chain_broken",
    `segment ${segment.name} does not follow ${before.name}: one of them was exchanged, or one between is missing`,
  );
}

/** The segments without those of a last transaction whose end is not stored. `last` is the last one, opened. */
export function withoutOpenEnd(segments: readonly ListedSegment[], last: OpenedSegment): ListedSegment[] {
  if (!last.header.endsInTransaction) return [...segments];
  const open = segments.at(-1);
  return segments.filter((one) => one.startLsn !== open?.startLsn || one.endLsn !== open.endLsn);
}

/** For messages: `16/B374D848`. */
export function endOf(segment: ListedSegment | undefined): string {
  return segment === undefined ? "nowhere" : formatLsn(segment.endLsn);
}
