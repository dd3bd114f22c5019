/** Which ranges are read by which task. Pure: sizes and the base's chunks in, tasks out. */
import { comparePlaces, type Place, type Range, wholeTable } from "./ranges.ts";

/** A table of the snapshot, with its sizes. */
export interface PlannedTable {
  readonly oid: string;
  readonly relfilenode: string;
  /** Blocks when the plan was made, which is after the snapshot: its rows all lie below. */
  readonly blocks: number;
  readonly blockBytes: number;
  readonly toastBytes: number;
  /** Can it be cut by place? Only heaps can. */
  readonly heap: boolean;
  readonly fingerprint: string;
  readonly reusable: boolean;
}

/** What an earlier snapshot's chunk says of its range, and the object that holds it. */
export interface BaseChunk {
  readonly oid: string;
  readonly relfilenode: string;
  readonly fingerprint: string;
  readonly range: Range;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly object: string;
  readonly hash: string;
  readonly storedHash: string;
  /** The backup that the chunk counts as taken from; null for an earlier attempt of the same run. */
  readonly takenFrom: string | null;
  /** xmin of the snapshot in which the chunk was right, as a 64-bit number in text. */
  readonly xmin: string;
  /** Was the object seen in this run's listing of the store, with its size, and is it of the present epoch? */
  readonly seen: boolean;
}

/** A range that one chunk is to hold. */
export interface PlannedRange {
  readonly oid: string;
  readonly range: Range;
  readonly estimatedBytes: number;
  /** Taken over when the range did not change since; null: read. */
  readonly base: BaseChunk | null;
}

export interface PlannedTask {
  readonly kind: "chunks" | "counts" | "manifest";
  readonly ranges: readonly PlannedRange[];
  readonly estimatedBytes: number;
}

export interface PlanOptions {
  /** Text that a chunk, and a task that reads, aims at. */
  readonly chunkBytes: number;
  /** Heap that one counting task scans. */
  readonly countBytes: number;
}

/** A task holds at most so many ranges: a thousand tiny tables are five tasks, and a lease is never long. */
const rangesOfATask = 200;
/** A taken-over range costs about a sixth of its reading (measured: 0.3 s of scan where COPY takes 2.2 s). */
const takeOverShare = 6;
/** Compressed TOAST is about half of its text. */
const toastExpansion = 2;

/** Ranges of all tables in the order of oid and place, packed into tasks; then the counts, then the manifest. */
export function planTasks(
  tables: readonly PlannedTable[],
  base: readonly BaseChunk[],
  options: PlanOptions,
): PlannedTask[] {
  const byTable = groupByOid(base);
  const ranges = tables.flatMap((table) => rangesOf(table, byTable.get(table.oid) ?? [], options.chunkBytes));
  const chunks = pack(ranges, (range) => costOf(range), options.chunkBytes);
  const counts = pack(countRanges(tables, options.countBytes), (range) => range.estimatedBytes, options.countBytes);
  return [
    ...chunks.map((part): PlannedTask => ({ kind: "chunks", ranges: part, estimatedBytes: sumOf(part) })),
    ...counts.map((part): PlannedTask => ({ kind: "counts", ranges: part, estimatedBytes: 0 })),
    { kind: "manifest", ranges: [], estimatedBytes: 0 },
  ];
}

/** The ranges of one table: without a gap or an overlap, the last without an upper end; none for a table without blocks. */
export function rangesOf(table: PlannedTable, base: readonly BaseChunk[], chunkBytes: number): PlannedRange[] {
  if (table.blocks === 0) return [];
  const heapBytes = table.blocks * table.blockBytes;
  const bytesPerBlock = (heapBytes + table.toastBytes * toastExpansion) / table.blocks;
  if (!table.heap) return [{ oid: table.oid, range: wholeTable, estimatedBytes: heapBytes, base: null }];
  const usable = base.filter((chunk) => chunk.relfilenode === table.relfilenode);
  const cuts = cutPlaces(table, usable, Math.max(1, Math.floor(chunkBytes / bytesPerBlock)));
  const byStart = new Map(usable.map((chunk) => [keyOf(chunk.range.from), chunk]));
  return cuts.map((from, index) => {
    const range: Range = { from, to: cuts[index + 1] ?? null };
    const blocks = (range.to?.block ?? table.blocks) - from.block;
    const found = byStart.get(keyOf(from)) ?? null;
    const estimatedBytes = found !== null && sameEnd(found.range, range)
      ? found.rawBytes
      : Math.round(Math.max(blocks, 0.1) * bytesPerBlock);
    return { oid: table.oid, range, estimatedBytes, base: mayBeTaken(table, found, range) ? found : null };
  });
}

