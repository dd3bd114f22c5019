/** Plans and applies until nothing is left to do: what a capture shows afterwards is the proof. */
import { HoldfastError } from "../../errors.ts";
import { captureSchema } from "../../schema/capture.ts";
import type { SchemaCapture } from "../../schema/capture_format.ts";
import {
  type AppliedDefinitions,
  applyDefinitionChanges,
  type DefinitionApplyContext,
} from "./apply_definition_changes.ts";
import type { DefinitionPlan, GoneDefinition, InPlaceOptions } from "./change_format.ts";
import { comparedDefinitions } from "./compare/compared.ts";
import { goneMark, makeAgain, prepareGone, readGone } from "./gone_definitions.ts";
import { findReplaceableViews } from "./replaceable_views.ts";
import { planDefinitionChanges } from "./plan/plan_definition_changes.ts";

/** A rename is predicted from texts, and grants of new objects are compared once these are there: one round, then what it missed. */
const maxRounds = 4;

export interface SettleContext extends Omit<DefinitionApplyContext, "done" | "mark"> {
  readonly was: SchemaCapture;
  readonly options: InPlaceOptions;
  /** As in the capture of the backup. */
  readonly leaveOutSchemas: readonly string[];
  /**
   * Side schema, which is there when steps are applied: what goes is written down in it, and part `after` knows what went in
   * part `before` and in earlier tries. Undefined: each call knows what went in itself.
   */
  readonly sideSchema?: string | undefined;
}

export interface SettledDefinitions extends AppliedDefinitions {
  /** What is left: nothing of this part but what is kept. */
  readonly plan: DefinitionPlan;
  /** Identities of what had to go and was made again: of part `after`. */
  readonly again: readonly string[];
}

/**
 * `before`: what the rows of the backup need; call it, put the rows back, then call it with `after`, which does the rest and
 * leaves definitions that are those of `was` but for `plan.kept`. Each call starts from what is there, so it may be called
 * again after a failure or a kill. Rows go into ordinary tables and partitions by their own names.
 * Errors: those of `applyDefinitionChanges` and `captureSchema`; `definitions_stuck` where rounds do not come to an end.
 */
export async function settleDefinitions(
  context: SettleContext,
  part: "before" | "after",
): Promise<SettledDefinitions> {
  const phases = part === "before" ? ["before" as const] : ["after" as const, "last" as const];
  let steps = 0;
  const emptied: string[] = [];
  const gone: GoneDefinition[] = [];
  const { connection, sideSchema } = context;
  const mark = sideSchema === undefined ? null : goneMark(sideSchema);
  if (sideSchema !== undefined) await prepareGone(connection, sideSchema);
  for (let round = 1;; round++) {
    const plan = await planNow(context);
    const [open] = plan.steps.filter((step) => part === "after" || step.phase === "before");
    if (open === undefined && plan.refused.length === 0) {
      if (part === "before") return { plan, steps, emptied, gone, again: [] };
      const present = async () =>
        new Set(comparedDefinitions(await captureNow(context)).map(({ identity }) => identity));
      const all = sideSchema === undefined ? gone : await readGone(connection, sideSchema);
      const made = await makeAgain({ ...context, present }, wantedOf(context, all));
      return { steps, emptied, ...made, plan: made.again.length === 0 ? plan : await planNow(context) };
    }
    if (round > maxRounds || (part === "after" && open?.phase === "before")) {
      throw new HoldfastError("definitions_stuck", `${open?.identity ?? ""} still differs: ${open?.reason ?? ""}`);
    }
    for (const phase of phases) {
      const applied = await applyDefinitionChanges({ ...context, done: new Set(), mark }, plan, phase);
      steps += applied.steps;
      emptied.push(...applied.emptied);
      gone.push(...applied.gone);
    }
  }
}

/** Earlier tries may have had another backup, which did not have what this one brings back, or other choices. */
function wantedOf({ was, options }: SettleContext, gone: readonly GoneDefinition[]): GoneDefinition[] {
  const comesBack = new Set(comparedDefinitions(was).map(({ identity }) => identity));
  const left = gone.filter(({ identity }) => !comesBack.has(identity));
  return left.map((one) => ({ ...one, again: one.again && !options.dropExtra }));
}

/** The plan from what is there now; changes nothing. */
export async function planNow(context: SettleContext): Promise<DefinitionPlan> {
  const { connection, was, options } = context;
  const is = await captureNow(context);
  return planDefinitionChanges(was, is, options, await findReplaceableViews(connection, was, is));
}

async function captureNow({ connection, leaveOutSchemas }: SettleContext): Promise<SchemaCapture> {
  await connection.execute("begin isolation level repeatable read read only");
  try {
    return await captureSchema(connection, { leaveOutSchemas });
  } finally {
    await connection.execute("rollback");
  }
}
