/** Runs that copy what the second store lacks, from this process. */
import { unlimited } from "../shared/backup/budget.ts";
import { failureOf } from "../shared/backup/run.ts";
import { toHex } from "../shared/crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { readIdentity } from "../shared/identity/identity_queries.ts";
import { placeIn } from "../shared/identity/settle_place.ts";
import { readCopyLag, requestCopies, tellStores } from "../shared/jobs/copy_queries.ts";
import { cancelRun, readRun } from "../shared/jobs/queries.ts";
import type { RunRow } from "../shared/jobs/run_row.ts";
import { isActive } from "../shared/jobs/states.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { runReplicateLeg } from "../shared/replicate/leg.ts";
import type { Secondary } from "../shared/store/secondary.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";
import { installedSession } from "./installed.ts";
import { keyRing } from "./open.ts";
import { openPlace, openSecond, placeToWrite } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { amount } from "./progress.ts";

/** Between two looks at a run that others work on. */
const waitMs = 500;
/** Sealed bytes of objects on their way at once: a process has more room than a function. */
const bytesAtOnce = 64 * 1024 * 1024;

/** Both stores below where the database writes, and a session of its own. */
export interface Pair {
  readonly session: Connection;
  readonly first: Store;
  readonly second: Secondary;
}

/** Null where no second store is set. The session is the caller's to close. Errors: those of settings, `schema_missing`. */
export async function openPair(context: Context): Promise<Pair | null> {
  const top = await openPlace(context, placeToWrite(context.settings));
  const there = openSecond(context);
  if (there === null) return null;
  const session = await installedSession(context, "holdfast:replicate");
  try {
    const { prefix } = await readIdentity(session);
    return { session, first: placeIn(top, prefix), second: { ...there, store: placeIn(there.store, prefix) } };
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** The functions may have another second store: then it is theirs that counts. Errors: `run_state`. */
export async function tellPair({ session, first, second }: Pair): Promise<void> {
  const known = await readCopyLag(session);
  if (known !== null && known.store !== second.store.label) {
    throw new HoldfastError("run_state", `the second store of this database is ${known.store}`, {
      hint: "Set the same for the functions, or forget it with: select backup.tell_stores(null, null);",
    });
  }
  await tellStores(session, first.label, second.store.label);
}

export interface CopyWish {
  /** The first store is listed, whatever is known of it. */
  readonly listing: boolean;
  /** A run of the functions is waited for, and another one begun behind it; else it is left to do the work. */
  readonly wait: boolean;
}

/**
 * The run, succeeded; null where the functions are at it. Errors: the run's own, those of the database, `run_state` in a copy of the
 * project, `cancelled`.
 */
export async function copyMissing(context: Context, pair: Pair, { listing, wait }: CopyWish): Promise<RunRow | null> {
  const { settings, clock, log, signal, random } = context;
  const { session, first, second } = pair;
  const ring = await keyRing(settings);
  const deps = { connection: session, first, second, ring, compressor: await loadZstd(), clock, log };
  const worker = `cli:${toHex(random(4))}`;
  const done = { copies: 0, bytes: 0 };
  for (;;) {
    const requested = await requestCopies(session, "cli", listing);
    if (requested === null) {
      throw new HoldfastError("run_state", "this database is a copy of the one that Holdfast was installed in", {
        hint: "Nothing is copied from it into the second store of the original.",
      });
    }
    const total = (await readCopyLag(session))?.bytes ?? null;
    let run = await readRun(session, requested.run);
    const isOurs = run.origin === "cli";
    if (!isOurs && !wait) return null;
    if (!isOurs) context.note("a replication by the functions is under way; waiting for its end");
    while (isActive(run.status)) {
      if (signal.aborted) {
        if (isOurs) await cancelRun(session, run.id);
        throw new HoldfastError("cancelled", "replicate was cancelled");
      }
      const worked = isOurs && await runReplicateLeg(deps, run.id, {
        worker,
        budget: unlimited,
        bytesAtOnce,
        signal,
        progress: ({ bytes }) => {
          done.copies++;
          done.bytes += bytes;
          const detail = `${done.copies} objects`;
          context.progress.update({ label: "copying", done: done.bytes, total, unit: "bytes", detail });
        },
      });
      if (!worked) await clock.sleep(waitMs, signal).catch(() => {});
      run = await readRun(session, run.id);
    }
    context.progress.clear();
    if (!isOurs) continue;
    if (run.status === "succeeded") return run;
    throw failureOf(run);
  }
}

/**
 * The outcome of a backup or a drain, with what came of copying it: `copies` {copied, bytes, missing, warnings[]} in its document,
 * null where nothing was to be done. `listing` as `copyAfter` has it. Never throws; a second store that fails changes no exit code.
 */
export async function withCopies(
  context: Context,
  { exit, document, lines }: Omit<Outcome, "document"> & { readonly document: object },
  listing: boolean,
): Promise<Outcome> {
  const copies = await copyAfter(context, listing);
  for (const { code, message } of copies?.warnings ?? []) context.note(`warning: ${code}: ${message}`);
  const told = copies === null || copies.missing === null
    ? []
    : [`${amount(copies.copied, "objects")} (${amount(copies.bytes, "bytes")}) were copied to the second store.`];
  return { exit, document: { ...document, copies }, lines: [...lines, ...told] };
}

/** What came of copying behind a backup or a drain. */
export interface CopiedAfter {
  readonly copied: number;
  readonly bytes: number;
  /** How many objects the second store still lacks; null: not known. */
  readonly missing: number | null;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

/**
 * Behind a backup or a drain of this process: what is new goes into the second store, where one is set. `listing` for a backup, which
 * is found in the store alone: it may have been written to another one. Null where none is, where
 * the functions are at it, and where the second store is that of another first one. Whatever fails is a warning: what was
 * backed up stands in the first store, and the next run goes on.
 */
export async function copyAfter(context: Context, listing: boolean): Promise<CopiedAfter | null> {
  if (context.settings.get("secondary") === undefined) return null;
  let pair: Pair | null = null;
  try {
    pair = await openPair(context);
    if (pair === null) return null;
    const known = await readCopyLag(pair.session);
    if (known?.firstStore != null && known.firstStore !== pair.first.label) {
      context.note(
        `notice: the second store is that of ${known.firstStore}: nothing is copied from ${pair.first.label}`,
      );
      return null;
    }
    await tellPair(pair);
    const run = await copyMissing(context, pair, { listing, wait: false });
    if (run === null) return null;
    const missing = (await readCopyLag(pair.session))?.objects ?? null;
    return { copied: run.rows, bytes: run.storedBytes, missing, warnings: run.warnings };
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    return { copied: 0, bytes: 0, missing: null, warnings: [{ code: "not_copied", message: `${code}: ${message}` }] };
  } finally {
    context.progress.clear();
    await pair?.session.close();
  }
}
