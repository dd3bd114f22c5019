/** A cycle in a directed graph. Pure. */

export interface Link<T> {
  readonly from: T;
  readonly to: T;
}

/** The links of some cycle, each starting where the one before ends, or null when there is none. Depth first, without recursion. */
export function findCycle<T, L extends Link<T>>(items: readonly T[], links: readonly L[]): L[] | null {
  const outgoing = new Map<T, L[]>();
  for (const link of links) {
    const list = outgoing.get(link.from);
    if (list === undefined) outgoing.set(link.from, [link]);
    else list.push(link);
  }
  const done = new Set<T>();
  for (const start of items) {
    if (done.has(start)) continue;
    const path: { item: T; next: number; by: L | null }[] = [{ item: start, next: 0, by: null }];
    const onPath = new Set<T>([start]);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const link = outgoing.get(top.item)?.[top.next];
      if (link === undefined) {
        done.add(top.item);
        onPath.delete(top.item);
        path.pop();
        continue;
      }
      top.next++;
      if (onPath.has(link.to)) {
        const from = path.findIndex((step) => step.item === link.to);
        return [...path.slice(from + 1).flatMap((step) => (step.by === null ? [] : [step.by])), link];
      }
      if (done.has(link.to)) continue;
      onPath.add(link.to);
      path.push({ item: link.to, next: 0, by: link });
    }
  }
  return null;
}
