import type { Clock } from "../clock.ts";

/** Callers that an isolate remembers as told to wait: they cost no session of the database. */
export interface PauseMemory {
  /** Seconds that are left; 0: none is known of. */
  left(caller: string): number;
  remember(caller: string, seconds: number): void;
}

/** A pause that somebody has lifted in the database is over in every isolate after this time. */
const lookAgainMs = 5_000;
const callersAtMost = 1000;

export function createPauseMemory(clock: Clock): PauseMemory {
  const pauses = new Map<string, { readonly endsMs: number; readonly lookMs: number }>();
  return {
    left(caller) {
      const [pause, now] = [pauses.get(caller), clock.monotonicMs()];
      if (pause !== undefined && now < Math.min(pause.endsMs, pause.lookMs)) {
        return Math.ceil((pause.endsMs - now) / 1000);
      }
      pauses.delete(caller);
      return 0;
    },
    remember(caller, seconds) {
      if (seconds <= 0 || pauses.size >= callersAtMost) return;
      const now = clock.monotonicMs();
      pauses.set(caller, { endsMs: now + seconds * 1000, lookMs: now + lookAgainMs });
    },
  };
}
