import { unlimited } from "../../shared/backup/budget.ts";
import { failureOf } from "../../shared/backup/run.ts";
import { toHex } from "../../shared/crypto/digest.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { cancelRun, readRun } from "../../shared/jobs/queries.ts";
import { requestPrune } from "../../shared/jobs/retention_queries.ts";
import type { RunRow } from "../../shared/jobs/run_row.ts";
import { isActive } from "../../shared/jobs/states.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { PruneDeps } from "../../shared/retention/deps.ts";
import { type PlanDocument, planDocument } from "../../shared/retention/document.ts";
import { lookAhead, runPruneLeg } from "../../shared/retention/leg.ts";
import { bothStores } from "../both_stores.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import type { Outcome } from "../output.ts";

/** Between two looks at a run that others work on. */
const waitMs = 500;
/** Kept objects that are told to people; the document has all. */
const mostKept = 40;

/**
 * The document: `{dryRun, refused, remove[{object, reason}], keep[{object, reason}]}`; once it was done also `removed` and `warnings[]`.
 * Exit 2 without a confirmation: then nothing was removed.
 */
export async function run(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:prune");
  try {
    const deps = await bothStores(context, session);
    const plan = planDocument((await lookAhead(deps)).plan, true);
    const lines = shown(plan);
    if (context.settings.has("dry-run")) return { exit: 0, document: plan, lines };
    if (!context.settings.has("yes")) {
      context.note(lines.join("\n"));
      if (!(await context.confirm("What is to be removed cannot be brought back.", "prune"))) {
        const missing = new HoldfastError("confirmation_missing", "nothing was removed");
        return { exit: missing.exit, document: { ...plan, ...missing.toDocument() }, lines: [missing.message] };
      }
    }
    const ended = await prune(context, session, deps);
    return {
      exit: 0,
      document: { ...plan, dryRun: false, removed: ended.rows, warnings: ended.warnings },
      lines: [
        ...lines,
        `${ended.rows} objects were removed.`,
        ...ended.warnings.map(({ message }) => `warning: ${message}`),
      ],
    };
  } finally {
    await session.close();
  }
}

async function prune(context: Context, session: Connection, deps: PruneDeps): Promise<RunRow> {
  const { clock, signal, random, progress } = context;
  const worker = `cli:${toHex(random(4))}`;
  const requested = await requestPrune(session, "cli");
  if (requested === null) {
    throw new HoldfastError("run_state", "this database is a copy of the one that Holdfast was installed in", {
      hint: "Nothing is removed from the original's place.",
    });
  }
  let run = await readRun(session, requested.run);
  const isOurs = run.origin === "cli";
  if (!isOurs) context.note("a prune by the functions is under way; waiting for its end");
  while (isActive(run.status)) {
    if (signal.aborted) {
      if (isOurs) await cancelRun(session, run.id);
      throw new HoldfastError("cancelled", "prune was cancelled; what it had ordered goes with the next one");
    }
    const worked = isOurs && await runPruneLeg(deps, run.id, {
      worker,
      budget: unlimited,
      signal,
      progress: ({ label, done, total }) => progress.update({ label, done, total, unit: "objects" }),
    });
    if (!worked) await clock.sleep(waitMs, signal).catch(() => {});
    run = await readRun(session, run.id);
  }
  progress.clear();
  if (run.status === "succeeded") return run;
  throw failureOf(run);
}

function shown({ refused, remove, keep }: PlanDocument): string[] {
  const backups = keep.filter(({ object }) => object.startsWith("v1/backups/"));
  const segments = keep.length - backups.length;
  return [
    ...backups.slice(0, mostKept).map(({ object, reason }) => `keep    ${object}: ${reason}`),
    ...(backups.length > mostKept ? [`keep    ${backups.length - mostKept} more backups`] : []),
    ...(segments > 0 ? [`keep    ${segments} segments of the change stream`] : []),
    ...remove.map(({ object, reason }) => `remove  ${object}: ${reason}`),
    refused === null
      ? `${remove.length} objects are to go, and what no backup names any more.`
      : `Nothing is removed: ${refused}.`,
  ];
}
