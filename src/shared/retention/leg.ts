/** One bounded piece of a run that prunes. docs/decisions/0030-retention.md. */
import { z } from "zod";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { assertPlace, type Place, placeChanged, settlePlace } from "../identity/settle_place.ts";
import { claimTask, returnTask, type Task } from "../jobs/queries.ts";
import { PruneTask } from "../jobs/retention_queries.ts";
import type { PruneDeps, PruneOptions } from "./deps.ts";
import { planRetention, type RetentionPlan } from "./plan.ts";
import { type ReadFacts, readFacts } from "./read_facts.ts";
import { removeEverywhere } from "./remove.ts";
import { openManifests, storesOf, sweep } from "./sweep.ts";

/** Longer than a leg may last; each call renews it. */
const leaseSeconds = 180;
/** In one order: some rows of each chunk of a backup go with it. */
const backupsAtOnce = 10;
const segmentsAtOnce = 2_000;
/** Asked for in one call, removed, and looked at. */
const removalsAtOnce = 100;
/** A plan that is stale each time: people, or another program, are changing what it stands on. */
const mostPlans = 5;
/** Statements and requests of a plan. */
const callsOfPlan = 60;

const detailFormat = z.object({
  removed: z.int().default(0),
  swept: z.int().default(0),
  /** The step at which the sweep goes on; null: backups and segments come first. */
  sweep: z.int().nullable().default(null),
});
type Detail = z.infer<typeof detailFormat>;

/**
 * Claims the run's task and works until its budget is spent or the run has ended. False where somebody else has the task. What goes
 * wrong is written to the run.
 */
export async function runPruneLeg(deps: PruneDeps, run: string, options: PruneOptions): Promise<boolean> {
  const task = await claimTask(deps.connection, run, options.worker, leaseSeconds);
  if (task === null) return false;
  deps.log.step("prune.claimed", { run });
  try {
    await work(deps, task, options);
  } catch (error) {
    const failure = asHoldfastError(error);
    deps.log.warn("prune.stopped", { run, code: failure.code, message: failure.message });
    if (failure.code === "lease_lost") return true;
    await returnTask(deps.connection, task, failure).catch((second: unknown) => {
      if (!(second instanceof HoldfastError) || second.code !== "lease_lost") throw failure;
    });
  }
  return true;
}

/** What a prune would do now; nothing is written. Errors: those of `readFacts`. */
export async function lookAhead(
  deps: Pick<PruneDeps, "connection" | "first" | "second" | "clock">,
): Promise<{ readonly plan: RetentionPlan; readonly facts: ReadFacts }> {
  const facts = await readFacts({ ...deps, now: () => deps.clock.now() });
  return { plan: planRetention(facts), facts };
}

async function work(deps: PruneDeps, claimed: Task, options: PruneOptions): Promise<void> {
  const task = new PruneTask(deps.connection, claimed);
  const place = await ourPlace(deps);
  let detail = detailFormat.parse(claimed.detail);
  const pause = async () => {
    await task.keep(detail);
    await returnTask(deps.connection, claimed, null);
  };
  if (detail.sweep === null) {
    const removed = await removeAll(deps, task, detail, place, options);
    detail = removed.detail;
    if (removed.refused !== null) return await end(deps, task, detail, removed.refused);
    if (!removed.over || await openManifests(deps, task, removed.lying, options)) return await pause();
    detail = { ...detail, sweep: 0 };
    await task.keep(detail);
  }
  await assertPlace({ ...deps, store: deps.unplaced }, deps.connection, place);
  const { next, swept, over } = await sweep(deps, task, detail.sweep ?? 0, options);
  detail = { ...detail, sweep: next, swept: detail.swept + swept };
  if (!over) return await pause();
  await end(deps, task, detail, null);
}

async function end({ log }: PruneDeps, task: PruneTask, { removed, swept }: Detail, refused: string | null) {
  await task.end({ refused, removed, swept });
  log.step("prune.ended", { removed, swept, refused: refused ?? "" });
}

/** Nothing goes from a place that others write to. Errors: `place_changed`, those of keys and store. */
async function ourPlace(deps: PruneDeps): Promise<Place> {
  const place = await settlePlace({ ...deps, store: deps.unplaced }, deps.connection);
  if (place.store.label !== deps.first.label) {
    throw placeChanged("this database writes elsewhere than the prune began to look");
  }
  return place;
}

interface Removed {
  readonly detail: Detail;
  /** Why nothing may be removed. */
  readonly refused: string | null;
  /** All that the policy does not keep was ordered, and is gone or was refused by a store. */
  readonly over: boolean;
  readonly lying: ReadFacts["lying"];
}

/** Plans, orders and removes, batch by batch, each from facts of its own, until a plan removes nothing. */
async function removeAll(
  deps: PruneDeps,
  task: PruneTask,
  from: Detail,
  place: Place,
  options: PruneOptions,
): Promise<Removed> {
  let detail = from;
  for (let stale = 0; stale < mostPlans;) {
    // What an earlier leg, or run, has ordered goes first.
    for (;;) {
      const names = await task.nextRemovals(removalsAtOnce);
      if (names.length === 0) break;
      await assertPlace({ ...deps, store: deps.unplaced }, deps.connection, place);
      const { gone, kept } = await removeEverywhere(storesOf(deps), names);
      deps.log.step("prune.removed", { names: names.length });
      await task.recordRemovals(gone, kept);
      deps.log.step("prune.recorded", { names: names.length });
      detail = { ...detail, removed: detail.removed + gone.length };
      options.budget.spendCalls(4 + names.length);
      options.progress?.({ label: "removing", done: detail.removed, total: detail.removed });
      if (stopped(options)) return { detail, refused: null, over: false, lying: new Map() };
    }
    const { plan, facts } = await lookAhead(deps);
    options.budget.spendCalls(callsOfPlan);
    deps.log.step("prune.planned", { remove: plan.remove.length, refused: plan.refused ?? "" });
    if (plan.refused !== null) return { detail, refused: plan.refused, over: false, lying: facts.lying };
    if (plan.remove.length === 0) return { detail, refused: null, over: true, lying: facts.lying };
    if (await task.order(facts.guard, batchOf(plan)) === "stale") stale++;
    else deps.log.step("prune.ordered", {});
    if (stopped(options)) return { detail, refused: null, over: false, lying: facts.lying };
  }
  throw new HoldfastError("run_state", "what the plan stands on changes faster than it can be made", {
    retry: "backoff",
  });
}

function stopped({ budget, signal }: PruneOptions): boolean {
  return budget.spent() || signal?.aborted === true;
}

/** Backups first; then segments in the order of their chain, so that none is left with a hole. */
function batchOf({ remove }: RetentionPlan) {
  const backups = remove.filter(({ backup }) => backup !== null).slice(0, backupsAtOnce);
  return backups.length > 0 ? backups : remove.slice(0, segmentsAtOnce);
}
