/** Where rows come from: a full backup, the end of an incremental, or a moment. */
import { parsePoint } from "../shared/changes/plan/point.ts";
import type { Point } from "../shared/changes/replay/replay.ts";
import { HoldfastError } from "../shared/errors.ts";
import { quarantineOf } from "../shared/format/manifest.ts";
import { openDatabase } from "../shared/postgres/pg_connection.ts";
import type { TableName } from "../shared/restore/project_rows.ts";
import { openBackupRows } from "../shared/rows/past/backup_rows.ts";
import { openMomentRows } from "../shared/rows/past/moment_rows.ts";
import type { PastRows } from "../shared/rows/past/past.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { endOfIncremental } from "./end_of_incremental.ts";
import { inDatabase } from "../shared/restore/new_database.ts";
import { sourceOptions, targetOptions } from "./open.ts";
import { noteWhatLatestPassedOver } from "./passed_over.ts";
import type { Settings } from "./settings.ts";
import { zoneMinutes } from "./zone.ts";

export interface Past {
  readonly source: PastRows;
  /** The full backup that the rows are of, or stand on. */
  readonly backup: OpenedBackup;
  readonly isMoment: boolean;
}

export type NamedState = { readonly point: Point } | { readonly backup: string };

/** What the command line names: a backup, or --at. Errors: `usage` unless it is exactly one of the two. */
export function namedState(settings: Pick<Settings, "get">, wanted: string | undefined): NamedState {
  const at = settings.get("at");
  if (wanted !== undefined && at === undefined) return { backup: wanted };
  if (wanted === undefined && at !== undefined) return { point: parsePoint(at, zoneMinutes) };
  throw new HoldfastError(
    "usage",
    wanted === undefined ? "no backup and no --at is given" : "a backup and --at are given",
    { hint: "Give a backup's id, or --at with a moment such as 2024-01-09T12:00:00Z." },
  );
}

/** Errors: those of opening the rows. */
export async function openPast(
  context: Context,
  read: ReadDeps,
  state: NamedState,
  tables: readonly TableName[] | null,
): Promise<Past> {
  if ("point" in state) return await openMoment(context, read, state.point, tables);
  let backup: OpenedBackup;
  try {
    backup = await openNamed(context, read, state.backup);
  } catch (error) {
    const point = await endOfIncremental(context, state.backup, error);
    return await openMoment(context, read, point, tables);
  }
  return { source: await openBackupRows(read, backup.manifest.id), backup, isMoment: false };
}

/** The backup that `wanted` names; people are told what `latest` passed over, and what is in quarantine. Errors: those of `openBackup`. */
export async function openNamed(context: Context, read: ReadDeps, wanted: string): Promise<OpenedBackup> {
  const backup = await openBackup(read, wanted);
  const { id } = backup.manifest;
  await noteWhatLatestPassedOver(context, read.store, { wanted, id });
  const quarantine = quarantineOf(backup.manifest);
  if (quarantine !== null) context.note(`warning: backup ${id} was quarantined when it was taken: ${quarantine}`);
  return backup;
}

async function openMoment(
  context: Context,
  read: ReadDeps,
  point: Point,
  tables: readonly TableName[] | null,
): Promise<Past> {
  const { clock, log, random, signal, progress } = context;
  const options = await targetOptions(context) ?? await sourceOptions(context);
  progress.update({ label: "restoring the moment into a database of its own", done: 0, total: null, unit: "steps" });
  const source = await openMomentRows({ ...read, clock, log, random }, point, tables, {
    database: openDatabase(options),
    inDatabase: (name) => openDatabase(inDatabase(options, name)),
  }, { signal });
  progress.clear();
  return { source, backup: await openBackup(read, source.backupId), isMoment: true };
}
