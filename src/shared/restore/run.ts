/** A backup into an empty database, from the store and the keys alone. */
import type { Clock } from "../clock.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { reapplyLedger } from "../erase/reapply.ts";
import { HoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../verify/find_backup.ts";
import { readObject } from "../verify/read_object.ts";
import { type ApplyContext, applyInOrder, applySideBySide, joinRoles, leaveRoles } from "./apply.ts";
import type { BeforeCommit } from "./before_commit.ts";
import { compareCounts } from "./compare_counts.ts";
import type { BackupContents } from "./contents.ts";
import { loadTables } from "./load.ts";
import { needsOf } from "./needs.ts";
import { checkTarget, planRestore, type RestorePlan } from "./plan.ts";
import type { SkippedObject } from "./plan_definitions.ts";
import { progressOf, type RestoreProgress } from "./progress.ts";
import { readContents } from "./read_contents.ts";
import { refreshViews } from "./refresh_views.ts";
import { closeSoon, connectTarget, restoreFailure, RestoreSessions } from "./sessions.ts";
import {
  beginRestore,
  finishRestore,
  type HeldObject,
  readDoneSteps,
  readRestoreRecord,
  releaseRestoreLock,
  type RestoreRecord,
  takeRestoreLock,
} from "./state.ts";
import type { TargetFacts, TargetKind } from "./target.ts";
import { readTargetFacts } from "./target_facts.ts";

export type { RestoreProgress } from "./progress.ts";

export interface RestoreDeps extends ReadDeps {
  /** Sessions to the target, as the role that makes everything. */
  readonly target: Database;
  readonly clock: Clock;
  readonly log: Log;
  /**
   * In the transaction that ends the restore: nobody reads the rows before. Default: people whom the erasure ledger of the store
   * names are taken out (`reapplyLedger`).
   */
  readonly beforeCommit?: BeforeCommit | undefined;
}

export interface RestoreOptions {
  /** Sessions that load and build at once. Default 2, for servers of 2 cores; each also takes up to 256 MB for indexes. */
  readonly parallel?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: RestoreProgress) => void;
  /** Called with the plan before anything is done to the target; what it throws ends the restore. */
  readonly beforehand?: (prepared: PreparedRestore, session: Connection) => Promise<void>;
  /**
   * Says that something follows: schema `holdfast` stays, and the memberships that the restore began. Gives the
   * statements of the transaction that ends the restore; `leaving` end the memberships.
   */
  readonly afterwards?: (leaving: readonly string[]) => readonly string[];
  /**
   * What of the plan is done, in a database that will be thrown away: the rows of some tables may stay out. Rows are loaded
   * without triggers then, so foreign keys may stand before them. The same plan has to give the same again.
   */
  readonly reshape?: (prepared: PreparedRestore) => RestorePlan;
}

export interface RestoreResult {
  readonly id: string;
  readonly ok: true;
  readonly inserted: number;
  readonly updated: 0;
  readonly deleted: 0;
  readonly warnings: readonly string[];
  readonly target: TargetKind;
  readonly held: readonly { readonly identity: string; readonly kind: HeldObject["kind"] }[];
  /** What the target does not have, each with its reason; named in the warnings as well. */
  readonly skipped: readonly SkippedObject[];
  readonly rolesCreated: readonly string[];
  /** Identities of what belongs to the restoring role, since it may not give it away. */
  readonly ownersKept: readonly string[];
  /** Identities of settings that came back in part, for the same kind of reason. */
  readonly settingsLost: readonly string[];
  readonly filesNotRestored: number;
  /** True when an earlier call had begun it. */
  readonly resumed: boolean;
  readonly durationMs: number;
}

/** What would be done, with what it was planned from. */
export interface PreparedRestore {
  readonly contents: BackupContents;
  readonly facts: TargetFacts;
  readonly plan: RestorePlan;
  /** True when the target holds an unfinished restore of this very backup, which would go on. */
  readonly resumes: boolean;
}

