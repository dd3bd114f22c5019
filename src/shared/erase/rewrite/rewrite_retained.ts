/** Everything that is kept from before erasures, sealed again without what was erased. docs/decisions/0040-rewriting.md. */
import { sameBytes, sha256Hex } from "../../crypto/digest.ts";
import { epochSource } from "../../crypto/epochs.ts";
import { HoldfastError } from "../../errors.ts";
import { sealManifest } from "../../format/manifest_codec.ts";
import type { Manifest } from "../../format/manifest.ts";
import type { Log } from "../../log.ts";
import type { Connection } from "../../postgres/connection.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import type { Store } from "../../store/store.ts";
import type { ListedSegment } from "../../changes/segments/chain_reader.ts";
import { knownEntries } from "../erase_queries.ts";
import type { Identity } from "../entry.ts";
import { liveGraph } from "../../rows/ownership/live_graph.ts";
import { identityKey, mapOf, planRemoval } from "../removal_plan.ts";
import type { Ledger } from "../ledger.ts";
import { type PutDeps, readLedger } from "../ledger.ts";
import { keepTerms } from "./keep_terms.ts";
import type { Hands, SegmentDone, StreamRules } from "./hands.ts";
import { hasOtherIdentities, lookAtBackups, lookAtSegments, type LookDeps, openFull, readStreamKeys } from "./look.ts";
import { rewriteManifest } from "./new_manifest.ts";
import { earlierOf, remainsOf } from "./remains.ts";
import { planRewriting, type RewritingPlan } from "./plan_rewriting.ts";
import {
  type Held,
  holdName,
  lockRewriting,
  noteClean,
  noteFound,
  noteRemains,
  readErasures,
  readFound,
  readKnownSegments,
  recordRewritten,
  refuseRewriting,
  unlockRewriting,
} from "./rewriting_queries.ts";
import { recordManifest } from "./record_manifest.ts";
import { rangesOf, scanChain, type ScannedChain } from "./scan_chain.ts";
import { inParallel, rulesOf, scanFull, type ScannedFull, type ScanOptions } from "./scan_full.ts";

export interface RewriteDeps extends PutDeps {
  /** A session of its own: what it locks is locked for as long as it lives. */
  readonly connection: Connection;
  readonly second: Store | null;
  readonly hands: Hands;
  readonly log: Log;
  readonly signal?: AbortSignal;
  readonly onProgress?: (at: { readonly label: string; readonly done: number; readonly total: number }) => void;
}

export interface RewriteResult {
  readonly backups: number;
  readonly segments: number;
  readonly rows: number;
  readonly changes: number;
  readonly rawBytes: number;
  /** Backups that stay as they are for now, and may hold somebody: on hold, or in use. */
  readonly held: readonly { readonly backup: string; readonly reason: string }[];
  /** Ids of erasures of which nothing is left to be rewritten. */
  readonly done: readonly string[];
}

/** What is found in the stream can change what goes in the backups, and the other way round; it has never taken more than three. */
const mostRounds = 8;

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

async function rewrite(deps: RewriteDeps): Promise<RewriteResult> {
  const { connection, store, log } = deps;
  const ledger = await readLedger(deps, await knownEntries(connection, store.label));
  const look: LookDeps = { ...deps, epochOf: epochSource(store, deps.ring, deps.repositoryId) };
  const erasures = await readErasures(connection);
  const seen = await lookAtBackups(look);
  // Somebody was killed between the store and the database.
  for (const { name, isRecorded } of seen) {
    if (!isRecorded) await inTransaction(connection, async () => await recordManifest(look, name));
  }
  const plan = planRewriting(ledger.entries, erasures, seen);
  const held = plan.held.map(({ backup, reason }) => ({ backup: backup.name, reason }));
  const done = erasures.map(({ id }) => id).filter((id) => !plan.waiting.includes(id));
  const nothing = { backups: 0, segments: 0, rows: 0, changes: 0, rawBytes: 0, held, done };
  if (plan.through === 0) return nothing;
  const known = await readKnownSegments(connection);
  const chains = await lookAtSegments(store, known, plan.through);
  if (plan.backups.length === 0 && chains.size === 0) return nothing;
  log.step("rewrite.planned", { backups: plan.backups.length, chains: chains.size });
  const found = await scan(deps, look, ledger, plan, chains);
  await keepTerms(deps, ledger, found.fulls.flatMap(({ terms }) => terms), found.chains.flatMap(({ terms }) => terms));
  await noteFound(connection, {
    gone: [...found.gone],
    kept: [...found.kept],
    identities: found.identities.map(({ schema, name, columns }) => ({ schema, name, columns: [...columns] })),
  });
  log.step("rewrite.scanned", {});
  const segments = await writeSegments(deps, ledger, plan, chains, found, known);
  log.step("rewrite.segments", {});
  const backups = await writeManifests(deps, look, plan, found.fulls);
  log.step("rewrite.manifests", {});
  await noteFound(connection, null);
  const { inUse, ...counts } = backups;
  const read = inUse.map((backup) => ({ backup, reason: "it is being read" }));
  return {
    ...segments,
    ...counts,
    rawBytes: found.rawBytes,
    held: [...held, ...read],
    done: inUse.length === 0 ? done : [],
  };
}

