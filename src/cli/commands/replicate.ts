import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { type CopyLag, readCopyLag } from "../../shared/jobs/copy_queries.ts";
import type { RunRow } from "../../shared/jobs/run_row.ts";
import { type MissingCopies, missingCopies } from "../../shared/replicate/missing.ts";
import type { Context } from "../context.ts";
import { copyMissing, openPair, type Pair, tellPair } from "../copy_to_second.ts";
import { keyRing } from "../open.ts";
import type { Outcome } from "../output.ts";
import { amount } from "../progress.ts";

/**
 * The document: `{first, second, copied, bytes, missing, missingBytes, warnings[]}`; with --dry-run `copied` is 0, and `names[]`
 * says what is missing. Another replication that is under way is waited for first.
 */
export async function run(context: Context): Promise<Outcome> {
  const pair = await openPair(context);
  if (pair === null) {
    throw new HoldfastError("setting_missing", "there is no second store: --secondary is not set", {
      hint: "Give --secondary, or set BACKUP_SECONDARY in the environment or in .env.",
    });
  }
  try {
    if (context.settings.has("dry-run")) return await show(context, pair);
    await tellPair(pair);
    const run = await copyMissing(context, pair, { listing: true, wait: true });
    if (run === null) throw new HoldfastError("internal", "a replication that was waited for has no run");
    return outcomeOf(pair, run, await readCopyLag(pair.session));
  } finally {
    await pair.session.close();
  }
}

function outcomeOf({ first, second }: Pair, run: RunRow, lag: CopyLag | null): Outcome {
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

async function show(context: Context, { session, first, second }: Pair): Promise<Outcome> {
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