const defaultParallel = 2;

/**
 * Plans without doing anything. Errors: those of `openBackup` and `readContents`; `target_not_empty`, `target_is_source`,
 * `server_unsupported`, `run_state` while another restore is at work, those of the connection.
 */
export async function prepareRestore(deps: RestoreDeps, wanted: string): Promise<PreparedRestore> {
  const backup = await openBackup(deps, wanted);
  const contents = await readContents(deps, backup);
  const connection = await connectTarget(deps.target);
  try {
    await takeRestoreLock(connection);
    return await prepare(connection, contents);
  } finally {
    await releaseRestoreLock(connection);
    await connection.close();
  }
}

/**
 * Restores the backup that `wanted` names (a full id, a shortened one, `latest`). A call that ends early, for whatever
 * reason, leaves a target that the same call goes on with; nothing is done twice.
 * Errors: those of `prepareRestore`; `object_missing`, `object_damaged`, `target_full`, `counts_differ`, `cancelled`,
 * `database_denied`, `database_failed` with the definition's name.
 */
export async function restoreBackup(
  deps: RestoreDeps,
  wanted: string,
  options: RestoreOptions = {},
): Promise<RestoreResult> {
  const startMs = deps.clock.monotonicMs();
  const backup = await openBackup(deps, wanted);
  const contents = await readContents(deps, backup);
  const holder = await connectTarget(deps.target);
  try {
    await takeRestoreLock(holder);
    const prepared = await prepare(holder, contents);
    const { facts, resumes } = prepared;
    const plan = options.reshape?.(prepared) ?? prepared.plan;
    await options.beforehand?.(prepared, holder);
    if (!resumes) await begin(holder, prepared, options.signal);
    const done = await readDoneSteps(holder);
    const sessions = await RestoreSessions.open(deps.target, {
      lanes: options.parallel ?? defaultParallel,
      signal: options.signal,
    });
    try {
      await execute(deps, backup, plan, facts, sessions, done, options);
      await finish(deps, sessions, plan, done, options);
    } finally {
      await sessions.close(deps.clock);
    }
    return resultOf(prepared, Math.round(deps.clock.monotonicMs() - startMs));
  } finally {
    await releaseRestoreLock(holder);
    await closeSoon(deps.clock, [holder]);
  }
}

/**
 * What the restore of a full backup did that has ended in the target, where something follows it.
 * Errors: those of `openBackup` and `readContents`; `target_not_empty` where it was another backup's or another version's.
 */
export async function prepareFinished(deps: RestoreDeps, connection: Connection, id: string): Promise<PreparedRestore> {
  const contents = await readContents(deps, await openBackup(deps, id));
  const record = await readRestoreRecord(connection);
  if (record === null || record.finishedAt === null) {
    throw new HoldfastError("run_state", "the target does not remember the end of a restore");
  }
  return { contents, facts: record.facts, plan: await planAgain(contents, record), resumes: true };
}

export function resultOf({ contents, plan, resumes }: PreparedRestore, durationMs: number): RestoreResult {
  return {
    id: contents.backupId,
    ok: true,
    inserted: plan.rows,
    updated: 0,
    deleted: 0,
    warnings: plan.warnings,
    target: plan.kind,
    skipped: plan.skipped,
    held: plan.held.map(({ identity, kind }) => ({ identity, kind })),
    rolesCreated: plan.rolesCreated,
    ownersKept: plan.ownersKept,
    settingsLost: plan.settingsLost,
    filesNotRestored: plan.filesNotRestored,
    resumed: resumes,
    durationMs,
  };
}

async function prepare(connection: Connection, contents: BackupContents): Promise<PreparedRestore> {
  const record = await readRestoreRecord(connection);
  if (record === null || record.finishedAt !== null) {
    const facts = await readTargetFacts(connection, needsOf(contents));
    checkTarget(contents, facts, record);
    return { contents, facts, plan: planRestore(contents, facts), resumes: false };
  }
  return { contents, facts: record.facts, plan: await planAgain(contents, record), resumes: true };
}

