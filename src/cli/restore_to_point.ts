/** A database as it was at a point of the change stream, planned, confirmed and restored. */
import { momentOf } from "../shared/changes/decode/moment.ts";
import type { Point } from "../shared/changes/replay/replay.ts";
import { planPoint, type PointPlan, restorePoint } from "../shared/changes/replay/restore_point.ts";
import { unsettledWarnings } from "../shared/changes/segments/coverage.ts";
import { HoldfastError } from "../shared/errors.ts";
import { filesOfPoint } from "../shared/files/wanted_files.ts";
import { quarantineOf } from "../shared/format/manifest.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { outlinePlan } from "../shared/restore/plan.ts";
import { prepareRestore, type RestoreDeps } from "../shared/restore/run.ts";
import { stateSchema } from "../shared/restore/target.ts";
import { quoteQualified } from "../shared/schema/quote.ts";
import type { ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { ledgerHook } from "./ledger_hook.ts";
import { nowhere } from "./nowhere.ts";
import { keyRing, targetDatabase } from "./open.ts";
import { openStore } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { amount, duration } from "./progress.ts";
import { inTheWay, type Place, placeOf, requirePlace } from "./restore_place.ts";
import { afterLines, onlyPlanned, restoreState, type ShownPlan, shownPlan } from "./restore_shown.ts";
import { recorded } from "./source_record.ts";
import { withFiles } from "./with_files.ts";

/** Tables as `parseTableNames` gives them. */
export interface TableChoices {
  readonly withoutTables: readonly string[];
  readonly atFull: readonly string[];
  /** Ids of quarantined full backups, shortened or not. */
  readonly accepted: readonly string[];
}

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], reachedLsn, reachedAt, transactions, database, held[], …}`,
 * `id` being the full backup's; until it is confirmed, and with --dry-run, that of `onlyPlanned` with reachedLsn, reachedAt and
 * transactions. Exit 3 when a table was left out.
 */
export async function restoreToPoint(context: Context, point: Point, choices: TableChoices): Promise<Outcome> {
  const { settings, clock, log, progress } = context;
  const startMs = clock.monotonicMs();
  const parallel = settings.integer("jobs", 1, 16);
  const read = { store: await openStore(context), ring: await keyRing(settings), compressor: await loadZstd() };
  requirePlace(settings);
  progress.update({ label: "reading the change stream", done: 0, total: null, unit: "transactions" });
  const source = settings.get("source");
  const plan = await planPoint({ ...read, target: nowhere, clock, log }, point, {
    ...choices,
    ...(source === undefined ? {} : { source }),
  });
  progress.clear();
  checkChoices(plan, choices);
  const database = await targetDatabase(context);
  const files = () =>
    Promise.resolve({
      read,
      backup: plan.full,
      label: plan.label,
      files: () => filesOfPoint(read, plan, () => true),
      mode: "merge" as const,
      wholeBuckets: true,
      database,
      isOther: true,
    });
  return await withFiles(context, files, () => rowsToPoint(context, { read, plan, choices, parallel, startMs }));
}

interface PlannedPoint {
  readonly read: ReadDeps;
  readonly plan: PointPlan;
  readonly choices: TableChoices;
  readonly parallel: number;
  readonly startMs: number;
}

async function rowsToPoint(
  context: Context,
  { read, plan, choices, parallel, ...begun }: PlannedPoint,
): Promise<Outcome> {
  const { clock, log, progress } = context;
  let { startMs } = begun;
  const { manifest } = plan.full;
  const quarantine = quarantineOf(manifest);
  if (quarantine !== null) {
    context.note(`warning: backup ${manifest.id} was quarantined when it was taken: ${quarantine}`);
  }
  const place = await placeOf(context, { ...manifest, consistentAt: momentShown(plan) });
  const deps = { ...read, target: place.database, clock, log };
  const shown = await showPlan(deps, plan, choices, place);
  const askedMs = clock.monotonicMs();
  const planned = await onlyPlanned(context, manifest.id, { place, plan: shown, more: reached(plan) });
  if (planned !== null) return planned;
  startMs += clock.monotonicMs() - askedMs;
  const { result, restore } = await recorded(
    context,
    {
      scope: "point",
      mode: "beside",
      sourceBackup: manifest.id,
      pointAt: momentShown(plan),
      targetLabel: place.database.label,
      ring: read.ring,
    },
    async (signal) => {
      const beforeCommit = await ledgerHook(context, read);
      await place.make();
      return await restorePoint({ ...deps, beforeCommit }, plan, {
        parallel,
        signal,
        onProgress: (at) => progress.update(restoreState(at)),
        onReplay: ({ transactions, of }) =>
          progress.update({ label: "replaying", done: transactions, total: of, unit: "transactions" }),
      });
    },
    ({ inserted }) => ({ rowsDone: inserted, measuredSeconds: (clock.monotonicMs() - startMs) / 1000 }),
  );
  progress.clear();
  for (const warning of result.warnings) context.note(`warning: ${warning}`);
  const lines = [
    `${place.database.label} is as of ${result.reachedAt} (${result.reachedLsn}), restored in ${
      duration(result.durationMs)
    }.`,
    `Backup ${manifest.id} and ${amount(result.transactions, "transactions")} after it: ${
      amount(result.inserted, "rows")
    } inserted, ${result.updated.toLocaleString("en-GB")} updated, ${result.deleted.toLocaleString("en-GB")} deleted.`,
    ...afterLines(result),
  ];
  return {
    exit: choices.withoutTables.length > 0 ? 3 : 0,
    document: { ...result, database: place.database.label, restore },
    lines,
  };
}

/** A moment that was asked for, else that of the last commit: the same plan gives the same moment. */
function momentShown({ point, survey, full }: PointPlan): string {
  const asked = point.by === "time" ? momentOf(point.at) : null;
  return asked ?? survey.reachedAt ?? full.manifest.consistentAt;
}

/** What a mistyped name would leave as it is, in silence. */
function checkChoices({ full, survey }: PointPlan, { withoutTables, atFull }: TableChoices): void {
  const both = withoutTables.find((table) => atFull.includes(table));
  if (both !== undefined) throw new HoldfastError("usage", `${both} is named by --without-table and by --at-full`);
  const known = new Set([
    ...[...full.manifest.tables, ...survey.uncovered].map((one) => quoteQualified(one.schema, one.name)),
    ...survey.tables.values(),
    ...[...survey.formerNames.values()].flatMap((names) => [...names]),
  ]);
  const strange = [...withoutTables, ...atFull].find((table) => !known.has(table));
  if (strange === undefined) return;
  throw new HoldfastError("usage", `there is no table ${strange} in backup ${full.manifest.id}`, {
    hint: "Check the spelling; names with capitals stand in double quotes.",
  });
}

async function showPlan(deps: RestoreDeps, plan: PointPlan, choices: TableChoices, place: Place): Promise<ShownPlan> {
  const { full: { manifest }, segments, survey, label } = plan;
  const { reachedAt, reachedLsn } = reached(plan);
  const goesOn = place.isNew ? "nothing" : await begunIn(deps);
  const head = `${place.database.label} as of ${label}, which is the commit of ${reachedAt} (${reachedLsn})${
    goesOn === "replay" ? " (goes on with the restore that was begun there)" : ""
  }`;
  const bytes = segments.reduce((sum, one) => sum + one.size, 0);
  const steps = [
    ...(place.isNew
      ? [{ step: "database", count: 1, reason: "no target is named: a new one is made beside the source" }]
      : []),
    { step: "rows loaded", count: manifest.totals.rows, reason: `backup ${manifest.id} of ${manifest.consistentAt}` },
    { step: "segments read", count: segments.length, reason: amount(bytes, "bytes") },
    {
      step: "transactions replayed",
      count: survey.transactions,
      reason: `${amount(survey.changes, "changes")}, ${survey.ddl.toLocaleString("en-GB")} of them to definitions`,
    },
  ];
  const warnings = [
    ...choices.withoutTables.map((table) => `${table} is left out`),
    ...choices.atFull.map((table) => `${table} stays as of ${manifest.consistentAt}`),
    ...unsettledWarnings(survey.unsettled, [...choices.withoutTables, ...choices.atFull]),
  ];
  if (place.isNew || goesOn === "replay") {
    const missing = manifest.notCaptured.map((one) => `${one.identity} is not in the backup: ${one.reason}`);
    return shownPlan(head, { totals: manifest.totals, steps, warnings: [...missing, ...warnings] });
  }
  const prepared = await prepareRestore(deps, manifest.id).catch((error: unknown) => {
    throw inTheWay(error, place);
  });
  return shownPlan(head, {
    totals: manifest.totals,
    steps: [...outlinePlan(prepared.plan), ...steps.slice(1)],
    warnings: [...prepared.plan.warnings, ...warnings],
  });
}

/** A replay that was begun in the target is judged by `restorePoint`; a full restore by `prepareRestore`. */
async function begunIn(deps: RestoreDeps): Promise<"replay" | "nothing"> {
  const session = await deps.target.connect("holdfast:restore");
  try {
    const [row] = await session.query("select pg_catalog.to_regclass($1) is not null as begun", [
      `${stateSchema}.replay`,
    ]);
    return row?.["begun"] === "t" ? "replay" : "nothing";
  } finally {
    await session.close();
  }
}

function reached({ survey, full: { manifest } }: PointPlan) {
  return {
    reachedLsn: survey.reachedLsn ?? manifest.snapshot.walInsertLsn,
    reachedAt: survey.reachedAt ?? manifest.consistentAt,
    transactions: survey.transactions,
  };
}
