import { HoldfastError } from "../../shared/errors.ts";
import { filesOfBackup } from "../../shared/files/wanted_files.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { outlinePlan } from "../../shared/restore/plan.ts";
import { prepareRestore, restoreBackup } from "../../shared/restore/run.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { requireApply } from "../needless.ts";
import { ledgerHook } from "../ledger_hook.ts";
import { keyRing, sourceDatabase, targetDatabase } from "../open.ts";
import { namedState, openNamed } from "../open_past.ts";
import { openStore } from "../open_store.ts";
import { inPlaceOnly } from "../tables/restores.ts";
import type { Outcome } from "../output.ts";
import { amount, duration } from "../progress.ts";
import { inTheWay, type Place, placeOf } from "../restore_place.ts";
import { restoreInPlace } from "../restore_in_place.ts";
import { afterLines, onlyPlanned, restoreState, type ShownPlan, shownPlan } from "../restore_shown.ts";
import { recorded } from "../source_record.ts";
import { endOfIncremental } from "../end_of_incremental.ts";
import { restoreToPoint } from "../restore_to_point.ts";
import { type FilesToBring, withFiles } from "../with_files.ts";

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], target, database, held[], restore, …}`; until it is confirmed,
 * and with --dry-run, that of `onlyPlanned`. The id of an incremental means the state at its end, --at that of a moment.
 * With --apply it goes into the very database: the document of `restoreInPlace`.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings, clock } = context;
  const state = namedState(settings, context.words[0]);
  if (settings.get("apply") !== undefined) {
    if ("backup" in state) {
      const wanted = state.backup;
      return await withFiles(context, () => liveFiles(context, wanted), () => restoreInPlace(context, wanted));
    }
    throw new HoldfastError("usage", "--at and --apply do not go together: only a backup goes into place as a whole", {
      hint: "Without --apply the moment is restored into a new database; tables and users go into place by --at.",
    });
  }
  requireApply(settings, inPlaceOnly);
  if ("point" in state) return await restoreToPoint(context, state.point, noChoices);
  const startMs = clock.monotonicMs();
  const parallel = settings.integer("jobs", 1, 16);
  const read: ReadDeps = {
    store: await openStore(context),
    ring: await keyRing(settings),
    compressor: await loadZstd(),
  };
  let backup: OpenedBackup;
  try {
    backup = await openNamed(context, read, state.backup);
  } catch (error) {
    return await restoreToPoint(context, await endOfIncremental(context, state.backup, error), noChoices);
  }
  const database = await targetDatabase(context);
  const files = () =>
    Promise.resolve({
      read,
      backup,
      label: `backup ${backup.manifest.id}`,
      files: () => filesOfBackup(read, backup, () => true),
      mode: "merge" as const,
      wholeBuckets: true,
      database,
      isOther: true,
    });
  return await withFiles(context, files, () => restoreBeside(context, { read, backup, parallel, startMs }));
}

/** For a restore in place. */
async function liveFiles(context: Context, wanted: string): Promise<FilesToBring> {
  const read = { store: await openStore(context), ring: await keyRing(context.settings), compressor: await loadZstd() };
  const backup = await openBackup(read, wanted);
  const other = await targetDatabase(context);
  return {
    read,
    backup,
    label: `backup ${backup.manifest.id}`,
    files: () => filesOfBackup(read, backup, () => true),
    mode: context.settings.get("apply") === "missing" ? "missing" : "merge",
    wholeBuckets: true,
    database: other ?? await sourceDatabase(context),
    isOther: other !== null,
  };
}

interface BesideParts {
  readonly read: ReadDeps;
  readonly backup: OpenedBackup;
  readonly parallel: number;
  readonly startMs: number;
}

async function restoreBeside(context: Context, { read, backup, parallel, ...begun }: BesideParts): Promise<Outcome> {
  const { clock } = context;
  let { startMs } = begun;
  const { id } = backup.manifest;
  const place = await placeOf(context, backup.manifest);
  const plan = await planOf(context, read, backup, place);
  const askedMs = clock.monotonicMs();
  const planned = await onlyPlanned(context, id, { place, plan, more: {} });
  if (planned !== null) return planned;
  startMs += clock.monotonicMs() - askedMs;
  const { result, restore } = await recorded(
    context,
    { scope: "full", mode: "beside", sourceBackup: id, targetLabel: place.database.label, ring: read.ring },
    async (signal) => {
      const beforeCommit = await ledgerHook(context, read);
      await place.make();
      return await restoreBackup({ ...read, target: place.database, clock, log: context.log, beforeCommit }, id, {
        parallel,
        signal,
        onProgress: (at) => context.progress.update(restoreState(at)),
      });
    },
    ({ inserted }) => ({ rowsDone: inserted, measuredSeconds: (clock.monotonicMs() - startMs) / 1000 }),
  );
  for (const warning of result.warnings) context.note(`warning: ${warning}`);
  const lines = [
    `Backup ${id} is restored into ${place.database.label} in ${duration(result.durationMs)}: ${
      amount(result.inserted, "rows")
    }.`,
    ...afterLines(result),
  ];
  return { exit: 0, document: { ...result, database: place.database.label, restore }, lines };
}

const noChoices = { withoutTables: [], atFull: [], accepted: [] };

/** A database that is not there yet cannot be asked; what it will hold is in the manifest. */
async function planOf(context: Context, read: ReadDeps, backup: OpenedBackup, place: Place): Promise<ShownPlan> {
  const { manifest } = backup;
  const head = `Backup ${manifest.id} of ${manifest.consistentAt}, ${amount(manifest.totals.rows, "rows")}, ${
    amount(manifest.totals.rawBytes, "bytes")
  } of text, into ${place.database.label}`;
  if (place.isNew) {
    const steps = [
      { step: "database", count: 1, reason: "no target is named: a new one is made beside the source" },
      { step: "tables loaded", count: manifest.totals.tables, reason: `${manifest.totals.rows} rows` },
    ];
    const warnings = manifest.notCaptured.map((one) => `${one.identity} is not in the backup: ${one.reason}`);
    return shownPlan(head, { totals: manifest.totals, steps, warnings });
  }
  const { clock, log } = context;
  const prepared = await prepareRestore({ ...read, target: place.database, clock, log }, manifest.id)
    .catch((error: unknown) => {
      throw inTheWay(error, place);
    });
  const steps = outlinePlan(prepared.plan);
  const { warnings } = prepared.plan;
  const goesOn = prepared.resumes ? " (goes on with the restore that was begun there)" : "";
  return shownPlan(head + goesOn, { totals: manifest.totals, steps, warnings });
}
