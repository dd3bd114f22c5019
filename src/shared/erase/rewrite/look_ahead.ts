/** What a rewriting would do now; nothing is changed. */
import { epochSource } from "../../crypto/epochs.ts";
import { knownEntries } from "../erase_queries.ts";
import { readLedger } from "../ledger.ts";
import { lookAtBackups, lookAtDueLists, lookAtSegments } from "./look.ts";
import { planRewriting } from "./plan_rewriting.ts";
import type { RewriteDeps } from "./rewrite_retained.ts";
import { type LeftOver, readErasures, readKnownLists, readKnownSegments, readRemains } from "./rewriting_queries.ts";

export interface RewritingAhead {
  /** Names of manifests and how many segments may hold somebody who was erased. */
  readonly backups: readonly string[];
  readonly segments: number;
  /** Lists of files beside segments. */
  readonly lists: number;
  readonly held: readonly { readonly backup: string; readonly reason: string }[];
  /** What was rewritten before and is not gone yet. */
  readonly left: readonly LeftOver[];
}

/** Errors: `ledger_unreadable`, those of keys, store and connection. */
export async function lookAheadRewriting(deps: Omit<RewriteDeps, "hands">): Promise<RewritingAhead> {
  const { connection, store, ring, repositoryId } = deps;
  const { entries } = await readLedger(deps, await knownEntries(connection, store.label));
  const epochOf = epochSource(store, ring, repositoryId);
  const plan = planRewriting(entries, await readErasures(connection), await lookAtBackups({ ...deps, epochOf }));
  const chains = plan.through === 0
    ? new Map<string, readonly unknown[]>()
    : await lookAtSegments(store, await readKnownSegments(connection), plan.through);
  const lists = plan.through === 0 ? [] : await lookAtDueLists(store, await readKnownLists(connection), plan.through);
  return {
    lists: lists.length,
    backups: plan.backups.map(({ backup }) => backup.name),
    segments: [...chains.values()].reduce((sum, segments) => sum + segments.length, 0),
    held: plan.held.map(({ backup, reason }) => ({ backup: backup.name, reason })),
    left: await readRemains(connection),
  };
}