/** What goes beside what the ledger names. */
interface Beside {
  readonly gone: Set<string>;
  readonly kept: Set<string>;
  readonly identities: readonly Identity[];
  readonly rules: StreamRules;
}

interface Found extends Beside {
  readonly fulls: readonly ScannedFull[];
  readonly chains: readonly (ScannedChain & { readonly id: string })[];
  readonly rawBytes: number;
}

type Chains = ReadonlyMap<string, readonly ListedSegment[]>;

/** Until backups and stream agree on which rows go. */
async function scan(
  deps: RewriteDeps,
  look: LookDeps,
  ledger: Ledger,
  plan: RewritingPlan,
  chains: Chains,
): Promise<Found> {
  const { hands, signal } = deps;
  const due = await Promise.all(plan.backups.map(({ backup, entries }) => openFull(look, backup.name, entries)));
  const all = [...chains.values()].flat();
  const alsoBy = due.some(({ capture }) => hasOtherIdentities(capture))
    ? await readStreamKeys(look, all)
    : new Map<string, readonly (readonly string[])[]>();
  let rawBytes = 0;
  const total = due.reduce((sum, { manifest }) => sum + manifest.totals.rawBytes, 0);
  const onRead = (bytes: number) => {
    rawBytes += bytes;
    deps.onProgress?.({ label: "rewriting", done: rawBytes, total: Math.max(total, rawBytes) });
  };
  const before = await readFound(deps.connection);
  const entries = ledger.entries.filter(({ rewritten }) => rewritten === undefined);
  const live = rulesOf(planRemoval(await liveGraph(deps.connection), mapOf(entries)).flatMap(({ tables }) => tables));
  const kept = new Set(before?.kept);
  for (let round = 0; round < mostRounds; round++) {
    const cache: ScanOptions["cache"] = new Map();
    const wereKept = kept.size;
    const fulls: ScannedFull[] = [];
    const options = { keys: ledger.keys, kept, alsoBy, cache, onRead, ...(signal === undefined ? {} : { signal }) };
    for (const full of due) fulls.push(await scanFull(hands, full, options));
    const scanned: (ScannedChain & { id: string })[] = [];
    const gone = new Set([...before?.gone ?? [], ...fulls.flatMap((one) => [...one.gone])]);
    const identities = [...before?.identities ?? [], ...fulls.flatMap((one) => one.identities)];
    // The newest backup first: its tables are those that the stream speaks of. Where none is due, the tables of now.
    const rules = { tables: [...[...fulls].reverse(), { rules: live }].flatMap((one) => one.rules.tables) };
    for (const [id, segments] of chains) {
      const chain = { ranges: rangesOf(segments), entries, gone, identities, rules, keys: ledger.keys, kept };
      const one = await scanChain(hands, chain, { onRead, ...(signal === undefined ? {} : { signal }) });
      scanned.push({ ...one, id });
      for (const hash of one.disputed) kept.add(hash);
    }
    if (kept.size > wereKept) continue;
    for (const one of scanned) for (const hash of one.gone) gone.add(hash);
    return {
      fulls,
      chains: scanned,
      gone,
      kept,
      rules,
      identities: unique([...identities, ...tellingOf(scanned, rules)]),
      rawBytes,
    };
  }
  throw new HoldfastError("internal", "backups and the change stream do not come to agree on which rows go");
}

