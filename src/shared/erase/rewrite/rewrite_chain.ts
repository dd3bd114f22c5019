/** The segments of one chain, rewritten in their order: what is gone at one place of the stream follows from all before it. */
import { type ListedSegment } from "../../changes/segments/chain_reader.ts";
import { sha256Hex } from "../../crypto/digest.ts";
import { HoldfastError } from "../../errors.ts";
import { namesRows } from "../entry.ts";
import type { SegmentDone, StreamRules } from "./hands.ts";
import { keepTerms } from "./keep_terms.ts";
import { earlierOf } from "./remains.ts";
import { replaceHeld } from "./replace_held.ts";
import type { Rewriting } from "./rewrite_retained.ts";
import { noteClean, noteFound, noteRemains, readFound, recordRewritten } from "./rewriting_queries.ts";

export interface ChainToRewrite {
  readonly id: string;
  readonly due: readonly ListedSegment[];
  /** Up to which entry the database knows segments to be rewritten. */
  readonly known: ReadonlyMap<string, { readonly through: number }>;
  readonly rules: StreamRules;
  /** Of rows that are gone in the first backup of the chain. */
  readonly begin: readonly string[];
}

/**
 * What is gone is noted before each segment that changes, with what is gone behind it: whoever was killed between finds by the segment
 * itself which of the two holds. Errors: those of `openSegment` and `rewriteRecords`, `cancelled`.
 */
export async function rewriteChain(
  { deps, ledger, through }: Rewriting,
  { id, due, known, rules, begin }: ChainToRewrite,
): Promise<{ readonly segments: number; readonly changes: number }> {
  const { hands, connection, signal } = deps;
  const entries = ledger.entries.filter(namesRows);
  const hashes = [...new Set(entries.flatMap((entry) => entry.hashes))];
  await hands.begin({ keys: ledger.keys, hashes, identities: entries.flatMap(({ rows }) => rows) }, rules);
  const broken = (await readFound(connection))?.[id];
  let gone: readonly string[] = broken?.gone ?? begin;
  let [segments, changes] = [0, 0];
  for (const range of rangesOf(due)) {
    if (signal?.aborted === true) throw new HoldfastError("cancelled", "rewriting was cancelled; the next one goes on");
    for (const done of await hands.segment({ names: range.map(({ name }) => name), through, gone })) {
      const { name, standing, sealed } = done;
      if (standing !== null && standing.through >= through) {
        if (standing.through > (known.get(name)?.through ?? standing.through)) {
          await recordRewritten(connection, "segment", { name, ...standing });
        }
        if (broken?.pending?.name === name) gone = broken.pending.gone;
        continue;
      }
      if (sealed !== null) {
        await keepTerms(deps, ledger, done.terms);
        await noteFound(connection, { [id]: { gone: [...gone], pending: { name, gone: [...done.gone] } } });
        if (await putSegment(deps, done, sealed, through)) segments++;
        changes += done.removed;
      }
      gone = done.gone;
    }
  }
  await noteClean(connection, due.map(({ name }) => name), through);
  return { segments, changes };
}

/** False: retention took it meanwhile. */
async function putSegment(
  deps: Rewriting["deps"],
  done: SegmentDone,
  sealed: Uint8Array,
  through: number,
): Promise<boolean> {
  const { name, revision, original, rawBytes, hash, changes } = done;
  const facts = { name, revision, original, through, stored_bytes: sealed.byteLength, hash: await sha256Hex(sealed) };
  const more = { raw_bytes: rawBytes, plain_hash: hash, changes };
  await noteRemains(deps.connection, await earlierOf(deps, name, done.standing?.through ?? 0, through));
  const held = await replaceHeld(deps, "segment", name, sealed, async () => {
    await recordRewritten(deps.connection, "segment", { ...facts, ...more });
  });
  return held === "held";
}

/** Parts of one range together; two segments of one start, the shorter first. */
function rangesOf(segments: readonly ListedSegment[]): ListedSegment[][] {
  const order = (a: ListedSegment, b: ListedSegment) =>
    a.startLsn !== b.startLsn
      ? a.startLsn < b.startLsn ? -1 : 1
      : a.endLsn !== b.endLsn
      ? a.endLsn < b.endLsn ? -1 : 1
      : a.part - b.part;
  const ranges = new Map<string, ListedSegment[]>();
  for (const segment of [...segments].sort(order)) {
    const key = `${segment.startLsn}-${segment.endLsn}`;
    ranges.set(key, [...ranges.get(key) ?? [], segment]);
  }
  return [...ranges.values()];
}
