/** Ranges of a table by the place of its rows: from a (block, item) up to, but without, another. */

export interface Place {
  readonly block: number;
  /** Line pointer within the block; rows start at 1, so 0 is the block's start. */
  readonly item: number;
}

export interface Range {
  readonly from: Place;
  /** Null: no upper end. */
  readonly to: Place | null;
}

export const wholeTable: Range = { from: { block: 0, item: 0 }, to: null };

/** Line pointers of a page hold at most 291 rows in 8 KiB and 1,165 in 32 KiB, the largest page there is. */
const usualItems = 292;
const mostItems = 1166;

export function comparePlaces(a: Place, b: Place): number {
  return a.block - b.block || a.item - b.item;
}

/** The condition on `ctid`, or null for the whole table. */
export function conditionOf(range: Range): string | null {
  const { from, to } = range;
  const parts: string[] = [];
  if (from.block > 0 || from.item > 0) parts.push(`ctid >= '(${from.block},${from.item})'::pg_catalog.tid`);
  if (to !== null) parts.push(`ctid < '(${to.block},${to.item})'::pg_catalog.tid`);
  return parts.length === 0 ? null : parts.join(" and ");
}

/**
 * The range in two, or null for one that holds a single line pointer. `endBlock`: blocks of the table now, the end of an
 * open range for the purpose of halving; both parts together are the same range.
 */
export function halve(range: Range, endBlock: number): readonly [Range, Range] | null {
  const middle = middleOf(range.from, range.to ?? { block: Math.max(endBlock, range.from.block + 1), item: 0 });
  return middle === null ? null : [{ from: range.from, to: middle }, { from: middle, to: range.to }];
}

/** Can it hold at most one row? */
export function isSingleRow(range: Range): boolean {
  return range.to !== null && middleOf(range.from, range.to) === null;
}

function middleOf(from: Place, to: Place): Place | null {
  const blocks = to.block - from.block;
  if (blocks >= 2) return { block: from.block + Math.floor(blocks / 2), item: 0 };
  const toBlockEnd = from.item < usualItems - 1 ? usualItems : mostItems;
  const lastItem = blocks === 1 ? (to.item > 0 ? null : toBlockEnd) : to.item;
  // Two blocks meet inside the range: cut where they meet.
  if (lastItem === null) return { block: to.block, item: 0 };
  const first = Math.max(from.item, 1);
  if (lastItem - first <= 1) return null;
  return { block: from.block, item: first + Math.floor((lastItem - first) / 2) };
}
