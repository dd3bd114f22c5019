/** Copying into the second store beside drains that go on: `follow`. */
import type { Context } from "./context.ts";
import { type CopiedAfter, copyAfter } from "./copy_to_second.ts";
import { Progress } from "./progress.ts";

/** From one begin to the next: what is new is some seconds of changes. After a failure, too. */
const leastMs = 60_000;
/** For what is missing, when nothing is new. */
const mostMs = 15 * 60_000;

export interface CopiesBeside {
  /** Begins to copy where it is due; never waits for it. `isNew`: segments were stored since the last call. */
  tend(isNew: boolean): void;
  /** The one under way, which ends by itself once the context's signal is aborted. */
  settled(): Promise<void>;
}

/** `copy` stands in for the copying itself, in tests. */
export function copiesBeside(
  context: Context,
  copy: (context: Context, listing: boolean) => Promise<CopiedAfter | null> = copyAfter,
): CopiesBeside {
  const { clock, note, settings, signal } = context;
  const isSet = settings.get("secondary") !== undefined;
  // Its progress would stand between the lines of the drains.
  const quiet = { ...context, progress: new Progress({ isTerminal: false, columns: 0, write: () => {} }, clock) };
  let underWay: Promise<void> | null = null;
  let begunMs: number | null = null;
  let isDue = true;
  let toldLast = "";
  const begin = async () => {
    const copied = await copy(quiet, false);
    if (signal.aborted) return;
    const told = (copied?.warnings ?? []).map(({ code, message }) => `warning: ${code}: ${message}`).join("\n");
    if (told !== "" && told !== toldLast) note(told);
    toldLast = told;
  };
  return {
    tend(isNew) {
      isDue ||= isNew;
      const sinceMs = begunMs === null ? Infinity : clock.monotonicMs() - begunMs;
      if (!isSet || underWay !== null || sinceMs < (isDue ? leastMs : mostMs)) return;
      begunMs = clock.monotonicMs();
      isDue = false;
      underWay = begin().finally(() => underWay = null);
    },
    settled: async () => await underWay ?? undefined,
  };
}
