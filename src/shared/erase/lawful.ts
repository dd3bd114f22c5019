/**
 * Is a manifest or a segment what stands under its name by right? It may have been rewritten for an erasure that the ledger holds, and
 * what the ledger lists may not be there in an earlier revision. docs/format.md, F-34 and F-35.
 */
import { HoldfastError } from "../errors.ts";
import type { LedgerEntry, RewrittenObject } from "./entry.ts";

/** What is asked about: as it was read. */
export interface Standing {
  readonly name: string;
  /** SHA-256 of the sealed bytes as they are, in hex. */
  readonly storedHash: string;
  readonly rewritten?: { readonly revision: number; readonly through: number } | undefined;
}

/** The newest revision that the ledger lists of each name. Pure. */
export function listedIn(entries: readonly LedgerEntry[]): ReadonlyMap<string, RewrittenObject> {
  const listed = new Map<string, RewrittenObject>();
  for (const { rewritten = [] } of entries) {
    for (const one of rewritten) {
      if ((listed.get(one.name)?.revision ?? 0) < one.revision) listed.set(one.name, one);
    }
  }
  return listed;
}

/** Errors: `rewrite_unlawful`. Pure. */
export function refuseUnlawful(
  entries: readonly LedgerEntry[],
  listed: ReadonlyMap<string, RewrittenObject>,
  { name, storedHash, rewritten }: Standing,
): void {
  const refuse = (why: string): never => {
    throw new HoldfastError("rewrite_unlawful", `${name} ${why}`);
  };
  if (rewritten !== undefined && rewritten.through > entries.length) {
    refuse(`was rewritten for entry ${rewritten.through} of the erasure ledger, which has ${entries.length}`);
  }
  const known = listed.get(name);
  if (known === undefined) return;
  const revision = rewritten?.revision ?? 0;
  if (revision < known.revision) {
    refuse(`is revision ${revision}; revision ${known.revision} stood there after an erasure, so it was put back`);
  }
  if (revision === known.revision && storedHash !== known.hash) refuse("is another one than the erasure ledger lists");
}

/** Segments as they are read, each refused where it does not stand there by right. Errors: `rewrite_unlawful`. */
export async function* lawfully<
  T extends Omit<Standing, "rewritten"> & { readonly header: Pick<Standing, "rewritten"> },
>(
  entries: readonly LedgerEntry[],
  segments: AsyncIterable<T>,
): AsyncGenerator<T> {
  const listed = listedIn(entries);
  for await (const segment of segments) {
    refuseUnlawful(entries, listed, { ...segment, rewritten: segment.header.rewritten });
    yield segment;
  }
}
