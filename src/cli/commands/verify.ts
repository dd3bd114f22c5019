import { loadZstd } from "../../shared/format/zstd.ts";
import { recordVerification } from "../../shared/jobs/queries.ts";
import { verifyBackup } from "../../shared/verify/run.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { noteWhatLatestPassedOver } from "../passed_over.ts";
import { amount } from "../progress.ts";

/** The document: `{id, ok, objects, rows, rawBytes, storedBytes, problems[]}`. Exit 3 when there is a problem. */
export async function run(context: Context): Promise<Outcome> {
  const { settings, clock, log, progress, signal } = context;
  const [wanted = ""] = context.words;
  const store = await openStore(context);
  const deps = { store, ring: await keyRing(settings), compressor: await loadZstd(), clock, log };
  const result = await verifyBackup(deps, wanted, {
    parallel: settings.integer("jobs", 1, 16),
    signal,
    onProgress: (at) =>
      progress.update({ label: "verifying", done: at.storedBytes, total: at.storedBytesTotal, unit: "bytes" }),
  });
  progress.clear();
  await noteWhatLatestPassedOver(context, store, result.id);
  if (settings.get("db-url") !== undefined) await record(context, result.id, result.problems);
  const size = `${amount(result.objects, "objects")}, ${amount(result.rows, "rows")}, ${
    amount(result.storedBytes, "bytes")
  }`;
  return {
    exit: result.ok ? 0 : 3,
    document: result,
    lines: result.ok ? [`Backup ${result.id} is sound: ${size}.`] : [
      `Backup ${result.id} has ${result.problems.length} problems (${size} looked at):`,
      ...result.problems.map((problem) => `  ${problem.object}: ${problem.code}: ${problem.message}`),
    ],
  };
}

/** A backup of another database, or one whose row is gone, is verified all the same. */
async function record(context: Context, id: string, problems: readonly unknown[]): Promise<void> {
  try {
    const session = await installedSession(context, "holdfast:verify");
    try {
      await recordVerification(session, id, problems);
    } finally {
      await session.close();
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : "unknown reason";
    context.note(`the outcome is not recorded in the database: ${why}`);
  }
}
