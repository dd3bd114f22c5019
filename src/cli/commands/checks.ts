import { unlimited } from "../../shared/backup/budget.ts";
import { failureOf } from "../../shared/backup/run.ts";
import { type CheckDeps, type CheckProject, processOpenLimits } from "../../shared/checks/deps.ts";
import { runChecksLeg } from "../../shared/checks/leg.ts";
import { toHex } from "../../shared/crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../../shared/errors.ts";
import {
  type Cadence,
  type CheckResult,
  readCheckResults,
  readChecks,
  readUnverified,
  readVerdict,
  requestChecks,
  type Verdict,
} from "../../shared/jobs/check_queries.ts";
import { cancelRun, readRun, recordVerification } from "../../shared/jobs/queries.ts";
import { isActive } from "../../shared/jobs/states.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { verifyBackup } from "../../shared/verify/run.ts";
import { bothStores } from "../both_stores.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { sourceDatabase } from "../open.ts";
import { projectStorage } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";

/** Between two looks at a run that others work on. */
const waitMs = 500;
/** Results of one run; there are some twenty checks. */
const mostResults = 1_000;

/**
 * The document of `list`: `[{name, cadence, proves, outcome, message, checkedAt, run}]`; of `show`: `[{name, run, outcome, message,
 * evidence, checkedAt}]`, newest first; of `run`: `{run, cadence, verdict, passed, failed[], warning[], noVerdict[], notYetAvailable[],
 * checks[]}`, with exit 3 where one has failed.
 */
export async function run(context: Context): Promise<Outcome> {
  const [action = "list", word] = context.words;
  const session = await installedSession(context, "holdfast:checks");
  try {
    switch (action) {
      case "list":
        return await list(session);
      case "show":
        return await show(context, session, word);
      case "run":
        return await make(context, session, word);
      default:
        throw new HoldfastError("usage", "checks takes `list`, `show` or `run`");
    }
  } finally {
    await session.close();
  }
}

async function list(session: Connection): Promise<Outcome> {
  const checks = await readChecks(session);
  const lines = checks.map(({ name, cadence, outcome, checkedAt, message, proves }) => [
    name,
    cadence,
    outcome ?? "never made",
    checkedAt ?? "",
    message ?? proves,
  ]);
  return { exit: 0, document: checks, lines: columns(lines) };
}

async function show(context: Context, session: Connection, name: string | undefined): Promise<Outcome> {
  const known = await readChecks(session);
  if (name === undefined || !known.some((check) => check.name === name)) {
    throw new HoldfastError("not_found", `there is no check ${name ?? ""}`, {
      hint: `Checks are ${known.map((check) => check.name).join(", ")}.`,
    });
  }
  const results = await readCheckResults(session, { name }, context.settings.integer("limit", 1, 10_000));
  const lines = results.flatMap(({ checkedAt, outcome, message, evidence }) => [
    `${checkedAt}  ${outcome}  ${message}`,
    `  ${JSON.stringify(evidence)}`,
  ]);
  return { exit: 0, document: results, lines: lines.length === 0 ? ["It was never made."] : lines };
}

async function make(context: Context, session: Connection, word: string | undefined): Promise<Outcome> {
  if (word !== "daily" && word !== "weekly") throw new HoldfastError("usage", "checks run takes `daily` or `weekly`");
  const storage = projectStorage(context.settings);
  const project = storage === null
    ? null
    : { ...storage, fetch: (input, init) => fetch(input, init) } satisfies CheckProject;
  const deps = { ...await bothStores(context, session), project, database: await sourceDatabase(context) };
  if (word === "daily") await verifyNewest(context, session, deps);
  const run = await made(context, session, deps, word);
  const verdict = await readVerdict(session, run);
  const checks = await readCheckResults(session, { run }, mostResults);
  return {
    exit: verdict.verdict === "failed" ? 3 : 0,
    document: { run, cadence: word, ...verdict, checks },
    lines: [...columns(checks.map((one) => [one.name, one.outcome, one.message])), sentence(verdict, checks)],
  };
}

function sentence({ verdict, notYetAvailable, noVerdict }: Verdict, checks: readonly CheckResult[]): string {
  const apart = [
    ...(noVerdict.length > 0 ? [`without a verdict: ${noVerdict.join(", ")}`] : []),
    ...(notYetAvailable.length > 0 ? [`not yet available: ${notYetAvailable.join(", ")}`] : []),
  ];
  return [`${checks.length} checks: ${verdict}`, ...apart].join("; ") + ".";
}

/** A backup that was taken from here is verified from here: the functions do it for theirs. */
async function verifyNewest(context: Context, session: Connection, deps: CheckDeps): Promise<void> {
  const id = await readUnverified(session);
  if (id === null) return;
  try {
    const { problems } = await verifyBackup({ ...deps, store: deps.first }, id, {
      signal: context.signal,
      onProgress: (at) =>
        context.progress.update({
          label: "verifying",
          done: at.storedBytes,
          total: at.storedBytesTotal,
          unit: "bytes",
        }),
    });
    await recordVerification(session, id, problems);
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    if (code === "cancelled") throw error;
    context.note(`warning: the newest backup could not be verified: ${message} (${code})`);
  }
}

/** The run, once its checks are made; one that the functions are at is waited for. Errors: the run's own, `run_state` in a copy, `cancelled`. */
async function made(context: Context, session: Connection, deps: CheckDeps, cadence: Cadence): Promise<string> {
  const { clock, signal, random, progress } = context;
  const worker = `cli:${toHex(random(4))}`;
  const requested = await requestChecks(session, cadence, "cli");
  if (requested === null) {
    throw new HoldfastError("run_state", "this database is a copy of the one that Holdfast was installed in", {
      hint: "The original is verified where it is.",
    });
  }
  let run = await readRun(session, requested.run);
  const isOurs = run.origin === "cli";
  if (!isOurs) context.note("a verification by the functions is under way; waiting for its end");
  while (isActive(run.status)) {
    if (signal.aborted) {
      if (isOurs) await cancelRun(session, run.id);
      throw new HoldfastError("cancelled", "the checks were cancelled; what was found is recorded");
    }
    const worked = isOurs && await runChecksLeg(deps, run.id, {
      worker,
      budget: unlimited,
      limits: processOpenLimits,
      signal,
      progress: ({ label, done, total }) => progress.update({ label, done, total, unit: "steps" }),
    });
    if (!worked) await clock.sleep(waitMs, signal).catch(() => {});
    run = await readRun(session, run.id);
  }
  progress.clear();
  if (run.status === "succeeded") return run.id;
  throw failureOf(run);
}
