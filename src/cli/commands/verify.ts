import { segmentsOf, verifyIncremental } from "../../shared/changes/segments/verify_incremental.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { recordVerification } from "../../shared/jobs/queries.ts";
import type { ReadDeps } from "../../shared/verify/find_backup.ts";
import { verifyBackup, type VerifyOptions, type VerifyProgress, type VerifyResult } from "../../shared/verify/run.ts";
import { findIncremental } from "../backup_row.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { noteWhatLatestPassedOver } from "../passed_over.ts";
import { amount } from "../progress.ts";

/**
 * The document: `{id, ok, objects, rows, rawBytes, storedBytes, problems[]}`. Exit 3 when there is a problem. With the id
 * of an incremental, which only the database knows, objects are its segments and rows its changes.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings, clock, log, progress, signal } = context;
  const [wanted = ""] = context.words;
  const store = await openStore(context);
  const deps = { store, ring: await keyRing(settings), compressor: await loadZstd(), clock, log };
  const options = {
    parallel: settings.integer("jobs", 1, 16),
    signal,
    onProgress: (at: VerifyProgress) =>
      progress.update({ label: "verifying", done: at.storedBytes, total: at.storedBytesTotal, unit: "bytes" }),
  };
  const full = await verifyBackup(deps, wanted, options).catch((error: unknown) => {
    if (!isUnknown(error) || settings.get("db-url") === undefined) throw error;
    return error;
  });
  if ("ok" in full) {
    progress.clear();
    await noteWhatLatestPassedOver(context, store, { wanted, id: full.id });
    if (settings.get("db-url") !== undefined) await record(context, full.id, full.problems);
    return outcomeOf("Backup", full, amount(full.rows, "rows"));
  }
  const incremental = await verifyAsIncremental(context, deps, wanted, options);
  if (incremental === null) throw full;
  progress.clear();
  return outcomeOf("Incremental", incremental, `${incremental.rows.toLocaleString("en-GB")} changes`);
}

function isUnknown(error: unknown): error is HoldfastError {
  return error instanceof HoldfastError && error.code === "backup_not_found";
}

/** Null where the database knows no incremental of that id, or cannot be asked. */
async function verifyAsIncremental(
  context: Context,
  deps: ReadDeps,
  wanted: string,
  options: VerifyOptions,
): Promise<VerifyResult | null> {
  const session = await installedSession(context, "holdfast:verify").catch(() => null);
  if (session === null) return null;
  try {
    const found = await findIncremental(session, wanted);
    return found === null
      ? null
      : await verifyIncremental(deps, found.id, await segmentsOf(session, found.id), options);
  } finally {
    await session.close();
  }
}

function outcomeOf(what: string, result: VerifyResult, contents: string): Outcome {
  const size = `${amount(result.objects, "objects")}, ${contents}, ${amount(result.storedBytes, "bytes")}`;
  return {
    exit: result.ok ? 0 : 3,
    document: result,
    lines: result.ok ? [`${what} ${result.id} is sound: ${size}.`] : [
      `${what} ${result.id} has ${result.problems.length} problems (${size} looked at):`,
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
