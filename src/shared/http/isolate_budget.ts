import { type Budget, functionBudget, type LegBudget, prices } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";

/** Budgets of the legs of one isolate: the platform counts its CPU and its time over its whole life, not by request. */
export interface IsolateBudget {
  /** At the start of each call: with the first the isolate's time begins, whatever is asked for. */
  called(): void;
  /** For one leg, from what the isolate has left. A leg does one task even when nothing is, so every leg gets on. */
  next(): Budget;
}

/**
 * The platform retires an isolate near 1 s, once it is idle, and kills it at 2 s. Up to here a later leg does more than the
 * one task that it may always do; the estimate was some tenth above the CPU that the gateway measured.
 */
export const isolateCpuMs = 1_100;

export function createIsolateBudget(clock: Clock, limits: LegBudget = functionBudget): IsolateBudget {
  let usedMs = limits.usedCpuMs;
  let firstCallMs: number | undefined;
  return {
    called() {
      firstCallMs ??= clock.monotonicMs();
    },
    next() {
      const endsAt = (firstCallMs ?? clock.monotonicMs()) + limits.wallMs;
      const endsAtMs = Math.min(usedMs + limits.cpuMs - limits.usedCpuMs, isolateCpuMs);
      return {
        spendText: (rows, bytes) => {
          usedMs += rows * prices.usPerRow / 1000 + bytes / (1024 * 1024) * prices.msPerMiB;
        },
        spendCalls: (calls) => {
          usedMs += calls * prices.msPerCall;
        },
        spent: () => usedMs >= endsAtMs || clock.monotonicMs() >= endsAt,
      };
    },
  };
}
