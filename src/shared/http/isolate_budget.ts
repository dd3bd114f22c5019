import { type Budget, functionBudget, type LegBudget, prices } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";

/** Budgets of the legs of one isolate: the platform counts its CPU over its whole life, not by request. */
export interface IsolateBudget {
  /** For one leg; wall time starts now. A leg does one task even when nothing is left, so every leg gets on. */
  next(): Budget;
}

/**
 * The platform retires an isolate near 1 s, once it is idle, and kills it at 2 s. Up to here a later leg does more than the
 * one task that it may always do; the estimate was some tenth above the CPU that the gateway measured.
 */
export const isolateCpuMs = 1_100;

export function createIsolateBudget(clock: Clock, limits: LegBudget = functionBudget): IsolateBudget {
  let usedMs = limits.usedCpuMs;
  return {
    next() {
      const endsAt = clock.monotonicMs() + limits.wallMs;
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
