import { addToLog, readLog } from "../../shared/drills/log_queries.ts";
import { HoldfastError } from "../../shared/errors.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { columns, type Outcome } from "../output.ts";

const mostRows = 10_000;

/** The document of `list`: `[{id, date, type, action, result, notes, by}]`, newest first; of `add`: `{id}`. Errors: `usage`. */
export async function run(context: Context): Promise<Outcome> {
  const { settings, words: [what, type, action, result, notes] } = context;
  if (what !== "list" && what !== "add") throw new HoldfastError("usage", "log takes `list` or `add`");
  if (what === "list" && type !== undefined) {
    throw new HoldfastError("usage", "log list takes no further word", {
      hint: "One type alone is asked for with --kind.",
    });
  }
  const session = await installedSession(context, "holdfast:log");
  try {
    if (what === "add") {
      if (type === undefined || action === undefined || result === undefined) {
        throw new HoldfastError("usage", "log add takes a type, what was done, and what came out", {
          hint: 'holdfast log add test a-person Success "the test account, 6 minutes"',
        });
      }
      const id = await addToLog(session, { type, action, result, notes: notes ?? "" });
      return { exit: 0, document: { id }, lines: [`row ${id} of the maintenance log`] };
    }
    const entries = await readLog(session, settings.get("kind") ?? null, settings.integer("limit", 1, mostRows));
    const lines = columns([
      ["Date", "Type", "Action", "Result", "Notes"],
      ...entries.map((one) => [one.date, one.type, one.action, one.result, one.notes.replace(/\s*\n\s*/g, " ")]),
    ]);
    return { exit: 0, document: entries, lines: entries.length === 0 ? ["The maintenance log is empty."] : lines };
  } finally {
    await session.close();
  }
}