/** What was found in the stream can be of any table. */
function tellingOf(scanned: readonly ScannedChain[], { tables }: StreamRules): Identity[] {
  return scanned.some(({ gone }) => gone.size > 0) ? tables.flatMap(({ table }) => table.identities) : [];
}

const unique = (identities: readonly Identity[]): Identity[] => [
  ...new Map(identities.map((one) => [identityKey(one), one])).values(),
];

async function writeSegments(
  deps: RewriteDeps,
  ledger: Ledger,
  { through }: RewritingPlan,
  chains: Chains,
  found: Found,
  known: ReadonlyMap<string, { readonly through: number }>,
): Promise<{ readonly segments: number; readonly changes: number }> {
  const { connection, hands, signal } = deps;
  const entries = ledger.entries.filter(({ rewritten }) => rewritten === undefined);
  let [segments, changes] = [0, 0];
  for (const { id, touched, standing } of found.chains) {
    for (const [name, facts] of standing) {
      if (facts.through > (known.get(name)?.through ?? facts.through)) {
        await recordRewritten(connection, "segment", { name, ...facts });
      }
    }
    const hashes = [...new Set(entries.flatMap((entry) => entry.hashes))];
    const identities = [...entries.flatMap(({ rows }) => rows), ...found.identities];
    await hands.begin({ keys: ledger.keys, hashes, identities, kept: [...found.kept] }, found.rules);
    await hands.learn([...found.gone], []);
    const ranges = rangesOf(chains.get(id) ?? []);
    await inParallel(ranges, 1, signal, async (range) => {
      if (!range.some(({ name }) => touched.has(name))) return;
      for (const done of await hands.segment({ names: range.map(({ name }) => name), through })) {
        if (done.sealed === null) continue;
        if (await putSegment(deps, done, done.sealed, through) === "held") segments++;
        changes += done.removed;
      }
    });
    await noteClean(connection, (chains.get(id) ?? []).map(({ name }) => name), through);
  }
  return { segments, changes };
}

async function putSegment(deps: RewriteDeps, done: SegmentDone, sealed: Uint8Array, through: number): Promise<Held> {
  const { name, revision, original, rawBytes, hash, changes } = done;
  const facts = { name, revision, original, through, stored_bytes: sealed.byteLength, hash: await sha256Hex(sealed) };
  const more = { raw_bytes: rawBytes, plain_hash: hash, changes };
  await noteRemains(deps.connection, await earlierOf(deps, name, done.standing?.through ?? 0, through));
  return await replaceHeld(deps, "segment", name, sealed, async () => {
    await recordRewritten(deps.connection, "segment", { ...facts, ...more });
  });
}

async function writeManifests(
  deps: RewriteDeps,
  look: LookDeps,
  { through }: RewritingPlan,
  fulls: readonly ScannedFull[],
): Promise<{ readonly backups: number; readonly rows: number; readonly inUse: readonly string[] }> {
  let [backups, rows] = [0, 0];
  const inUse: string[] = [];
  for (const scanned of fulls) {
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

/**
 * Under the row's lock, so that retention does not take it meanwhile. The store first: what the database says of it is then true, and
 * one that was put and not recorded says itself that it was rewritten. What is gone, or in use, stays as it is.
 */
async function replaceHeld(
  { connection, store, log }: RewriteDeps,
  kind: "manifest" | "segment",
  name: string,
  bytes: Uint8Array,
  record: () => Promise<void>,
): Promise<Held> {
  await connection.execute("begin");
  try {
    const held = await store.size(name) === null ? "gone" : await holdName(connection, kind, name);
    if (held !== "held") {
      await connection.execute("rollback");
      return held;
    }
    log.step("rewrite.putting", { name });
    await store.replace(name, bytes);
    if (!sameBytes(await store.read(name), bytes)) {
      throw new HoldfastError("store_lied", `${store.label} gave back other bytes than were written to ${name}`);
    }
    log.step("rewrite.put", { name });
    await record();
    await connection.execute("commit");
    log.step("rewrite.recorded", { name });
    return "held";
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}
