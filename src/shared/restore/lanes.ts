/** Runs steps side by side as far as what they need and what they lock allows. */
import { HoldfastError } from "../errors.ts";

/** `share` goes with other `share` on the same name; `exclusive` goes with nothing. */
export type LaneLock = "share" | "exclusive";

export interface LaneStep {
  readonly key: string;
  /** Keys of steps that must have ended before; keys that are no step of this call count as done. */
  readonly after: readonly string[];
  /** Lock by name of what is locked. Null: the step runs while nothing else does. */
  readonly locks: ReadonlyMap<string, LaneLock> | null;
  /** Larger ones start first among those that can start. Any unit. */
  readonly weight: number;
}

/**
 * Calls `run(step, lane)` for every step once, at most one at a time for each lane (0 … lanes - 1), and resolves when all
 * have ended. After the first failure nothing new starts; what runs is waited for, then the failure is thrown.
 * Steps in an order that `after` makes impossible are an `internal` error.
 */
export async function runInLanes<S extends LaneStep>(
  steps: readonly S[],
  lanes: number,
  run: (step: S, lane: number) => Promise<void>,
): Promise<void> {
  const known = new Set(steps.map((step) => step.key));
  const waiting = new Set(steps);
  const done = new Set<string>();
  const running = new Map<number, { step: S; end: Promise<void> }>();
  const failures: unknown[] = [];

  while (failures.length === 0 ? waiting.size > 0 || running.size > 0 : running.size > 0) {
    while (failures.length === 0 && running.size < lanes) {
      const step = nextStep(waiting, done, known, [...running.values()].map((one) => one.step));
      if (step === undefined) break;
      waiting.delete(step);
      const lane = freeLane(running, lanes);
      const end = run(step, lane).then(() => void done.add(step.key), (error) => void failures.push(error))
        .finally(() => running.delete(lane));
      running.set(lane, { step, end });
    }
    if (running.size === 0) {
      if (failures.length > 0 || waiting.size === 0) break;
      throw new HoldfastError("internal", `steps wait for each other: ${[...waiting].slice(0, 5).map((s) => s.key)}`);
    }
    await Promise.race([...running.values()].map((one) => one.end));
  }
  if (failures.length > 0) throw failures[0];
}

function nextStep<S extends LaneStep>(
  waiting: ReadonlySet<S>,
  done: ReadonlySet<string>,
  known: ReadonlySet<string>,
  running: readonly S[],
): S | undefined {
  let best: S | undefined;
  let alone: S | undefined;
  for (const step of waiting) {
    if (!step.after.every((key) => done.has(key) || !known.has(key))) continue;
    if (step.locks === null) alone ??= step;
    else if ((best === undefined || step.weight > best.weight) && running.every((other) => compatible(step, other))) {
      best = step;
    }
  }
  return best ?? (running.length === 0 ? alone : undefined);
}

function compatible(a: LaneStep, b: LaneStep): boolean {
  if (a.locks === null || b.locks === null) return false;
  for (const [name, lock] of a.locks) {
    const other = b.locks.get(name);
    if (other !== undefined && (lock === "exclusive" || other === "exclusive")) return false;
  }
  return true;
}

function freeLane(running: ReadonlyMap<number, unknown>, lanes: number): number {
  for (let lane = 0; lane < lanes; lane++) if (!running.has(lane)) return lane;
  throw new HoldfastError("internal", "a step was started without a free lane");
}
