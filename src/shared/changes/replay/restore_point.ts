/** A database as it was at a moment: the newest full before it, then the stream up to it. */
import { openSession } from "../../backup/session.ts";
import { lawfully } from "../../erase/lawful.ts";
import { readLedger } from "../../erase/ledger.ts";
import { reapplyLedger } from "../../erase/reapply.ts";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { joinRole, leaveRole, rolesToJoin } from "../../restore/apply.ts";
import { filesWarning } from "../../restore/project_rows.ts";
import {
  prepareFinished,
  restoreBackup,
  type RestoreDeps,
  type RestoreOptions,
  type RestoreResult,
  resultOf,
} from "../../restore/run.ts";
import { isDiskFull, restoreFailure } from "../../restore/sessions.ts";
import { releaseRestoreLock, takeRestoreLock, transaction } from "../../restore/state.ts";
import { readChain } from "../segments/chain_reader.ts";
import { actingRoles, checkRoles, checkServiceTables } from "../plan/check_target.ts";
import { unsettledWarnings } from "../segments/coverage.ts";
import { finishPoint } from "./finish_point.ts";
import { parseLsn } from "../decode/lsn.ts";
import { isDoneByPlatform } from "../definitions/platform_definitions.ts";
import { meantTables } from "../plan/named_tables.ts";
import type { PointPlan } from "../plan/plan_point.ts";
import { planProjectChanges } from "../plan/project_changes.ts";
import { ownRowsOf } from "./own_rows.ts";
import { quietTriggers, wakeTriggers } from "./quiet_triggers.ts";
import { replay } from "./replay.ts";
import { beginReplay, markLeaving, markReplayed, readReplay, type ReplayMarker } from "./replay_marker.ts";
import { type SnapshotView, snapshotView } from "../segments/visibility.ts";

export { planPoint, type PointChoices, type PointPlan } from "../plan/plan_point.ts";

export interface PointResult extends Omit<RestoreResult, "updated" | "deleted"> {
  readonly updated: number;
  readonly deleted: number;
  readonly reachedLsn: string;
  readonly reachedAt: string;
  readonly transactions: number;
}

export interface PointOptions extends Omit<RestoreOptions, "beforehand" | "afterwards"> {
  /** After each group that was committed; `changes` are those of the group. */
  readonly onReplay?: (done: { readonly transactions: number; readonly of: number; readonly changes: number }) => void;
}

/**
 * Restores the plan's full and replays up to its point. Killed and called again with the same plan it goes on: the place
 * is in the target, in the transaction of what it marks. The result is that of all these calls together, but for the
 * time that they took. Into a project as `restoreBackup` does it: the tables of its services take what they have columns
 * for, rows of storage.objects do not come, and what its services did to their own definitions is left to them.
 * Errors: those of `restoreBackup` and `replay`; `target_not_empty` where another replay was begun; before anything is
 * done `ddl_not_replayable`, `target_differs` and `database_denied` for what the target would refuse later.
 */
export async function restorePoint(
  deps: RestoreDeps,
  plan: PointPlan,
  options: PointOptions = {},
): Promise<PointResult> {
  const startMs = deps.clock.monotonicMs();
  const { full: { manifest }, survey: seen, choices } = plan;
  const begun = await replayOf(deps);
  if (begun !== null && !isSame(begun, plan)) {
    throw new HoldfastError("target_not_empty", `the target holds an unfinished restore to ${begun.point}`, {
      hint: "Go on with that moment and the same tables, or restore into another database.",
    });
  }
  const restored = begun === null
    ? await restoreBackup(deps, manifest.id, {
      ...options,
      beforehand: async ({ contents, facts }, session) => {
        checkRoles(actingRoles(seen.definitions, facts), contents.capture, facts);
        await checkServiceTables(session, planProjectChanges(seen.serviceTables, contents, facts, choices));
      },
      afterwards: (leaving) => beginReplay(markOf(plan), leaving),
    })
    : null;
  const { outcome, end } = await replayInto(deps, plan, options).catch((error: unknown) => {
    throw isDiskFull(error) ? restoreFailure(error, "the replay", options.signal) : error;
  });
  return {
    ...outcome,
    inserted: outcome.inserted + end.done.inserted,
    updated: end.done.updated,
    deleted: end.done.deleted,
    warnings: [
      ...outcome.warnings,
      ...choices.withoutTables.map((table) => `${table} was left out`),
      ...choices.atFull.map((table) => `${table} is as of ${manifest.consistentAt}`),
      ...unsettledWarnings(plan.survey.unsettled, [...choices.withoutTables, ...choices.atFull]),
      ...heldWarnings(plan.survey.heldSequences),
      ...ownerWarnings(plan.survey.unsettledOwners),
    ],
    resumed: restored === null || restored.resumed,
    reachedLsn: end.position ?? manifest.snapshot.walInsertLsn,
    reachedAt: end.reachedAt ?? manifest.consistentAt,
    transactions: end.done.transactions,
    durationMs: Math.round(deps.clock.monotonicMs() - startMs),
  };
}

