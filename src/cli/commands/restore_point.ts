import { parsePoint } from "../../shared/changes/plan/point.ts";
import type { Point } from "../../shared/changes/replay/replay.ts";
import { HoldfastError } from "../../shared/errors.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { restoreToPoint } from "../restore_to_point.ts";
import type { Settings } from "../settings.ts";
import { parseTableNames } from "../table_names.ts";
import { zoneMinutes } from "../zone.ts";

/** The document: that of `restoreToPoint`. */
export async function run(context: Context): Promise<Outcome> {
  const { settings, words } = context;
  return await restoreToPoint(context, pointOf(words, settings), {
    withoutTables: parseTableNames(settings.get("without-table"), "without-table"),
    atFull: parseTableNames(settings.get("at-full"), "at-full"),
    accepted: (settings.get("accepted") ?? "").split(",").map((id) => id.trim()).filter((id) => id !== ""),
  });
}

/** Errors: `usage` unless exactly one of the two says where to stop, and says it clearly. */
export function pointOf([moment]: readonly string[], settings: Pick<Settings, "get">): Point {
  const xid = settings.get("before-xid");
  if ((moment === undefined) === (xid === undefined)) {
    throw new HoldfastError(
      "usage",
      moment === undefined ? "no moment is given" : "a moment and --before-xid are given",
      {
        hint: "Give a moment such as 2024-01-09T12:00:00Z, or `latest`, or --before-xid.",
      },
    );
  }
  if (moment !== undefined) return parsePoint(moment, zoneMinutes);
  if (!/^\d{1,19}$/.test(xid ?? "")) {
    throw new HoldfastError("usage", "--before-xid is the number of a transaction", {
      hint: "pg_current_xact_id() tells a session's own; --help says more.",
    });
  }
  return { by: "before_xid", xid: BigInt(xid ?? "") };
}
