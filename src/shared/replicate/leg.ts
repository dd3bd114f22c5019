/** One bounded piece of a run that copies what the second store lacks. docs/decisions/0025-copies.md. */
import { epochSource } from "../crypto/epochs.ts";
import { asHoldfastError, type ErrorCode, HoldfastError } from "../errors.ts";
import { repositoryName } from "../format/layout.ts";
import { readRepository } from "../format/repository.ts";
import { CopyTask, type CopyToMake } from "../jobs/copy_queries.ts";
import { claimTask, returnTask, type Task } from "../jobs/queries.ts";
import { renewalMs } from "../store/lock.ts";
import { copyObject } from "./copy_object.ts";
import type { ReplicateDeps, ReplicateOptions } from "./deps.ts";
import { look } from "./look.ts";
import { enterManifest } from "./open_manifest.ts";
import { type OriginalDeps, readOriginal } from "./original.ts";
import { severalAtOnce } from "./several.ts";
import { survey } from "./survey.ts";

/** Longer than a leg may last; each call renews it. */
const leaseSeconds = 180;
/** Asked for in one call. */
const copiesPerCall = 64;
/** Their requests are on their way at the same time. */
const copiesAtOnce = 8;
/** Sealed bytes of them together: no more memory, and no more CPU behind the budget's end, than one of the largest alone. */
const bytesAtOnce = 8 * 1024 * 1024;
/** Statements, requests and hashes of one copy. */
const callsPerCopy = 12;
/** A look, a renewal and its record. */
const callsPerHold = 3;

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
 * Claims the run's task and works until its budget is spent or nothing can be done; a few objects at once, all else one after
 * the other. False where somebody else has the task. What goes wrong is written to the run.
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
  const bounds = { most: copiesAtOnce, mostBytes: options.bytesAtOnce ?? bytesAtOnce };
  let originals: OriginalDeps | null = null;
  for (;;) {
    const copies = await lease.next(copiesPerCall);
    if (copies.length === 0) return { needed: null, left: false };
    const from = originals ??= await originalsOf(deps);
    let needed: number | null = null;
    let left = false;
    // An object of unknown size may be a large one.
    const pieces = copies.map((copy) => ({
      copy,
      bytes: copy.standing ? 0 : copy.firstBytes ?? bounds.mostBytes,
      alone: copy.kind !== "object",
    }));
    await severalAtOnce(pieces, bounds, async ({ copy }) => {
      const outcome = await copyOne(deps, from, lease, copy, options);
      if ("needed" in outcome) needed ??= outcome.needed;
      left ||= budget.spent() || signal?.aborted === true;
      return !("needed" in outcome) && !outcome.failed && !left;
    });
    if (needed !== null || left) return { needed, left: needed === null };
  }
}

/**
 * `needed`: bytes for which there is no room. `failed`: what is wrong with this object alone was noted, and what stands behind it is
 * left out from now on. All else is thrown.
 */
async function copyOne(
  deps: ReplicateDeps,
  originals: OriginalDeps,
  lease: CopyTask,
  copy: CopyToMake,
  { budget, progress }: ReplicateOptions,
): Promise<{ readonly needed: number } | { readonly failed: boolean }> {
  try {
    if (copy.standing) {
      budget.spendCalls(callsPerHold);
      await holdCopy(deps, lease, copy.name);
      return { failed: false };
    }
    budget.spendCalls(callsPerCopy);
    if (copy.unopened) {
      const locked = await deps.second.store.lock?.inForce() ?? null;
      const renewAfterMs = locked === null ? null : renewalMs(locked.days);
      budget.spendText(0, await enterManifest(originals, lease, copy, renewAfterMs));
      return { failed: false };
    }
    // What every backup needs and none puts again.
    if (copy.kind === "manifest") await deps.second.store.lock?.hold(repositoryName);
    const original = await readOriginal(originals, copy);
    const outcome = await copyObject({ ...deps, ...originals }, lease, copy, original);
    if ("needed" in outcome) return outcome;
    budget.spendText(0, outcome.copied);
    progress?.({ name: copy.name, bytes: outcome.copied });
    return { failed: false };
  } catch (error) {
    const failure = asHoldfastError(error);
    if (!ofOneObject.includes(failure.code)) throw error;
    deps.log.warn("copy.failed", { name: copy.name, code: failure.code, message: failure.message });
    await lease.fail(copy.name, failure);
    return { failed: true };
  }
}

/** It stands in the second store, and a new manifest needs it: its lock is renewed. What is not there any more is copied again. */
async function holdCopy({ second, log }: ReplicateDeps, lease: CopyTask, name: string): Promise<void> {
  try {
    await second.store.lock?.hold(name);
    await lease.held(name, true);
  } catch (error) {
    if (asHoldfastError(error).code !== "object_missing") throw error;
    log.warn("copy.lost", { name });
    await lease.held(name, false);
  }
}

async function originalsOf({ first, ring, compressor }: ReplicateDeps): Promise<OriginalDeps> {
  const repository = await readRepository(first);
  const repositoryId = repository?.id ?? "";
  return { first, ring, compressor, repositoryId, epochOf: epochSource(first, ring, repositoryId) };
}