function heldWarnings(sequences: readonly string[]): string[] {
  return sequences.length === 0 ? [] : [
    `the values of ${sequences.join(", ")} may be behind those that were given: a transaction held them when their ` +
    "state was to be recorded",
  ];
}

function ownerWarnings(objects: readonly string[]): string[] {
  return objects.length === 0 ? [] : [
    `the owner of ${
      objects.join(", ")
    } may be another: it was given away by REASSIGN OWNED about the moment, and the server ` +
    "tells nobody when",
  ];
}

function markOf({ full, label, choices }: PointPlan): Pick<ReplayMarker, "backup" | "point" | "choices"> {
  const { withoutTables, atFull } = choices;
  const sorted = { withoutTables: [...withoutTables].sort(), atFull: [...atFull].sort() };
  return { backup: full.manifest.id, point: label, choices: JSON.stringify(sorted) };
}

function isSame(begun: ReplayMarker, plan: PointPlan): boolean {
  const { backup, point, choices } = markOf(plan);
  return begun.backup === backup && begun.point === point && begun.choices === choices;
}

async function replayOf(deps: RestoreDeps): Promise<ReplayMarker | null> {
  const connection = await deps.target.connect("holdfast:restore");
  try {
    return await readReplay(connection);
  } finally {
    await connection.close();
  }
}

/** `outcome`: of the full, as it is at the point. */
interface ReplayEnd {
  readonly outcome: RestoreResult;
  readonly end: ReplayMarker;
}

async function replayInto(deps: RestoreDeps, plan: PointPlan, options: PointOptions): Promise<ReplayEnd> {
  const { full, survey: seen, choices } = plan;
  const snapshot: SnapshotView = snapshotView(full.manifest.snapshot.text);
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: full.epochOf };
  const connection = await openSession(deps.target, "holdfast:replay");
  try {
    // Two replays of one target would both apply what comes after the same place: it is read under the lock.
    await takeRestoreLock(connection);
    const begun = await readReplay(connection);
    if (begun === null || !isSame(begun, plan)) {
      throw new HoldfastError("run_state", "another call has gone on with this restore meanwhile");
    }
    const prepared = await prepareFinished(deps, connection, full.manifest.id);
    const { contents, facts } = prepared;
    const changes = planProjectChanges(seen.serviceTables, contents, facts, choices);
    await joinActingRoles(connection, begun, actingRoles(seen.definitions, facts));
    await connection.execute("set session_replication_role = replica; set check_function_bodies = off");
    await inTransaction(connection, () => quietTriggers(connection));
    const { position, done } = begun;
    const withoutTables = meantTables(seen, choices.withoutTables);
    const atFull = meantTables(seen, choices.atFull);
    const lawful = lawfully((await readLedger(deps)).entries, readChain(reader, plan.segments));
    await replay(connection, lawful, deps.log, {
      point: plan.point,
      snapshot,
      tables: full.manifest.tables,
      from: position === null ? null : parseLsn(position),
      leaveOut: {
        oids: new Set([...withoutTables.oids, ...atFull.oids, ...seen.forsaken]),
        names: new Set([...withoutTables.unknown, ...atFull.unknown, ...changes.leftOut]),
      },
      bornLate: seen.bornLate,
      renames: seen.renames,
      rules: {
        ...changes,
        ownRows: ownRowsOf(contents.capture.tables),
        takesDefinition: (row) => facts.kind !== "project" || !isDoneByPlatform(row),
        beforeDefinition: wakeTriggers,
        afterDefinition: quietTriggers,
      },
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      onGroup: ({ transactions, changes }) =>
        options.onReplay?.({ transactions: done.transactions + transactions, of: seen.transactions, changes }),
      markPosition: markReplayed,
    });
    const { marker: end, held } = await finishPoint(connection, {
      survey: seen,
      withoutTables: withoutTables.names,
      beforeCommit: deps.beforeCommit ?? reapplyLedger(deps),
    });
    const outcome = { ...resultOf(prepared, 0), held: held.map(({ identity, kind }) => ({ identity, kind })) };
    if (facts.kind !== "project") return { outcome, end };
    const stale = filesWarning(outcome.filesNotRestored);
    const warnings = outcome.warnings.filter((warning) => !stale.includes(warning));
    return {
      outcome: {
        ...outcome,
        filesNotRestored: changes.filesNotRestored,
        skipped: [...outcome.skipped, ...changes.skipped],
        warnings: [...warnings, ...changes.warnings],
      },
      end,
    };
  } finally {
    await releaseRestoreLock(connection);
    await connection.close();
  }
}

/** Of those that the restore of the full has joined, it is a member already. */
async function joinActingRoles(connection: Connection, begun: ReplayMarker, roles: readonly string[]): Promise<void> {
  const joining = await rolesToJoin(connection, roles);
  if (joining.length === 0) return;
  const leaving = [...begun.leaving, ...joining.map(leaveRole)];
  await transaction(connection, [...joining.map(joinRole), markLeaving(leaving)]);
}
