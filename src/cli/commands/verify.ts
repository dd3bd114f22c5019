import { listsOf, segmentsOf, verifyIncremental } from "../../shared/changes/segments/verify_incremental.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { recordVerification } from "../../shared/jobs/queries.ts";
import type { Log } from "../../shared/log.ts";
import { openBackup, type ReadDeps } from "../../shared/verify/find_backup.ts";
import {
  verifyLeg,
  type VerifyOptions,
  type VerifyProgress,
  type VerifyResult,
  verifyResult,
} from "../../shared/verify/run.ts";
import { verifySteps } from "../../shared/verify/verify_steps.ts";
import { findIncremental } from "../backup_row.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing, keysText } from "../open.ts";
import { identitiesText, openStore, storePlace } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { noteWhatLatestPassedOver } from "../passed_over.ts";
import { amount } from "../progress.ts";
import { verifyByThreads } from "../verify_threads.ts";

/**
 * The document: `{id, ok, objects, rows, rawBytes, storedBytes, files, problems[]}`, `files` null or `{rows, withoutContent, withoutRow}`.
 * Exit 3 when there is a problem. With the id of an incremental, which only the database knows, objects are its segments and the files that
 * were copied for it, and rows its changes.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings, clock, log, progress, signal } = context;
  const [wanted = ""] = context.words;
  const store = await openStore(context);
  const deps = { store, ring: await keyRing(settings), compressor: await loadZstd(), clock, log };
  const options = {
    signal,
    onProgress: (at: VerifyProgress) =>
      progress.update({ label: "verifying", done: at.storedBytes, total: at.storedBytesTotal, unit: "bytes" }),
  };
  const full = await verifyFull(context, deps, wanted, options).catch((error: unknown) => {
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

/** Raw bytes that are worth a thread, which takes a quarter of a second to begin. */
const bytesAThread = 32 * 1024 * 1024;

/** By as many threads as --jobs; a small backup by none. Errors: those of `verifyBackup`. */
async function verifyFull(
  context: Context,
  deps: ReadDeps & { readonly log: Log },
  wanted: string,
  options: VerifyOptions,
): Promise<VerifyResult> {
  const { settings, signal, log, progress } = context;
  const backup = await openBackup(deps, wanted);
  const { manifest } = backup;
  const objects = verifySteps(manifest);
  const jobs = settings.integer("jobs", 1, 16);
  const rawBytes = objects.reduce((sum, object) => sum + object.rawBytes, 0);
  const threads = Math.min(jobs, objects.length, Math.floor(rawBytes / bytesAThread));
  if (threads < 2) {
    const whole = { ...options, parallel: jobs, from: 0, budgetBytes: Number.MAX_SAFE_INTEGER };
    return verifyResult(manifest, [await verifyLeg(deps, backup, whole)]);
  }
  const total = objects.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const place = storePlace(settings);
  const legs = await verifyByThreads({
    store: place.address,
    credentials: place.credentials,
    keys: (await keysText(settings)) ?? "",
    identities: await identitiesText(settings),
    logLevel: context.logLevel,
    backup: manifest.id,
  }, {
    threads,
    signal,
    log,
    onProgress: ({ storedBytes }) => progress.update({ label: "verifying", done: storedBytes, total, unit: "bytes" }),
  });
  return verifyResult(manifest, legs);
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
    return found === null ? null : await verifyIncremental(deps, found.id, {
      segments: await segmentsOf(session, found.id),
      lists: await listsOf(session, found.id),
    }, options);
  } finally {
    await session.close();
  }
}

function outcomeOf(what: string, result: VerifyResult, contents: string): Outcome {
  const files = result.files === null ? "" : `, ${amount(result.files.rows, "files")}`;
  const size = `${amount(result.objects, "objects")}, ${contents}${files}, ${amount(result.storedBytes, "bytes")}`;
  return {
    exit: result.ok ? 0 : 3,
    document: result,
    lines: [
      ...result.ok ? [`${what} ${result.id} is sound: ${size}.`] : [
        `${what} ${result.id} has ${result.problems.length} problems (${size} looked at):`,
        ...result.problems.map((problem) => `  ${problem.object}: ${problem.code}: ${problem.message}`),
      ],
      ...orphanLines(result.files),
    ],
  };
}

function orphanLines(files: VerifyResult["files"]): string[] {
  if (files === null) return [];
  const { withoutContent, withoutRow } = files;
  return [
    ...withoutContent === 0
      ? []
      : [`  ${amount(withoutContent, "files")} of its moment have no content in it: they went before they were copied`],
    ...withoutRow === 0
      ? []
      : [`  ${amount(withoutRow, "files")} are of a version after its moment, in the place of one that was missed`],
  ];
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
