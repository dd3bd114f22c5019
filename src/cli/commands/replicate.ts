import { unlimited } from "../../shared/backup/budget.ts";
import { toHex } from "../../shared/crypto/digest.ts";
import { failureOf } from "../../shared/backup/run.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { readIdentity } from "../../shared/identity/identity_queries.ts";
import { placeIn } from "../../shared/identity/settle_place.ts";
import { type CopyLag, readCopyLag, requestCopies, tellStores } from "../../shared/jobs/copy_queries.ts";
import { cancelRun, readRun } from "../../shared/jobs/queries.ts";
import type { RunRow } from "../../shared/jobs/run_row.ts";
import { isActive } from "../../shared/jobs/states.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { runReplicateLeg } from "../../shared/replicate/leg.ts";
import { type MissingCopies, missingCopies } from "../../shared/replicate/missing.ts";
import type { Secondary } from "../../shared/store/secondary.ts";
import type { Store } from "../../shared/store/store.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openPlace, openSecond, placeToWrite } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { amount } from "../progress.ts";

/** Between two looks at a run that others work on. */
const waitMs = 500;

/**
 * The document: `{first, second, copied, bytes, missing, missingBytes, warnings[]}`; with --dry-run `copied` is 0, and `names[]`
 * says what is missing. Another replication that is under way is waited for first.
 */
export async function run(context: Context): Promise<Outcome> {
  const top = await openPlace(context, placeToWrite(context.settings));
  const there = openSecond(context);
  if (there === null) {
    throw new HoldfastError("setting_missing", "there is no second store: --secondary is not set", {
      hint: "Give --secondary, or set BACKUP_SECONDARY in the environment or in .env.",
    });
  }
  const session = await installedSession(context, "holdfast:replicate");
  try {
    const { prefix } = await readIdentity(session);
    const first = placeIn(top, prefix);
    const second = { ...there, store: placeIn(there.store, prefix) };
    if (context.settings.has("dry-run")) return await show(context, session, first, second);
    await tell(session, first, second);
    return outcomeOf(first, second, await replicate(context, session, first, second), await readCopyLag(session));
  } finally {
    await session.close();
  }
}

/** The functions may have another second store: then it is theirs that counts. */
async function tell(session: Connection, first: Store, second: Secondary): Promise<void> {
  const known = await readCopyLag(session);
  if (known !== null && known.store !== second.store.label) {
    throw new HoldfastError("run_state", `the second store of this database is ${known.store}`, {
      hint: "Set the same for the functions, or forget it with: select backup.tell_stores(null, null);",
    });
  }
  await tellStores(session, first.label, second.store.label);
}

async function replicate(context: Context, session: Connection, first: Store, second: Secondary): Promise<RunRow> {
  const { settings, clock, log, signal, random } = context;
  const deps = {
    connection: session,
    first,
    second,
    ring: await keyRing(settings),
    compressor: await loadZstd(),
    clock,
    log,
  };
  const worker = `cli:${toHex(random(4))}`;
  const done = { copies: 0, bytes: 0 };
  for (;;) {
    const requested = await requestCopies(session, "cli", true);
    if (requested === null) {
      throw new HoldfastError("run_state", "this database is a copy of the one that Holdfast was installed in", {
        hint: "Nothing is copied from it into the second store of the original.",
      });
    }
    const total = (await readCopyLag(session))?.bytes ?? null;
    let run = await readRun(session, requested.run);
    const isOurs = run.origin === "cli";
    if (!isOurs) context.note("a replication by the functions is under way; waiting for its end");
    while (isActive(run.status)) {
      if (signal.aborted) {
        if (isOurs) await cancelRun(session, run.id);
        throw new HoldfastError("cancelled", "replicate was cancelled");
      }
      const worked = isOurs && await runReplicateLeg(deps, run.id, {
        worker,
        budget: unlimited,
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

function outcomeOf(first: Store, second: Secondary, run: RunRow, lag: CopyLag | null): Outcome {
  const missing = lag?.objects ?? 0;
  const document = {
    first: first.label,
    second: second.store.label,
    copied: run.rows,
    bytes: run.storedBytes,
    missing,
    missingBytes: lag?.bytes ?? 0,
    warnings: run.warnings,
  };
  const copied = run.rows === 0
    ? `Nothing was missing in ${second.store.label}.`
    : `${amount(run.rows, "objects")} (${amount(run.storedBytes, "bytes")}) were copied to ${second.store.label}.`;
  const lines = [copied, ...run.warnings.map(({ message }) => `warning: ${message}`)];
  if (missing > 0) lines.push(`${amount(missing, "objects")} (${amount(document.missingBytes, "bytes")}) are missing.`);
  return { exit: 0, document, lines };
}

async function show(context: Context, session: Connection, first: Store, second: Secondary): Promise<Outcome> {
  const ring = await keyRing(context.settings);
  const compressor = await loadZstd();
  const missing: MissingCopies = await missingCopies({ connection: session, first, second, ring, compressor });
  const { names } = missing;
  const missingBytes = names.reduce((sum, { bytes }) => sum + bytes, 0);
  const lines = names.map(({ name, bytes }) => `${name}  ${amount(bytes, "bytes")}`);
  return {
    exit: 0,
    document: {
      first: first.label,
      second: second.store.label,
      copied: 0,
      bytes: 0,
      missing: names.length,
      missingBytes,
      warnings: [],
      names,
    },
    lines: [...lines, `${amount(names.length, "objects")} (${amount(missingBytes, "bytes")}) would be copied.`],
  };
}
