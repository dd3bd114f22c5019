import { quarantineOf } from "../../shared/format/manifest.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { outlinePlan } from "../../shared/restore/plan.ts";
import { prepareRestore, restoreBackup } from "../../shared/restore/run.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { noteWhatLatestPassedOver } from "../passed_over.ts";
import { amount, duration } from "../progress.ts";
import { inTheWay, type Place, placeOf } from "../restore_place.ts";
import { restoreInPlace } from "../restore_in_place.ts";
import { afterLines, notConfirmed, restoreState, type ShownPlan, shownPlan } from "../restore_shown.ts";
import { endOfIncremental } from "../end_of_incremental.ts";
import { restoreToPoint } from "../restore_to_point.ts";

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], target, database, held[], …}`; until it is confirmed
 * `{dryRun: true, id, database, plan[], warnings[], error}` with exit 2. The id of an incremental means the state at its end.
 * With --apply it goes into the very database: the document of `restoreInPlace`.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings, clock, log, signal, progress } = context;
  const [wanted = ""] = context.words;
  if (settings.get("apply") !== undefined) return await restoreInPlace(context, wanted);
  const parallel = settings.integer("jobs", 1, 16);
  const read: ReadDeps = {
    store: await openStore(context),
    ring: await keyRing(settings),
    compressor: await loadZstd(),
  };
  let backup: OpenedBackup;
  try {
    backup = await openBackup(read, wanted);
  } catch (error) {
    return await restoreToPoint(context, await endOfIncremental(context, wanted, error), noChoices);
  }
  const { id } = backup.manifest;
  await noteWhatLatestPassedOver(context, read.store, id);
  const quarantine = quarantineOf(backup.manifest);
  if (quarantine !== null) context.note(`warning: this backup was quarantined when it was taken: ${quarantine}`);
  const place = await placeOf(context, backup.manifest);
  const plan = await planOf(context, read, backup, place);
  if (!settings.has("yes")) {
    context.note(plan.lines.join("\n"));
    if (!(await context.confirm(`This fills ${place.database.label}.`, "restore"))) {
      return notConfirmed(id, place, plan);
    }
  }
  await place.make();
  const result = await restoreBackup({ ...read, target: place.database, clock, log }, id, {
    parallel,
    signal,
    onProgress: (at) => progress.update(restoreState(at)),
  });
  for (const warning of result.warnings) context.note(`warning: ${warning}`);
  const lines = [
    `Backup ${id} is restored into ${place.database.label} in ${duration(result.durationMs)}: ${
      amount(result.inserted, "rows")
    }.`,
    ...afterLines(result),
  ];
  return { exit: 0, document: { ...result, database: place.database.label }, lines };
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
    return shownPlan(head, steps, warnings);
  }
  const { clock, log } = context;
  const prepared = await prepareRestore({ ...read, target: place.database, clock, log }, manifest.id)
    .catch((error: unknown) => {
      throw inTheWay(error, place);
    });
  const steps = outlinePlan(prepared.plan);
  const { warnings } = prepared.plan;
  const goesOn = prepared.resumes ? " (goes on with the restore that was begun there)" : "";
  return shownPlan(head + goesOn, steps, warnings);
}
