/** One bounded piece of a run of checks. docs/decisions/0031-verification.md. */
import { z } from "zod";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { type CheckOutcome, CheckTask } from "../jobs/check_queries.ts";
import { claimTask, returnTask, type Task } from "../jobs/queries.ts";
import type { CheckDeps, CheckOptions, StepMemory, StepResult } from "./deps.ts";
import { judgeRows, judgeSize, readHistory } from "./judge_history.ts";
import { listStores } from "./list_stores.ts";
import { openManifests } from "./open_manifests.ts";
import { openVoiceNote } from "./open_voice_note.ts";
import { openObjects } from "./open_objects.ts";
import { sampleExport } from "./sample_export.ts";

/** Longer than a leg may last; each call renews it. */
const leaseSeconds = 180;
/** Statements of one check in SQL. */
const callsPerCheck = 20;
/** The task's last try but one: what fails then fails its check, and the others are made. */
const lastTry = 4;

type Step = (deps: CheckDeps, task: CheckTask, memory: StepMemory, options: CheckOptions) => Promise<StepResult>;

/** By the step of a registered check. */
const steps: Readonly<Record<string, Step>> = {
  list: listStores,
  manifests: openManifests,
  objects: openObjects,
  export: sampleExport,
  size: async (_, task) => judgeSize(readHistory(await task.history())),
  voice_note: async (deps) => await openVoiceNote(deps),
  rows: async (_, task) => judgeRows(readHistory(await task.history())),
};

const detailFormat = z.object({ steps: z.record(z.string(), z.object({ state: z.unknown() })).default({}) });

/**
 * Claims the run's task and makes checks until the budget is spent or all are made. False where somebody else has the task. What goes
 * wrong is written to the run; a store that stays away fails the checks that need it, and no others.
 */
export async function runChecksLeg(deps: CheckDeps, run: string, options: CheckOptions): Promise<boolean> {
  const task = await claimTask(deps.connection, run, options.worker, leaseSeconds);
  if (task === null) return false;
  deps.log.step("checks.claimed", { run });
  try {
    await work(deps, task, options);
  } catch (error) {
    const failure = asHoldfastError(error);
    deps.log.warn("checks.stopped", { run, code: failure.code, message: failure.message });
    if (failure.code === "lease_lost") return true;
    await returnTask(deps.connection, task, failure).catch((second: unknown) => {
      if (!(second instanceof HoldfastError) || second.code !== "lease_lost") throw failure;
    });
  }
  return true;
}

async function work(deps: CheckDeps, claimed: Task, options: CheckOptions): Promise<void> {
  const { budget, signal } = options;
  const task = new CheckTask(deps.connection, claimed);
  const detail = detailFormat.parse(claimed.detail);
  let { tries } = claimed;
  for (;;) {
    const check = await task.next();
    if (check === null) {
      if (!await task.end()) continue;
      deps.log.step("checks.ended", { run: claimed.run });
      return;
    }
    const step = check.step === null ? undefined : steps[check.step];
    if (check.step === null) {
      await task.make(check.name);
      budget.spendCalls(callsPerCheck);
    } else if (step === undefined) {
      await task.record(check.name, unknownStep(check.step));
    } else {
      const memory = detail.steps[check.name] ??= { state: null };
      let made: StepResult;
      try {
        made = await stepOrFailure(() => step(deps, task, memory, options), tries);
      } catch (error) {
        if (asHoldfastError(error).retry === "backoff") await task.keep(detail);
        throw error;
      }
      if (made === null) {
        await task.keep(detail);
        return await returnTask(deps.connection, claimed, null);
      }
      await task.record(check.name, made);
      budget.spendCalls(callsPerCheck);
    }
    tries = 1;
    deps.log.step("checks.made", { check: check.name });
    if (budget.spent() || signal?.aborted === true) return await returnTask(deps.connection, claimed, null);
  }
}

/** What may heal is tried again in a while; what does not fails this check, with its code. */
async function stepOrFailure(step: () => Promise<StepResult>, tries: number): Promise<StepResult> {
  try {
    return await step();
  } catch (error) {
    const { code, message, hint, retry } = asHoldfastError(error);
    const isOurs = code === "lease_lost" || code === "cancelled" || code === "internal" || code === "run_state" ||
      code === "schema_missing" || code.startsWith("database_");
    if (isOurs || (retry === "backoff" && tries < lastTry)) throw error;
    return { outcome: "failed", message: `it could not be made: ${message}`, evidence: { code, hint } };
  }
}

function unknownStep(step: string): CheckOutcome {
  return { outcome: "not_yet_available", message: `this release does not know the step ${step}`, evidence: { step } };
}
