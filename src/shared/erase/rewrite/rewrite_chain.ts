/** The segments of one chain, rewritten in their order: what is gone at one place of the stream follows from all before it. */
import { type ListedSegment } from "../../changes/segments/chain_reader.ts";
import { sha256Hex } from "../../crypto/digest.ts";
import { HoldfastError } from "../../errors.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { namesRows } from "../entry.ts";
import { rangesToRewrite } from "./chain_ranges.ts";
import type { SegmentDone, StreamRules } from "./hands.ts";
import { keepTerms } from "./keep_terms.ts";
import type { ChainPosition, Progress } from "./progress.ts";
import { earlierOf } from "./remains.ts";
import { replaceHeld } from "./replace_held.ts";
import type { Rewriting } from "./rewrite_retained.ts";
import { noteClean, noteRemains, recordRewritten } from "./rewriting_queries.ts";
import { readStanding } from "./standing.ts";

export interface ChainToRewrite {
  readonly id: string;
  /** Whole ranges. */
  readonly due: readonly ListedSegment[];
  /** Up to which entry the database knows segments to be rewritten. */
  readonly known: ReadonlyMap<string, { readonly through: number }>;
  readonly rules: StreamRules;
  /** Of rows that are gone in the first backup of the chain. */
  readonly begin: readonly string[];
  readonly progress: Progress;
}

/**
 * What is gone behind each segment that changes is noted before it is put: whoever was killed between finds by the segment itself whether
 * that holds. Errors: those of `openSegment` and `rewriteRecords`, `cancelled`.
 */
export async function rewriteChain(
  { deps, look, ledger, through }: Rewriting,
  { id, due, known, rules, begin, progress }: ChainToRewrite,
): Promise<{ readonly segments: number; readonly changes: number }> {
  const { hands, connection, signal } = deps;
  const entries = ledger.entries.filter(namesRows);
  const hashes = [...new Set(entries.flatMap((entry) => entry.hashes))];
  await hands.begin({ keys: ledger.keys, hashes, identities: entries.flatMap(({ rows }) => rows) }, rules);
  let { after, gone } = await whereItIs(look, progress, id) ?? { after: null, gone: begin };
  let [segments, changes] = [0, 0];
  const isDone = (name: string) => (known.get(name)?.through ?? 0) >= through;
  for (const { names, told } of rangesToRewrite(due, after, isDone)) {
    if (signal?.aborted === true) throw new HoldfastError("cancelled", "rewriting was cancelled; the next one goes on");
    for (const done of await hands.segment({ names, told, through, gone })) {
      const { name, standing, sealed } = done;
      if (standing !== null && standing.through >= through) {
        // By somebody who knew another database.
        if (known.has(name)) await recordRewritten(connection, "segment", { name, ...standing });
        continue;
      }
      if (sealed !== null) {
        await keepTerms(deps, ledger, done.terms);
        await progress.note(id, { after, gone: [...gone], pending: { name, gone: [...done.gone] } });
        const behind = { after: name, gone: [...done.gone], pending: null };
        if (await putSegment(deps, { done, sealed, through }, () => progress.note(id, behind))) segments++;
        changes += done.removed;
        after = name;
      }
      gone = done.gone;
    }
  }
  await noteClean(connection, due.map(({ name }) => name), through);
  return { segments, changes };
}

/** Where the one that was broken off stopped, once it is settled whether the last segment was put. Null: nowhere in this chain. */
async function whereItIs(
  look: Rewriting["look"],
  progress: Progress,
  chain: string,
): Promise<Omit<ChainPosition, "pending"> | null> {
  const at = progress.at(chain);
  if (at?.pending == null) return at;
  const { name, gone } = at.pending;
  const standing = await readStanding(look, name);
  if (standing === null || (standing !== "gone" && standing.through < progress.through)) return at;
  const behind = { after: name, gone, pending: null };
  await inTransaction(look.connection, async () => {
    if (standing !== "gone") await recordRewritten(look.connection, "segment", { name, ...standing });
    await progress.note(chain, behind);
  });
  return behind;
}

/** False: retention took it meanwhile. `noted`: in the transaction that records it. */
async function putSegment(
  deps: Rewriting["deps"],
  { done, sealed, through }: {
    readonly done: SegmentDone;
    readonly sealed: Uint8Array;
    readonly through: number;
  },
  noted: () => Promise<void>,
): Promise<boolean> {
  const { name, revision, original, rawBytes, hash, changes } = done;
  const facts = { name, revision, original, through, stored_bytes: sealed.byteLength, hash: await sha256Hex(sealed) };
  const more = { raw_bytes: rawBytes, plain_hash: hash, changes };
  await noteRemains(deps.connection, await earlierOf(deps, name, done.standing?.through ?? 0, through));
  const held = await replaceHeld(deps, "segment", name, sealed, async () => {
    await recordRewritten(deps.connection, "segment", { ...facts, ...more });
    await noted();
  });
  return held === "held";
}
