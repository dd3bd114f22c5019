/** Whether the manifests of a store are all that there should be. docs/format.md, "Generations". */

/** What one opened manifest says of its place. */
export interface Generation {
  readonly name: string;
  /** SHA-256 of the sealed bytes. */
  readonly hash: string;
  readonly generation: number;
  readonly previous: { readonly name: string; readonly hash: string } | null;
}

/** The newest generation that the reader has known before, from the catalogue or a copy of its own; null: nothing known. */
export type KnownNewest = { readonly generation: number; readonly hash: string } | null;

export interface LineageProblem {
  readonly kind: "rolled_back" | "replaced" | "forked" | "wrong_order";
  readonly message: string;
}

/**
 * What contradicts an honest history; empty when nothing does. A predecessor that is gone is no problem here, since
 * retention takes old backups away: what must never be missing is what the reader has seen as newest.
 */
export function lineageProblems(generations: readonly Generation[], known: KnownNewest): LineageProblem[] {
  const problems: LineageProblem[] = [];
  const byName = new Map(generations.map((each) => [each.name, each]));
  const byNumber = new Map<number, Generation>();
  for (const each of generations) {
    const twin = byNumber.get(each.generation);
    if (twin !== undefined) {
      problems.push({
        kind: "forked",
        message: `generation ${each.generation} is there twice: ${twin.name}, ${each.name}`,
      });
    }
    byNumber.set(each.generation, each);
    const before = each.previous === null ? undefined : byName.get(each.previous.name);
    if (before === undefined) continue;
    if (before.hash !== each.previous?.hash) {
      problems.push({ kind: "replaced", message: `${before.name} is not the one that ${each.name} was built on` });
    }
    if (before.generation >= each.generation) {
      problems.push({ kind: "wrong_order", message: `${each.name} follows ${before.name} but is not younger` });
    }
  }
  return known === null ? problems : [...problems, ...againstKnown(byNumber, known)];
}

function againstKnown(byNumber: ReadonlyMap<number, Generation>, known: NonNullable<KnownNewest>): LineageProblem[] {
  const newest = Math.max(0, ...byNumber.keys());
  if (newest < known.generation) {
    return [{
      kind: "rolled_back",
      message:
        `the newest backup in the store is generation ${newest}; generation ${known.generation} was there before`,
    }];
  }
  const same = byNumber.get(known.generation);
  if (same === undefined || same.hash === known.hash) return [];
  return [{ kind: "replaced", message: `generation ${known.generation} is not the one that was there before` }];
}
