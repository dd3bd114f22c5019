/** The end of a rewriting: the ledger lists what stands in place of what, and what was there before is looked after. */
import type { Clock } from "../../clock.ts";
import { emptyMap } from "../../rows/ownership/map_file.ts";
import { erasureName } from "../../format/layout.ts";
import { mostRewritten } from "../entry.ts";
import { recordErasure } from "../erase_queries.ts";
import { putEntry } from "../ledger.ts";
import { settleLeftOvers } from "./remains.ts";
import type { RewriteDeps, RewriteResult } from "./rewrite_retained.ts";
import { type LeftOver, listRewritten, readUnlisted, settleErasures } from "./rewriting_queries.ts";

export interface Settled {
  /** What is not gone yet. */
  readonly left: readonly LeftOver[];
  /** Rewritten, and not in the second store yet: not listed in the ledger. */
  readonly uncopied: number;
  /** Erasures of which nothing is left anywhere since now. */
  readonly cleaned: number;
}

/**
 * Listed once every store has it: until then a store that is behind is no store that was put back. Errors: those of keys, stores and
 * connection.
 */
export async function settleRewriting(
  deps: RewriteDeps & { readonly clock: Clock },
  { done, held }: Pick<RewriteResult, "done" | "held">,
): Promise<Settled> {
  const { connection, store, clock, log } = deps;
  const unlisted = await readUnlisted(connection);
  const ready = unlisted.filter(({ copied }) => copied);
  const [erasure] = done;
  for (let from = 0; from < ready.length && erasure !== undefined; from += mostRewritten) {
    const part = ready.slice(from, from + mostRewritten).map(({ name, revision, hash }) => ({ name, revision, hash }));
    const at = `${clock.now().toISOString().slice(0, 19)}Z`;
    const number = await putEntry(deps, { erasure, at, map: emptyMap, rows: [], hashes: [], rewritten: part });
    log.step("rewrite.listed", {});
    await recordErasure(connection, erasure, erasureName(number), store.label);
    await listRewritten(connection, part.map(({ name }) => name));
  }
  const left = await settleLeftOvers(deps, held.length === 0);
  const cleaned = await settleErasures(connection, done);
  return { left, uncopied: unlisted.length - ready.length, cleaned };
}