/**
 * Starts of the ranges: those of the base while the table's file lives, and a fresh one every `width` blocks where
 * the base leaves more room than that. They are inherited, since a range is only taken over as it was.
 */
function cutPlaces(table: PlannedTable, base: readonly BaseChunk[], width: number): Place[] {
  const inherited = base
    .flatMap((chunk) => chunk.range.to === null ? [chunk.range.from] : [chunk.range.from, chunk.range.to])
    .filter((place) => place.block < table.blocks);
  const places = [{ block: 0, item: 0 }, ...inherited].sort(comparePlaces);
  const bounded = new Set(base.filter((chunk) => chunk.range.to !== null).map((chunk) => keyOf(chunk.range.from)));
  const cuts: Place[] = [];
  for (const [index, place] of places.entries()) {
    const next = places[index + 1] ?? { block: table.blocks, item: 0 };
    if (comparePlaces(place, next) === 0) continue;
    cuts.push(place);
    // A chunk of the base is one range again, however wide.
    if (bounded.has(keyOf(place)) && index < places.length - 1) continue;
    // The last one may be half as wide again: else a table that grew a little would be cut where its base was not.
    for (let block = place.block + width; next.block - block >= width / 2; block += width) {
      cuts.push({ block, item: 0 });
    }
  }
  return cuts;
}

function mayBeTaken(table: PlannedTable, chunk: BaseChunk | null, range: Range): boolean {
  if (chunk === null || !chunk.seen || !table.reusable || chunk.fingerprint !== table.fingerprint) return false;
  if (sameEnd(chunk.range, range)) return true;
  // The base's last chunk had no upper end: what it held lies in this range, or the row counts differ.
  if (chunk.range.to === null) return true;
  // This one has none, and the table ends before the base's chunk did.
  return range.to === null && chunk.range.to.block >= table.blocks;
}

function sameEnd(a: Range, b: Range): boolean {
  if (a.to === null || b.to === null) return a.to === b.to;
  return comparePlaces(a.to, b.to) === 0;
}

/** One a table, more where a single scan would outlast a leg. Their cuts are not those of the chunks. */
function countRanges(tables: readonly PlannedTable[], countBytes: number): PlannedRange[] {
  return tables.flatMap((table) => {
    const bytes = table.blocks * table.blockBytes;
    const parts = table.heap ? Math.max(1, Math.ceil(bytes / countBytes)) : 1;
    return Array.from({ length: parts }, (_, part): PlannedRange => {
      const cut = (index: number): Place => ({ block: Math.floor(table.blocks * index / parts), item: 0 });
      const range = { from: cut(part), to: part === parts - 1 ? null : cut(part + 1) };
      return { oid: table.oid, range, estimatedBytes: Math.round(bytes / parts), base: null };
    });
  });
}

function pack(
  ranges: readonly PlannedRange[],
  cost: (range: PlannedRange) => number,
  targetBytes: number,
): PlannedRange[][] {
  const packed: PlannedRange[][] = [];
  let open: PlannedRange[] = [];
  let used = 0;
  for (const range of ranges) {
    const next = cost(range);
    if (open.length > 0 && (used + next > targetBytes || open.length >= rangesOfATask)) {
      packed.push(open);
      open = [];
      used = 0;
    }
    open.push(range);
    used += next;
  }
  return open.length > 0 ? [...packed, open] : packed;
}

function costOf(range: PlannedRange): number {
  return range.base === null ? range.estimatedBytes : range.estimatedBytes / takeOverShare;
}

function sumOf(ranges: readonly PlannedRange[]): number {
  return ranges.reduce((total, range) => total + range.estimatedBytes, 0);
}

function groupByOid(base: readonly BaseChunk[]): Map<string, BaseChunk[]> {
  const groups = new Map<string, BaseChunk[]>();
  for (const chunk of base) {
    const group = groups.get(chunk.oid);
    if (group === undefined) groups.set(chunk.oid, [chunk]);
    else group.push(chunk);
  }
  return groups;
}

function keyOf(place: Place): string {
  return `${place.block},${place.item}`;
}
