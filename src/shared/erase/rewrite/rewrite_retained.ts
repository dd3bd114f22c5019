/** Everything that is kept from before erasures, sealed again without what was erased. docs/decisions/0040-rewriting.md. */
import { epochSource } from "../../crypto/epochs.ts";
import { HoldfastError } from "../../errors.ts";
import { sealManifest } from "../../format/manifest_codec.ts";
import type { Manifest } from "../../format/manifest.ts";
import type { Log } from "../../log.ts";
import type { Connection } from "../../postgres/connection.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import type { Store } from "../../store/store.ts";
import type { ListedSegment } from "../../changes/segments/chain_reader.ts";
import { namesRows } from "../entry.ts";
import { knownEntries } from "../erase_queries.ts";
import { liveGraph } from "../../rows/ownership/live_graph.ts";
import { mapOf, planRemoval } from "../removal_plan.ts";
import type { Ledger } from "../ledger.ts";
import { type PutDeps, readLedger } from "../ledger.ts";
import { keepTerms } from "./keep_terms.ts";
import type { Hands, StreamRules } from "./hands.ts";
import {
  hasOtherIdentities,
  lookAtBackups,
  lookAtDueLists,
  lookAtSegments,
  type LookDeps,
  openFull,
  readStreamKeys,
} from "./look.ts";
import { rewriteManifest } from "./new_manifest.ts";
import { remainsOf } from "./remains.ts";
import { planRewriting, type RewritingPlan } from "./plan_rewriting.ts";
import {
  type Held,
  lockRewriting,
  noteClean,
  noteRemains,
  readErasures,
  readKnownLists,
  readKnownSegments,
  refuseRewriting,
  unlockRewriting,
} from "./rewriting_queries.ts";
import { Progress } from "./progress.ts";
import { recordManifest } from "./record_manifest.ts";
import { replaceHeld } from "./replace_held.ts";
import { rewriteChain } from "./rewrite_chain.ts";
import { rewriteStreamLists } from "./rewrite_stream_lists.ts";
import { rulesOf, scanFull, type ScannedFull, type ScanOptions } from "./scan_full.ts";

export interface RewriteDeps extends PutDeps {
  /** A session of its own: what it locks is locked for as long as it lives. */
  readonly connection: Connection;
  readonly second: Store | null;
  readonly hands: Hands;
  readonly log: Log;
  readonly signal?: AbortSignal;
  readonly onProgress?: (at: { readonly label: string; readonly done: number; readonly total: number }) => void;
}

/** One rewriting. */
export interface Rewriting {
  readonly deps: RewriteDeps;
  readonly look: LookDeps;
  readonly ledger: Ledger;
  /** Number of the newest entry that is applied. */
  readonly through: number;
}

export interface RewriteResult {
  readonly backups: number;
  readonly segments: number;
  /** Lists of files beside segments that lost some. */
  readonly lists: number;
  readonly rows: number;
  readonly changes: number;
  readonly rawBytes: number;
  /** Backups that stay as they are for now, and may hold somebody: on hold, or in use. */
  readonly held: readonly { readonly backup: string; readonly reason: string }[];
  /** Ids of erasures of which nothing is left to be rewritten. */
  readonly done: readonly string[];
}

/**
 * Killed anywhere and called again, it goes on: new objects lie beside the old ones until a manifest names them, and whatever was
 * rewritten says up to which entry of the ledger. Segments before manifests: what goes in the stream is told by what went in the
 * backups. Errors: `erasure_held`, `rewriting_waits`, `run_state`, `ledger_unreadable`, `cancelled`, those of keys and store.
 */
export async function rewriteRetained(deps: RewriteDeps): Promise<RewriteResult> {
  const { connection } = deps;
  await lockRewriting(connection);
  try {
    await refuseRewriting(connection);
    return await rewrite(deps);
  } finally {
    await unlockRewriting(connection).catch(() => {});
  }
}

/**
 * What was begun for some entries is ended for them first: what it found in the stream, where the rewritten segments tell it no more, it
 * found by those entries.
 */
