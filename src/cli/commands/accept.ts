import { HoldfastError } from "../../shared/errors.ts";
import { acceptRun } from "../../shared/jobs/queries.ts";
import { findRun } from "../backup_row.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import type { Outcome } from "../output.ts";

/** The document: `{id, status: "succeeded"}`. */
export async function run(context: Context): Promise<Outcome> {
  const reason = context.settings.need("reason");
  const [wanted = ""] = context.words;
  if (wanted === "latest") {
    throw new HoldfastError("usage", "`latest` is never a quarantined backup", {
      hint: "Give its id, as `list` shows it.",
    });
  }
  if (reason.trim() === "") {
    throw new HoldfastError("usage", "--reason is empty", { hint: "Say why the backup is right." });
  }
  const session = await installedSession(context, "holdfast:accept");
  try {
    const id = await findRun(session, wanted);
    await acceptRun(session, id, reason);
    return { exit: 0, document: { id, status: "succeeded" }, lines: [`Backup ${id} is accepted.`] };
  } finally {
    await session.close();
  }
}
