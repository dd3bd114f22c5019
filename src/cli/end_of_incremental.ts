import { parseLsn } from "../shared/changes/decode/lsn.ts";
import type { Point } from "../shared/changes/replay/replay.ts";
import { HoldfastError } from "../shared/errors.ts";
import { findIncremental } from "./backup_row.ts";
import type { Context } from "./context.ts";
import { installedSession } from "./installed.ts";

/** Where the incremental that `wanted` names ends; only the database knows its id. Throws `error` when it names none. */
export async function endOfIncremental(context: Context, wanted: string, error: unknown): Promise<Point> {
  const isUnknown = error instanceof HoldfastError && error.code === "backup_not_found";
  if (!isUnknown || context.settings.get("db-url") === undefined) throw error;
  const session = await installedSession(context, "holdfast:restore").catch(() => {
    throw error;
  });
  try {
    const incremental = await findIncremental(session, wanted);
    if (incremental === null) throw error;
    context.note(
      `notice: ${incremental.id} is an incremental: its full backup and the changes up to its end are restored`,
    );
    return { by: "lsn", lsn: parseLsn(incremental.endLsn) };
  } finally {
    await session.close();
  }
}
