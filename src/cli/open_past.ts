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
import { listBackups, openBackup, type OpenedBackup, type ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { endOfIncremental } from "./end_of_incremental.ts";
import { inDatabase } from "../shared/restore/new_database.ts";
import { sourceOptions, targetOptions } from "./open.ts";
import { zoneMinutes } from "./zone.ts";

export interface Past {
  readonly source: PastRows;
  /** The full backup that the rows are of, or stand on. */
  readonly backup: OpenedBackup;
  readonly isMoment: boolean;
}

/** Errors: `usage` unless exactly one of an id and --at says which rows; those of opening them. */
export async function openPast(
  context: Context,
  read: ReadDeps,
  wanted: string | undefined,
  tables: readonly TableName[] | null,
): Promise<Past> {
  const at = context.settings.get("at");
  if ((wanted === undefined) === (at === undefined)) {
    throw new HoldfastError(
      "usage",
      wanted === undefined ? "no backup and no --at is given" : "a backup and --at are given",
      {
        hint: "Give a backup's id, or --at with a moment such as 2024-01-09T12:00:00Z.",
      },
    );
  }
  if (wanted === undefined) return await openMoment(context, read, parsePoint(at ?? "", zoneMinutes), tables);
  let backup: OpenedBackup;
  try {
    backup = wanted === "latest" ? await newestOfNoRestore(context, read) : await openBackup(read, wanted);
  } catch (error) {
    const point = await endOfIncremental(context, wanted, error);
    return await openMoment(context, read, point, tables);
  }
  const quarantine = quarantineOf(backup.manifest);
  if (quarantine !== null) context.note(`warning: this backup was quarantined when it was taken: ${quarantine}`);
  return { source: await openBackupRows(read, backup.manifest.id), backup, isMoment: false };
}

/**
 * `latest`, but none that a restore took of the state that it was to replace. Errors: those of `openBackup`;
 * `backup_not_found` where there are only such ones.
 */
export async function newestOfNoRestore(context: Context, read: ReadDeps): Promise<OpenedBackup> {
  const listed = await listBackups(read.store);
  const others = listed.filter(({ tier }) => tier !== "safety");
  const passed = listed.findIndex(({ tier }) => tier !== "safety");
  if (passed > 0) {
    context.note(`notice: latest passes over ${passed} newer backups that restores took before they changed something`);
  }
  for (const { id } of others) {
    const backup = await openBackup(read, id);
    if (quarantineOf(backup.manifest) === null) return backup;
    context.note(`notice: latest passes over backup ${id}, which was quarantined`);
  }
  throw new HoldfastError("backup_not_found", "the store has no backup that counts as latest", {
    hint: "`holdfast list` shows what there is; name one by its id.",
  });
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
