/** One bounded piece of a run that copies what the second store lacks. docs/decisions/0025-copies.md. */
import { epochSource } from "../crypto/epochs.ts";
import { asHoldfastError, type ErrorCode, HoldfastError } from "../errors.ts";
import { readRepository } from "../format/repository.ts";
import { CopyTask, type CopyToMake } from "../jobs/copy_queries.ts";
import { claimTask, returnTask, type Task } from "../jobs/queries.ts";
import { copyObject } from "./copy_object.ts";
import type { ReplicateDeps, ReplicateOptions } from "./deps.ts";
import { look } from "./look.ts";
import { enterManifest } from "./open_manifest.ts";
import { type OriginalDeps, readOriginal } from "./original.ts";
import { survey } from "./survey.ts";

/** Longer than a leg may last; each call renews it. */
const leaseSeconds = 180;
/** Asked for in one call. */
const copiesAtOnce = 20;
/** Statements, requests and hashes of one copy. */
const callsPerCopy = 12;

/** What is wrong with one object and leaves the others as they are. */
const ofOneObject: readonly ErrorCode[] = [
  "object_missing",
  "object_damaged",
  "object_conflict",
  "manifest_damaged",
  "format_newer",
  "key_wrong",
];

/**
 * Claims the run's task and works until its budget is spent or nothing can be done; one object in memory at a time. False where
 * somebody else has the task. What goes wrong is written to the run.
 */
export async function runReplicateLeg(deps: ReplicateDeps, run: string, options: ReplicateOptions): Promise<boolean> {
  const task = await claimTask(deps.connection, run, options.worker, leaseSeconds);
  if (task === null) return false;
  deps.log.step("copies.claimed", { run });
  try {
    await work(deps, task, options);
  } catch (error) {
    const failure = asHoldfastError(error);
    deps.log.warn("copies.stopped", { run, code: failure.code, message: failure.message });
    if (failure.code === "lease_lost") return true;
    await returnTask(deps.connection, task, failure).catch((second: unknown) => {
      if (!(second instanceof HoldfastError) || second.code !== "lease_lost") throw failure;
    });
  }
  return true;
}

async function work(deps: ReplicateDeps, task: Task, options: ReplicateOptions): Promise<void> {
  const { second, connection } = deps;
  const { budget, signal } = options;
  const lease = new CopyTask(connection, task, second.store.label);
  for (;;) {
    await survey(deps, lease);
    budget.spendCalls(callsPerCopy);
    const { needed, left } = await copyAll(deps, lease, options);
    if (left || signal?.aborted === true) return await returnTask(connection, task, null);
    if (needed === null) {
      const { lost, due } = await look(deps, lease, budget);
      if (due) return await returnTask(connection, task, null);
      if (lost > 0) continue;
    }
    const outcome = await lease.end(needed);
    deps.log.step("copies.ended", { run: task.run, outcome });
    if (outcome !== "again") return;
    if (budget.spent()) return await returnTask(connection, task, null);
  }
}

/** `left`: the budget is spent before the work is done. `needed`: bytes for which the day's egress has no room. */
async function copyAll(
  deps: ReplicateDeps,
  lease: CopyTask,
  options: ReplicateOptions,
): Promise<{ readonly needed: number | null; readonly left: boolean }> {
  const { budget, signal } = options;
  let originals: OriginalDeps | null = null;
  for (;;) {
    const copies = await lease.next(copiesAtOnce);
    if (copies.length === 0) return { needed: null, left: false };
    originals ??= await originalsOf(deps);
    for (const copy of copies) {
      const needed = await copyOne(deps, originals, lease, copy, options);
      if (needed !== null) return { needed, left: false };
      if (budget.spent() || signal?.aborted === true) return { needed: null, left: true };
    }
  }
}

/** Bytes for which there is no room, else null. What is wrong with this object alone is noted; all else is thrown. */
async function copyOne(
  deps: ReplicateDeps,
  originals: OriginalDeps,
  lease: CopyTask,
  copy: CopyToMake,
  { budget, progress }: ReplicateOptions,
): Promise<number | null> {
  budget.spendCalls(callsPerCopy);
  try {
    if (copy.unopened) {
      budget.spendText(0, await enterManifest(originals, lease, copy));
      return null;
    }
    const original = await readOriginal(originals, copy);
    const outcome = await copyObject({ ...deps, ...originals }, lease, copy, original);
    if ("needed" in outcome) return outcome.needed;
    budget.spendText(0, outcome.copied);
    progress?.({ name: copy.name, bytes: outcome.copied });
    return null;
  } catch (error) {
    const failure = asHoldfastError(error);
    if (!ofOneObject.includes(failure.code)) throw error;
    deps.log.warn("copy.failed", { name: copy.name, code: failure.code, message: failure.message });
    await lease.fail(copy.name, failure);
    return null;
  }
}

async function originalsOf({ first, ring, compressor }: ReplicateDeps): Promise<OriginalDeps> {
  const repository = await readRepository(first);
  const repositoryId = repository?.id ?? "";
  return { first, ring, compressor, repositoryId, epochOf: epochSource(first, ring, repositoryId) };
}