/** Errors: `target_not_empty` for a record of another backup, or of a version that plans otherwise. */
async function planAgain(contents: BackupContents, record: RestoreRecord): Promise<RestorePlan> {
  if (record.backupId !== contents.backupId || record.manifestHash !== contents.manifestHash) {
    throw new HoldfastError("target_not_empty", `the target holds an unfinished restore of backup ${record.backupId}`, {
      hint: "Go on with that backup, or restore into another database.",
    });
  }
  const plan = planRestore(contents, record.facts);
  if ((await hashOf(plan)) !== record.planHash) {
    throw new HoldfastError("target_not_empty", "the unfinished restore in the target was begun by another version", {
      hint: "Go on with the version that began it, or restore into another database.",
    });
  }
  return plan;
}

async function begin(
  connection: Connection,
  { contents, facts, plan }: PreparedRestore,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { backupId, manifestHash } = contents;
  const record = { backupId, manifestHash, planHash: await hashOf(plan), facts };
  try {
    await beginRestore(connection, record, plan.held);
  } catch (error) {
    throw restoreFailure(error, "the restore's own record", signal);
  }
}

async function finish(
  deps: RestoreDeps,
  sessions: RestoreSessions,
  plan: RestorePlan,
  done: ReadonlySet<string>,
  { afterwards, signal }: RestoreOptions,
): Promise<void> {
  const leaving = leaveRoles(done);
  const keepState = plan.held.length > 0 || afterwards !== undefined;
  const ending = [...plan.ending, ...(afterwards?.(leaving) ?? leaving)];
  // What follows has the last word, where something does.
  const lastWord = afterwards === undefined ? deps.beforeCommit ?? reapplyLedger(deps) : undefined;
  try {
    await finishRestore(sessions.main, ending, { keepState, keepQuiet: afterwards !== undefined }, async () => {
      if (lastWord === undefined) return;
      await lastWord(sessions.main);
      await refreshViews(sessions.main);
    });
  } catch (error) {
    throw restoreFailure(error, "the end of the restore", signal);
  }
}

async function execute(
  deps: RestoreDeps,
  backup: OpenedBackup,
  plan: RestorePlan,
  facts: TargetFacts,
  sessions: RestoreSessions,
  done: Set<string>,
  options: RestoreOptions,
): Promise<void> {
  const progress = progressOf(plan, done, options.onProgress);
  const context: ApplyContext = {
    sessions,
    done,
    log: deps.log,
    signal: options.signal,
    onStep: () => progress.add({ steps: 1 }),
  };
  progress.phase("definitions");
  await applyInOrder(context, "roles", plan.roles);
  await joinRoles(context, plan.actsAs);
  await applyInOrder(context, "pre-data", plan.preData);

  progress.phase("rows");
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: backup.epochOf };
  const isQuiet = facts.kind === "project" || options.reshape !== undefined;
  if (isQuiet) await sessions.each("set session_replication_role = replica");
  await loadTables(
    context,
    plan.loads,
    ({ object, rawBytes, hash }) => readObject(reader, { kind: "chunk", name: object, rawBytes, hash }),
    (chunk) => progress.add({ rows: chunk.rows, rawBytes: chunk.rawBytes }),
  );
  if (isQuiet) await sessions.each("set session_replication_role = origin");

  progress.phase("indexes");
  await applySideBySide(context, "post-data", plan.postData);
  await applyInOrder(context, "sequences", plan.sequences);

  progress.phase("privileges");
  await applyInOrder(context, "privileges", plan.privileges);

  progress.phase("last");
  await applyInOrder(context, "last", plan.last);

  progress.phase("counts");
  await compareCounts(context, plan.loads);
}

/** Of all that the plan does. */
function hashOf(plan: RestorePlan): Promise<string> {
  const text = JSON.stringify(plan, (_, value) => value instanceof Map ? [...value] : value);
  return sha256Hex(new TextEncoder().encode(text));
}
