/** A table, rows or a person, from a backup or a moment: beside the live ones, then into place. */
import { sha256Hex } from "../shared/crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { keptBefore, readDone } from "../shared/rows/apply/done_counts.ts";
import { isNothing, recordOf, refuseForeseen } from "../shared/rows/apply/foreseen.ts";
import { layAsked, pairAsked, type RowsAsked, subjectOf, warningsOf } from "../shared/rows/asked.ts";
import type { Beside } from "../shared/rows/beside/beside.ts";
import type { LayDeps } from "../shared/rows/beside/lay.ts";
import { type RestoreMode, restoreModes } from "../shared/rows/apply/difference.ts";
import type { PastRows } from "../shared/rows/past/past.ts";
import { notePeople } from "../shared/rows/note_people.ts";
import { RowsWork } from "../shared/rows/work.ts";
import type { Database } from "../shared/postgres/connection.ts";
import type { TableName } from "../shared/restore/project_rows.ts";
import type { OpenedBackup, ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { requireApply } from "./needless.ts";
import { keyRing, sourceDatabase, targetDatabase } from "./open.ts";
import { namedState, openPast } from "./open_past.ts";
import { openStore } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { duration } from "./progress.ts";
import { isSkipped, takeSafetyBackup } from "./safety_backup.ts";
import { isGone, restoreGoneTable } from "./restore_gone_table.ts";
import { leaveBeside } from "./rows_beside.ts";
import { finishRows } from "./rows_end.ts";
import { keptLines, planLines, referringLines, rowsDocument } from "./rows_shown.ts";

/** What one of the commands brings. */
export interface RowsScope {
  readonly asked: RowsAsked;
  /** Looks at the rows once they are beside; what it throws ends the restore. */
  readonly look?: (beside: Beside, work: RowsWork) => Promise<Outcome | null>;
  /** More for the document and for people, after rows went into place. */
  readonly after?: (
    beside: Beside,
    work: RowsWork,
  ) => Promise<{ readonly more: object; readonly lines: readonly string[] }>;
}

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], mode, sideSchema, expiresInDays, database, tables[], …}`;
 * until it is confirmed, and with --dry-run, `{dryRun: true, …}` with the plan. Errors: those of the engine, with the live
 * rows as they were.
 */
export async function restoreRows(context: Context, wanted: string | undefined, scope: RowsScope): Promise<Outcome> {
  const { settings, clock, random, log, signal } = context;
  const mode = modeOf(settings.get("apply"));
  const state = namedState(settings, wanted);
  requireApply(settings, ["fire-triggers", "skip-safety-backup"]);
  const read: ReadDeps = {
    store: await openStore(context),
    ring: await keyRing(settings),
    compressor: await loadZstd(),
  };
  const other = await targetDatabase(context);
  const target = other ?? await sourceDatabase(context);
  const { asked } = scope;
  // All tables may be a user's.
  const at = await openPast(context, read, state, asked.scope === "user" ? null : [asked.table]);
  const { source, backup } = at;
  let work: RowsWork;
  try {
    work = await RowsWork.begin({ target, clock, random, log, signal }, {
      scope: asked.scope,
      mode: mode ?? "beside",
      sourceBackup: source.backupId,
      pointAt: at.isMoment ? source.at : null,
      userId: asked.scope === "user" ? asked.choice.user : null,
      digest: await sha256Hex(new TextEncoder().encode(JSON.stringify([asked, wanted, settings.get("at")]))),
    });
  } catch (error) {
    await source.close();
    throw error;
  }
  try {
    await work.usedKeys(read.ring);
    return await restoreInto(context, {
      ...scope,
      subject: subjectOf(asked),
      mode,
      source,
      backup,
      isMoment: at.isMoment,
      work,
      target,
      isOther: other !== null,
    });
  } catch (error) {
    throw await work.fail(error);
  } finally {
    await work.close();
    await source.close();
  }
}

export interface Restoring extends RowsScope {
  readonly subject: string;
  readonly mode: RestoreMode | null;
  readonly source: PastRows;
  readonly backup: OpenedBackup;
  readonly isMoment: boolean;
  readonly work: RowsWork;
  readonly target: Database;
  /** The target is that of --target-db-url. */
  readonly isOther: boolean;
}

async function restoreInto(context: Context, restoring: Restoring): Promise<Outcome> {
  const { settings, clock, progress } = context;
  const { asked, mode, source, work, subject } = restoring;
  const { project } = restoring.backup.manifest;
  let startMs = clock.monotonicMs();
  let rows = 0;
  let bytes = 0;
  const deps: LayDeps = {
    connection: work.connection,
    source,
    sameDatabase: project.systemIdentifier === work.identity.systemIdentifier &&
      project.database === work.identity.database,
    schema: work.schema,
    onRows: async (moreRows, moreBytes) => {
      rows += moreRows;
      bytes += moreBytes;
      progress.update({ label: "rows beside", done: bytes, total: null, unit: "bytes" });
      await work.loaded(rows);
    },
  };
  if (asked.scope === "table") await work.requireRoom(bytesOf(source, asked.table));
  progress.update({ label: "reading the backup", done: 0, total: null, unit: "bytes" });
  const laid = await layAsked(deps, asked, `holdfast: ${subject} as of ${source.at}, from backup ${source.backupId}`);
  if (asked.scope === "record" && work.lease !== null) {
    await notePeople(work.connection, work.lease.id, source.graph, laid);
  }
  const beside = await pairAsked(deps, asked, laid);
  progress.clear();
  const looked = await restoring.look?.(beside, work) ?? null;
  if (looked !== null) {
    await work.fail(new HoldfastError("cancelled", "nothing was to be restored"));
    return looked;
  }
  const warnings = [...warningsOf(asked, laid), ...beside.unfit.map(({ reason }) => reason)];
  const loadMs = clock.monotonicMs() - startMs;
  if (mode === null) return await leaveBeside(context, restoring, beside, warnings, loadMs);
  if (asked.scope === "table" && await isGone(work.connection, asked.table)) {
    return await restoreGoneTable(context, restoring, asked.table, laid, {
      warnings: warningsOf(asked, laid),
      startMs,
      safety: () => safetyOf(context, work),
    });
  }
  if (beside.pairs.length === 0) {
    throw new HoldfastError("table_not_found", beside.unfit[0]?.reason ?? "there is no table for the rows", {
      hint: "Without --apply the rows are laid beside; --target-db-url restores into another database.",
    });
  }
  const plan = await work.plan(beside, mode);
  const shown = [
    ...planLines(plan, {
      subject,
      at: source.at,
      database: work.identity.database,
      rows,
      loadMs,
      safetySkipped: settings.isFlag("skip-safety-backup"),
    }),
    ...referringLines(beside, plan),
  ];
  const document = (more: object) => rowsDocument(restoring, plan, warnings, more);
  if (settings.has("dry-run")) {
    await work.fail(new HoldfastError("cancelled", "only the plan was wanted"));
    return {
      exit: 0,
      document: document({ dryRun: true }),
      lines: [...shown, ...warnings.map((one) => `  warning: ${one}`)],
    };
  }
  if (!settings.has("yes")) {
    context.note([...shown, ...warnings.map((one) => `  warning: ${one}`)].join("\n"));
    const question = `This changes ${restoring.target.label}.`;
    const askedMs = clock.monotonicMs();
    const isConfirmed = await work.waiting(() => context.confirm(question, work.identity.database));
    startMs += clock.monotonicMs() - askedMs;
    if (!isConfirmed) {
      const missing = new HoldfastError("confirmation_missing", "nothing was restored");
      await work.fail(new HoldfastError("cancelled", "it was not confirmed"));
      return {
        exit: missing.exit,
        document: document({ dryRun: true, ...missing.toDocument() }),
        lines: [`Nothing was restored. ${missing.hint}`],
      };
    }
  }
  isSkipped(settings.get("skip-safety-backup"), work.identity.database);
  if (isNothing(plan)) {
    // A call that this one goes on with may have done all of it, and not have come to say so.
    const { tables, ...counts } = await readDone(work.connection, work.schema, beside.pairs);
    const earlier = counts.inserted + counts.updated + counts.deleted > 0;
    const record = earlier ? recordOf(beside, { tables }) : [];
    const kept = keptLines(await keptBefore(work.connection, work.schema, beside.pairs), { ...counts, tables });
    await finishRows(context, restoring, record, clock.monotonicMs() - startMs);
    return {
      exit: 0,
      document: document({ ok: true, ...counts }),
      lines: [
        `Nothing to do: ${subject} as of ${source.at} ${mode === "missing" ? "are all there" : "are as they were"}.`,
        ...(earlier
          ? [`An earlier try: ${counts.inserted} inserted, ${counts.updated} put back, ${counts.deleted} deleted.`]
          : []),
        ...kept,
      ],
    };
  }
  refuseForeseen(plan, settings.has("fire-triggers"));
  await work.requireRoom(plan.bytes);
  const safetyRun = await safetyOf(context, work);
  // A person's answer and a backup lie between: whose rows they are now, and into what they go, is looked at once more.
  const now = await pairAsked(deps, asked, laid);
  if (now.pairs.length !== beside.pairs.length) {
    throw new HoldfastError("rows_conflict", now.unfit.map(({ reason }) => reason).join("; "), { hint: "Plan again." });
  }
  refuseForeseen(await work.plan(now, mode), settings.has("fire-triggers"));
  const result = await work.apply(now, {
    mode,
    wholeTables: asked.scope === "table",
    fireTriggers: settings.has("fire-triggers"),
    lockMs: lockMs,
  }, safetyRun);
  const kept = await keptBefore(work.connection, work.schema, now.pairs);
  await finishRows(context, restoring, recordOf(now, result), clock.monotonicMs() - startMs);
  const after = await readAfter(restoring, now);
  for (const warning of warnings) context.note(`warning: ${warning}`);
  const seconds = clock.monotonicMs() - startMs;
  return {
    exit: 0,
    document: rowsDocument(restoring, plan, warnings, {
      ok: true,
      inserted: result.inserted,
      updated: result.updated,
      deleted: result.deleted,
      sequences: result.sequences,
      safetyRun,
      durationMs: Math.round(seconds),
      ...after.more,
    }),
    lines: [
      `${subject} as of ${source.at} in ${
        duration(seconds)
      }: ${result.inserted} inserted, ${result.updated} put back, ${result.deleted} deleted.`,
      ...keptLines(kept, result),
      ...(safetyRun === null ? [] : [`The safety backup from before is ${safetyRun}.`]),
      ...after.lines,
    ],
  };
}

function bytesOf(source: PastRows, { schema, name }: TableName): number {
  return source.tables.find((table) => table.schema === schema && table.name === name)?.rawBytes ?? 0;
}

/** Errors: those of `takeSafetyBackup`; `usage` for a target that it cannot back up, unless that is named. */
export async function safetyOf(context: Context, work: RowsWork): Promise<string | null> {
  const { settings } = context;
  const skip = settings.get("skip-safety-backup");
  if (settings.get("target-db-url") === undefined) {
    return await takeSafetyBackup(context, { skip, keepAlive: () => work.keepAlive() });
  }
  if (isSkipped(skip, work.identity.database)) return null;
  throw new HoldfastError("usage", "a safety backup is taken of the database of --db-url only", {
    hint: `Name the target with --db-url, or go without one: --skip-safety-backup ${work.identity.database}.`,
  });
}

/** A writer in the way is waited for this long; then nothing is changed. */
const lockMs = 10_000;

/** The rows are in place: what cannot be read of them any more is told, and undoes nothing. */
async function readAfter({ after, work }: Restoring, beside: Beside) {
  try {
    return await after?.(beside, work) ?? { more: {}, lines: [] };
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    return { more: {}, lines: [`warning: the rows could not be read again as their owner: ${code}: ${message}`] };
  }
}

/** Errors: `usage`. */
export function modeOf(text: string | undefined): RestoreMode | null {
  if (text === undefined) return null;
  const mode = restoreModes.find((one) => one === text);
  if (mode !== undefined) return mode;
  throw new HoldfastError("usage", `--apply is one of ${restoreModes.join(", ")}`);
}
