import type { Pair } from "./difference.ts";
import type { ForeignKey } from "./keys.ts";

/** Children after the tables that they refer to; those of a cycle in any order. */
export function parentsFirst(pairs: readonly Pair[], keys: readonly ForeignKey[]): Pair[] {
  const byOid = new Map(pairs.map((pair) => [pair.fit.live.oid, pair]));
  const ordered = new Set<Pair>();
  const visit = (pair: Pair, path: ReadonlySet<Pair>) => {
    if (ordered.has(pair) || path.has(pair)) return;
    for (const key of keys) {
      if (!key.children.some(({ oid }) => oid === pair.fit.live.oid)) continue;
      for (const { oid } of key.parents) {
        const parent = byOid.get(oid);
        if (parent !== undefined) visit(parent, new Set([...path, pair]));
      }
    }
    ordered.add(pair);
  };
  for (const pair of pairs) visit(pair, new Set());
  return [...ordered];
}
