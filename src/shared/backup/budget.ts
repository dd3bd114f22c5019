import type { Clock } from "../clock.ts";

/** What a leg may still use. Work is counted by estimates, since a function cannot read its own CPU time. */
export interface Budget {
  /** Counts text that was read, compressed and sealed, and its rows. */
  spendText(rows: number, bytes: number): void;
  /** Counts a statement, a put, a message: whatever has a fixed price. */
  spendCalls(calls: number): void;
  /** True once nothing new should be begun. */
  spent(): boolean;
}

/**
 * Estimated CPU of the isolate's own thread, measured over TLS on Deno 2.1.4: one-integer rows cost 50 to 110 ns each,
 * rows of 500 bytes 4.6 ms a MiB to read and 8.4 to compress and seal, rows of hashes 12 and 12.
 */
export const prices = {
  usPerRow: 0.08,
  msPerMiB: 16,
  msPerCall: 0.5,
} as const;

export interface LegBudget {
  readonly cpuMs: number;
  readonly wallMs: number;
  /** CPU that this isolate has used before, in milliseconds: imports and earlier legs. */
  readonly usedCpuMs: number;
}

/** A leg of a function: the platform retires it near 1 s of CPU, and kills it at 2 s, at 256 MB or 150 s after its first call. */
export const functionBudget: LegBudget = { cpuMs: 600, wallMs: 100_000, usedCpuMs: 150 };

export function budgetOf(limits: LegBudget, clock: Clock): Budget {
  const endsAt = clock.monotonicMs() + limits.wallMs;
  let usedMs = limits.usedCpuMs;
  return {
    spendText: (rows, bytes) =>
      void (usedMs += rows * prices.usPerRow / 1000 + bytes / (1024 * 1024) * prices.msPerMiB),
    spendCalls: (calls) => void (usedMs += calls * prices.msPerCall),
    spent: () => usedMs >= limits.cpuMs || clock.monotonicMs() >= endsAt,
  };
}

/** For a process that may run as long as it likes. */
export const unlimited: Budget = {
  spendText: () => {},
  spendCalls: () => {},
  spent: () => false,
};
