/** The files of a backup, of the end of an incremental, or of a moment. */
import { planPoint } from "../shared/changes/plan/plan_point.ts";
import type { Point } from "../shared/changes/replay/replay.ts";
import type { ListedFile } from "../shared/format/file_list.ts";
import { type FileFilter, filesOfBackup, filesOfPoint } from "../shared/files/wanted_files.ts";
import type { OpenedBackup, ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { endOfIncremental } from "./end_of_incremental.ts";
import { nowhere } from "./nowhere.ts";
import { type NamedState, openNamed } from "./open_past.ts";

export interface FilesOfState {
  /** The full backup that they are of, or stand on. */
  readonly backup: OpenedBackup;
  /** For people: `backup 5b0d…`, or the moment. */
  readonly label: string;
  readonly read: (isWanted: FileFilter) => Promise<ListedFile[]>;
}

/** Errors: those of `openBackup` and `planPoint`; of `read` those of reading lists. */
export async function filesOfState(context: Context, read: ReadDeps, state: NamedState): Promise<FilesOfState> {
  if ("point" in state) return await ofPoint(context, read, state.point);
  let backup: OpenedBackup;
  try {
    backup = await openNamed(context, read, state.backup);
  } catch (error) {
    return await ofPoint(context, read, await endOfIncremental(context, state.backup, error));
  }
  return {
    backup,
    label: `backup ${backup.manifest.id}`,
    read: (isWanted) => filesOfBackup(read, backup, isWanted),
  };
}

async function ofPoint(context: Context, read: ReadDeps, point: Point): Promise<FilesOfState> {
  const { clock, log, progress, settings } = context;
  const source = settings.get("source");
  progress.update({ label: "reading the change stream", done: 0, total: null, unit: "transactions" });
  const plan = await planPoint({ ...read, target: nowhere, clock, log }, point, {
    uncoveredAtFull: true,
    ...(source === undefined ? {} : { source }),
  });
  progress.clear();
  return { backup: plan.full, label: plan.label, read: (isWanted) => filesOfPoint(read, plan, isWanted) };
}