async function rewrite(deps: RewriteDeps): Promise<RewriteResult> {
  const { connection, store } = deps;
  const ledger = await readLedger(deps, await knownEntries(connection, store.label));
  const begun = await Progress.brokenOff(connection);
  if (begun === null || begun >= newestOf(ledger)) return await rewriteFor(deps, ledger);
  const before = await rewriteFor(deps, {
    ...ledger,
    entries: ledger.entries.filter(({ number }) => number <= begun),
  });
  const rest = await rewriteFor(deps, ledger);
  return {
    ...rest,
    backups: before.backups + rest.backups,
    segments: before.segments + rest.segments,
    lists: before.lists + rest.lists,
    rows: before.rows + rest.rows,
    changes: before.changes + rest.changes,
    rawBytes: before.rawBytes + rest.rawBytes,
  };
}

/** Number of the newest entry that names rows. */
const newestOf = ({ entries }: Ledger): number =>
  entries.filter(namesRows).reduce((most, { number }) => Math.max(most, number), 0);

async function rewriteFor(deps: RewriteDeps, ledger: Ledger): Promise<RewriteResult> {
  const { connection, store, log } = deps;
  const look: LookDeps = { ...deps, epochOf: epochSource(store, deps.ring, deps.repositoryId) };
  const erasures = await readErasures(connection);
  const seen = await lookAtBackups(look);
  // Somebody was killed between the store and the database.
  for (const { name, isRecorded } of seen) {
    if (!isRecorded) await inTransaction(connection, async () => await recordManifest(look, name));
  }
  const plan = planRewriting(ledger.entries, erasures, seen);
  const progress = await Progress.of(connection, plan.through);
  const held = plan.held.map(({ backup, reason }) => ({ backup: backup.name, reason }));
  const done = erasures.map(({ id }) => id).filter((id) => !plan.waiting.includes(id));
  const nothing = { backups: 0, segments: 0, lists: 0, rows: 0, changes: 0, rawBytes: 0, held, done };
  if (plan.through === 0) return nothing;
  const known = await readKnownSegments(connection);
  const knownLists = await readKnownLists(connection);
  const chains = await lookAtSegments(store, known, plan.through);
  const dueLists = await lookAtDueLists(store, knownLists, plan.through);
  if (plan.backups.length === 0 && chains.size === 0 && dueLists.length === 0) {
    await progress.end();
    return nothing;
  }
  log.step("rewrite.planned", { backups: plan.backups.length, chains: chains.size, lists: dueLists.length });
  const context: Rewriting = { deps, look, ledger, through: plan.through };
  const { fulls, rules, rawBytes } = await scan(context, plan, chains);
  await keepTerms(deps, ledger, fulls.flatMap(({ terms }) => terms));
  log.step("rewrite.scanned", {});
  let [segments, changes] = [0, 0];
  for (const [id, due] of chains) {
    const done = await rewriteChain(context, { id, due, known, rules, begin: beginOf(id, fulls), progress });
    segments += done.segments;
    changes += done.changes;
  }
  log.step("rewrite.segments", {});
  const lists = await rewriteStreamLists(context, {
    due: dueLists,
    known: knownLists,
    rules,
    gone: [...new Set(fulls.flatMap(({ gone }) => [...gone]))],
    identities: fulls.flatMap(({ identities }) => identities),
  });
  log.step("rewrite.lists", {});
  const { inUse, ...backups } = await writeManifests(context, fulls);
  log.step("rewrite.manifests", {});
  await progress.end();
  const read = inUse.map((backup) => ({ backup, reason: "it is being read" }));
  return {
    segments,
    changes,
    lists,
    ...backups,
    rawBytes,
    held: [...held, ...read],
    done: inUse.length === 0 ? done : [],
  };
}

