/** Where time comes from. Everything under `src/shared` asks a clock, so that tests can hold time still or move it. */
export interface Clock {
  /** The present moment. */
  now(): Date;
  /** Milliseconds from an arbitrary start, never running backwards; for durations and deadlines. */
  monotonicMs(): number;
  /** Resolves after at least `ms` milliseconds, or rejects with the signal's reason once it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** The clock of this machine. */
export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      function onAbort() {
        clearTimeout(timer);
        reject(signal?.reason);
      }
      signal?.addEventListener("abort", onAbort, { once: true });
    }),
};
