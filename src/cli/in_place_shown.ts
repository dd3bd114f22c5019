/** A full restore in place as it is told: its plan, and what came of it. */
import type { DefinitionNote, GoneDefinition } from "../shared/restore/in_place/change_format.ts";
import type { CheckResult } from "../shared/restore/in_place/checks/checks.ts";
import type { RestoreMode } from "../shared/rows/apply/difference.ts";
import type { PutBackResult } from "../shared/rows/apply/put_back.ts";
import type { DatabaseBeside } from "../shared/rows/beside/database_beside.ts";
import type { PastRows } from "../shared/rows/past/past.ts";
import type { OpenedBackup } from "../shared/verify/find_backup.ts";
import type { Outcome } from "./output.ts";
import type { FenceResult } from "./in_place_fence.ts";
import type { InPlacePlan } from "./in_place_foreseen.ts";
import { amount, duration } from "./progress.ts";
import { planLines } from "./rows_shown.ts";

/** Differences that are listed. */
const mostListed = 10;

export interface InPlaceSubject {
  readonly manifest: OpenedBackup["manifest"];
  readonly source: PastRows;
  readonly mode: RestoreMode;
  /** For people, without a password. */
  readonly target: string;
  readonly database: string;
  /** By its name. */
  readonly safetySkipped: boolean;
}

type LeftOut = DatabaseBeside["leftOut"];

const leftOutLines = (leftOut: LeftOut): string[] =>
  leftOut.map(({ table, reason, rows }) => `${rows} rows of ${table} stay out: ${reason}`);

/** `loadMs`: how long the rows took to come beside. */
export function planShown(
  { manifest: { totals }, source, mode, database, safetySkipped }: InPlaceSubject,
  { definitions, rows, beside, loadMs }: InPlacePlan & { readonly loadMs: number },
): string[] {
  return [
    ...planLines(rows, {
      subject: `Backup ${source.backupId}, ${amount(totals.rows, "rows")}`,
      at: source.at,
      database,
      rows: totals.rows,
      loadMs,
      safetySkipped,
    }),
    ...(mode === "replace"
      ? [
        `  definitions: ${definitions.steps.length} to change`,
        ...definitions.steps.map((step) => `    ${step.action} ${step.identity}: ${step.reason}`),
        ...definitions.kept.map((note) => `    kept ${note.identity}: ${note.reason}`),
      ]
      : ["  definitions stay as they are; --apply replace makes them what they were"]),
    ...leftOutLines(beside.leftOut).map((line) => `  ${line}`),
    ...beside.waiting.map(({ table, rows: of }) =>
      `  ${of} rows of ${table} are compared once its types are what they were`
    ),
  ];
}

/** The document while nothing was changed. */
export function planDocument(
  { source, mode, target }: InPlaceSubject,
  { definitions, rows, beside }: InPlacePlan,
): object {
  return {
    id: source.backupId,
    ok: false,
    inserted: 0,
    updated: 0,
    deleted: 0,
    warnings: leftOutLines(beside.leftOut),
    mode,
    plan: rows.tables,
    definitions,
    waiting: beside.waiting.map(({ table, rows: of }) => ({ table, rows: of })),
    database: target,
    dryRun: true,
  };
}

export interface InPlaceResult {
  readonly result: PutBackResult;
  readonly definitions: {
    readonly steps: number;
    readonly kept: readonly DefinitionNote[];
    /** What came after the backup and is not there any more. */
    readonly gone: readonly GoneDefinition[];
    /** Identities of what had to go and was made again. */
    readonly again: readonly string[];
    /** Tables whose rows were deleted, since they did not fit a type, and came back as they were. */
    readonly emptied: readonly string[];
  };
  readonly leftOut: LeftOut;
  readonly differences: readonly string[];
  readonly checks: readonly CheckResult[];
  /** Materialised views that were filled again. */
  readonly views: readonly string[];
  /** From before anything was changed, by this try or by one that was broken off. */
  readonly safetyRun: string | null;
  readonly safetyRunOfThisTry: string | null;
  /** Id of the record; null: Holdfast is not installed there. */
  readonly restore: string | null;
  readonly sideSchema: string;
  readonly durationMs: number;
}

/** Exit 3 where something differs or a check failed. */
export function restoredInPlace({ source, mode, target }: InPlaceSubject, done: InPlaceResult): Outcome {
  const { result: { inserted, updated, deleted }, definitions, differences, checks, safetyRun, safetyRunOfThisTry } =
    done;
  const isOfThisTry = safetyRunOfThisTry === null || safetyRunOfThisTry === safetyRun;
  const ok = differences.length === 0 && checks.every((check) => check.ok !== false);
  return {
    exit: ok ? 0 : 3,
    document: {
      id: source.backupId,
      ok,
      inserted,
      updated,
      deleted,
      warnings: leftOutLines(done.leftOut),
      restore: done.restore,
      mode,
      definitions,
      differences,
      checks,
      views: done.views,
      safetyRun,
      ...(isOfThisTry ? {} : { safetyRunOfThisTry }),
      sideSchema: done.sideSchema,
      database: target,
      durationMs: Math.round(done.durationMs),
    },
    lines: [
      `Backup ${source.backupId} is restored in place in ${
        duration(done.durationMs)
      }: ${definitions.steps} definitions ` +
      `changed, ${inserted} rows inserted, ${updated} put back, ${deleted} deleted.`,
      ...definitions.kept.map((note) => `  kept: ${note.identity}: ${note.reason}`),
      ...definitions.gone.map((one) => `  gone: ${one.identity}: ${one.reason}`),
      ...(definitions.gone.some((one) => one.statements.length > 0) ? ["  (--json tells what had made them)"] : []),
      ...definitions.again.map((identity) => `  had to go and was made again: ${identity}`),
      ...definitions.emptied.map((table) =>
        `  emptied, as its values did not fit, and filled from the backup: ${table}`
      ),
      ...differences.slice(0, mostListed).map((one) => `  differs: ${one}`),
      ...checks.map(({ check, ok, detail }) => `  ${ok === false ? "FAILED " : ""}${check}: ${detail}`),
      ...(safetyRun === null
        ? []
        : [`The safety backup from before${isOfThisTry ? "" : ", of the first try,"} is ${safetyRun}.`]),
      ...(isOfThisTry ? [] : [`The one of what that try had left is ${safetyRunOfThisTry}.`]),
      "Take a full backup now: the change stream begins anew.",
    ],
  };
}

/** The restore is done, whatever came of opening the project; exit 3 where that was not seen. */
export function withFence(outcome: Outcome, maintenance: FenceResult): Outcome {
  const { unproven, keptFor } = maintenance;
  const document = { ...(outcome.document as object), maintenance };
  if (unproven === null) {
    const stays = keptFor === null ? [] : [`Maintenance mode stays on, as ${keptFor} had turned it on.`];
    return { ...outcome, document, lines: [...outcome.lines, ...stays] };
  }
  return {
    exit: 3,
    document: { ...document, ok: false },
    lines: [...outcome.lines, `Maintenance mode is off, and no write was seen to go through: ${unproven}`],
  };
}