/** Of the first backup of a chain: what is gone where the stream goes on from it. */
function beginOf(chain: string, fulls: readonly ScannedFull[]): readonly string[] {
  const [first] = fulls.filter(({ full: { manifest } }) => manifest.chain === chain)
    .sort((a, b) => a.full.manifest.consistentAt < b.full.manifest.consistentAt ? -1 : 1);
  return [...first?.gone ?? []];
}

type Chains = ReadonlyMap<string, readonly ListedSegment[]>;

interface Found {
  readonly fulls: readonly ScannedFull[];
  readonly rules: StreamRules;
  readonly rawBytes: number;
}

/**
 * Every backup that is due, looked through; what is left of its objects lies beside them then. One on hold is looked through where the
 * stream is due: what hangs on its rows goes there.
 */
async function scan({ deps, look, ledger }: Rewriting, plan: RewritingPlan, chains: Chains): Promise<Found> {
  const { hands, signal } = deps;
  const open = (isHeld: boolean) => (one: RewritingPlan["backups"][number]) =>
    openFull(look, one.backup.name, { entries: one.entries, isHeld });
  const due = await Promise.all([
    ...plan.backups.map(open(false)),
    ...(chains.size === 0 ? [] : plan.held.map(open(true))),
  ]);
  due.sort((a, b) => a.manifest.consistentAt < b.manifest.consistentAt ? -1 : 1);
  const alsoBy = due.some(({ capture }) => hasOtherIdentities(capture))
    ? await readStreamKeys(look, [...chains.values()].flat())
    : new Map<string, readonly (readonly string[])[]>();
  let rawBytes = 0;
  const total = due.reduce((sum, { manifest }) => sum + manifest.totals.rawBytes, 0);
  const onRead = (bytes: number) => {
    rawBytes += bytes;
    deps.onProgress?.({ label: "rewriting", done: rawBytes, total: Math.max(total, rawBytes) });
  };
  const cache: ScanOptions["cache"] = new Map();
  const options = { keys: ledger.keys, alsoBy, cache, onRead, ...(signal === undefined ? {} : { signal }) };
  const fulls: ScannedFull[] = [];
  for (const full of due) fulls.push(await scanFull(hands, full, options));
  const entries = ledger.entries.filter(namesRows);
  const live = rulesOf(planRemoval(await liveGraph(deps.connection), mapOf(entries)).flatMap(({ tables }) => tables));
  // The newest backup first: its tables are those that the stream speaks of. Where none is due, the tables of now.
  const rules = { tables: [...[...fulls].reverse(), { rules: live }].flatMap((one) => one.rules.tables) };
  return { fulls, rules, rawBytes };
}

async function writeManifests(
  { deps, look, through }: Rewriting,
  fulls: readonly ScannedFull[],
): Promise<{ readonly backups: number; readonly rows: number; readonly inUse: readonly string[] }> {
  let [backups, rows] = [0, 0];
  const inUse: string[] = [];
  for (const scanned of fulls) {
    if (scanned.full.isHeld) continue;
    if (deps.signal?.aborted === true) {
      throw new HoldfastError("cancelled", "rewriting was cancelled; the next one goes on");
    }
    const { full: { name, manifest: before, storedHash } } = scanned;
    const manifest = rewriteManifest(before, storedHash, scanned, through);
    if (manifest === null) {
      await noteClean(deps.connection, [name], through);
      continue;
    }
    const held = await putManifest(deps, look, scanned, manifest);
    if (held === "in use") inUse.push(name);
    if (held !== "held") continue;
    backups++;
    rows += before.totals.rows - manifest.totals.rows;
  }
  return { backups, rows, inUse };
}

async function putManifest(
  deps: RewriteDeps,
  look: LookDeps,
  scanned: ScannedFull,
  manifest: Manifest,
): Promise<Held> {
  const { full: { name } } = scanned;
  const sealed = await sealManifest(deps, await look.epochOf(manifest.epoch), manifest);
  await noteRemains(deps.connection, await remainsOf(deps, scanned, manifest));
  return await replaceHeld(deps, "manifest", name, sealed.bytes, async () => await recordManifest(look, name));
}
