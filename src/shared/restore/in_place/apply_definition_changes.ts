/** Runs the steps of a plan, each in a short transaction of its own. */
import type { Clock } from "../../clock.ts";
import { HoldfastError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { applySettings } from "../../schema/apply_settings.ts";
import { checkSignal, restoreFailure } from "../sessions.ts";
import { transaction } from "../state.ts";
import type { ChangePhase, DefinitionPlan, DefinitionStep, GoneDefinition } from "./change_format.ts";

export interface DefinitionApplyContext {
  /** A session of the role that the plan was made for; its settings are those of captured definitions afterwards. */
  readonly connection: Connection;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal | undefined;
  /** Keys of steps that an earlier call has done. Steps that end are added. */
  readonly done: Set<string>;
  /** Statements that record a step in its own transaction; null: a new plan tells what is left. */
  readonly mark: ((step: DefinitionStep) => readonly string[]) | null;
  /** Longest wait for a lock, in ms; others queue behind a waiting step as long. Default 2,000. */
  readonly lockTimeoutMs?: number;
  /** How often a step that got no lock is tried; there is a pause of `lockTimeoutMs` between. Default 15. */
  readonly lockTries?: number;
}

export interface AppliedDefinitions {
  readonly steps: number;
  /** Tables whose rows were deleted, since they did not fit a type as it was. */
  readonly emptied: readonly string[];
  /** What came after the backup and went with these steps. */
  readonly gone: readonly GoneDefinition[];
}

/**
 * Applies the steps of one phase in their order. May be called again after a failure or a kill: with the same plan where
 * steps are marked, else with a plan from a new capture.
 * Errors: `definitions_stuck` for a plan with refusals (nothing is done), and where the server refuses a step; `value_unfit`
 * where rows do not fit and may not go; `lock_timeout`, `database_denied`, `target_full`, `cancelled`.
 */
export async function applyDefinitionChanges(
  context: DefinitionApplyContext,
  plan: DefinitionPlan,
  phase: ChangePhase,
): Promise<AppliedDefinitions> {
  const [refusal] = plan.refused;
  if (refusal !== undefined) {
    const more = plan.refused.length === 1 ? "" : ` (and ${plan.refused.length - 1} more)`;
    throw new HoldfastError("definitions_stuck", `${refusal.identity}: ${refusal.reason}${more}`);
  }
  await context.connection.execute(applySettings.join(";\n"));
  const emptied: string[] = [];
  const gone: GoneDefinition[] = [];
  let steps = 0;
  for (const step of plan.steps) {
    if (step.phase !== phase || context.done.has(step.key)) continue;
    checkSignal(context.signal);
    if (await applyStep(context, step) === "otherwise") emptied.push(...step.empties);
    gone.push(...step.gone);
    context.done.add(step.key);
    context.log.step("restore.definition", { phase, action: step.action, identity: step.identity });
    steps++;
  }
  return { steps, emptied, gone };
}

/** A lock that was not given, a deadlock that was ended. */
const waits = new Set(["55P03", "40P01"]);

async function applyStep(context: DefinitionApplyContext, step: DefinitionStep): Promise<"done" | "otherwise"> {
  const timeout = context.lockTimeoutMs ?? 2_000;
  const tries = context.lockTries ?? 15;
  for (let attempt = 1;; attempt++) {
    try {
      return await tryStep(context, step, timeout);
    } catch (error) {
      if (attempt >= tries || !waits.has(sqlstateOf(error) ?? "")) throw failure(error, step, context.signal);
    }
    await context.clock.sleep(timeout, context.signal);
    checkSignal(context.signal);
  }
}

async function tryStep(
  context: DefinitionApplyContext,
  step: DefinitionStep,
  timeout: number,
): Promise<"done" | "otherwise"> {
  const run = (statements: readonly string[]) =>
    transaction(context.connection, [
      `set local lock_timeout = ${timeout}`,
      ...(context.mark?.(step) ?? []),
      ...statements,
    ]);
  try {
    await run(step.statements);
    return "done";
  } catch (error) {
    if (step.otherwise.length === 0 || !refusedAValue(error)) throw error;
  }
  await run(step.otherwise);
  return "otherwise";
}

function refusedAValue(error: unknown): boolean {
  return /^2[23]/.test(sqlstateOf(error) ?? "");
}

function failure(error: unknown, step: DefinitionStep, signal: AbortSignal | undefined): unknown {
  const place = `${step.action} ${step.identity}`;
  const state = sqlstateOf(error) ?? "";
  if (signal?.aborted || !(error instanceof HoldfastError)) return restoreFailure(error, place, signal);
  if (refusedAValue(error)) {
    return new HoldfastError("value_unfit", `${place}: rows that are there do not fit`, { cause: error });
  }
  // A dependency that the plan did not see, a syntax or an object that the server does not take.
  if (state === "2BP01" || state === "0A000" || (state.startsWith("42") && state !== "42501") || state === "55006") {
    return new HoldfastError("definitions_stuck", `${place}: ${error.message}`, { cause: error });
  }
  return restoreFailure(error, place, signal);
}
