/** Tables in an order in which what they refer to comes before them. Pure. */

/**
 * Strongly connected components (Tarjan's algorithm), each after those that it leads to; items keep their order within
 * one. Recursion is as deep as the longest way, at most the number of items.
 */
export function groupsInOrder<T>(items: readonly T[], leadsTo: (item: T) => readonly T[]): T[][] {
  const found = new Map<T, { place: number; low: number; open: boolean }>();
  const open: T[] = [];
  const groups: T[][] = [];
  const order = new Map(items.map((item, index) => [item, index]));
  const visit = (item: T) => {
    const mark = { place: found.size, low: found.size, open: true };
    found.set(item, mark);
    open.push(item);
    for (const next of leadsTo(item)) {
      const other = found.get(next) ?? visit(next);
      if (other.open) mark.low = Math.min(mark.low, other.low);
    }
    if (mark.low === mark.place) {
      const group = open.splice(open.indexOf(item));
      for (const member of group) {
        const its = found.get(member);
        if (its !== undefined) its.open = false;
      }
      groups.push(group.toSorted((a, b) => (order.get(a) ?? 0) - (order.get(b) ?? 0)));
    }
    return mark;
  };
  for (const item of items) if (!found.has(item)) visit(item);
  return groups;
}
