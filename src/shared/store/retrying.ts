/** Tries again what may heal: time-outs, resets, cut answers, 408, 425, 429 and 5xx. Nothing else. */
import type { Clock } from "../clock.ts";
import { sameBytes } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Random } from "../random.ts";
import type { Store, StoredObject } from "./store.ts";

export interface RetryDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
}

export interface RetryBounds {
  /** All tries of one call, the first included. Default 6. */
  readonly maxTries?: number;
  /** From the first try to the start of the last. Default 90,000. */
  readonly deadlineMs?: number;
  /** The wait before try n + 1 is random between 0 and `firstWaitMs` · 2^(n-1). Default 250. */
  readonly firstWaitMs?: number;
  /** Most of one wait. Default 20,000. */
  readonly longestWaitMs?: number;
}

/**
 * The same store with patience. Every call may be repeated: names and bytes do not change between tries.
 *
 * `create` after a try whose outcome is unknown may find its own object: it reads it, and says `created` if the bytes are
 * its own. `list` starts over after a failure and gives each name once. The last error comes out when patience ends.
 */
export function retrying(store: Store, deps: RetryDeps, bounds: RetryBounds = {}): Store {
  const { maxTries = 6, deadlineMs = 90_000, firstWaitMs = 250, longestWaitMs = 20_000 } = bounds;

  /** How long to wait before the next try, or null to give up. */
  function patience(tries: number, startedMs: number, error: unknown): number | null {
    if (!(error instanceof HoldfastError) || error.retry !== "backoff" || tries >= maxTries) return null;
    const most = Math.min(longestWaitMs, firstWaitMs * 2 ** (tries - 1));
    const waitMs = Math.floor(most * fraction(deps.random));
    return deps.clock.monotonicMs() - startedMs + waitMs > deadlineMs ? null : waitMs;
  }

  async function pause(call: string, tries: number, startedMs: number, error: unknown): Promise<void> {
    const waitMs = patience(tries, startedMs, error);
    if (waitMs === null) throw error;
    const code = error instanceof HoldfastError ? error.code : "internal";
    deps.log?.warn("store.retry", { call, tries, code, waitMs, store: store.label });
    await deps.clock.sleep(waitMs);
  }

  async function again<Result>(call: string, act: (tries: number) => Promise<Result>): Promise<Result> {
    const startedMs = deps.clock.monotonicMs();
    for (let tries = 1;; tries++) {
      try {
        return await act(tries);
      } catch (error) {
        await pause(call, tries, startedMs, error);
      }
    }
  }

  const { lock } = store;
  return {
    kind: store.kind,
    label: store.label,
    lock: lock === null ? null : {
      inForce: () => again("lock.inForce", () => lock.inForce()),
      hold: (name) => again("lock.hold", () => lock.hold(name)),
      retentionOf: (name) => again("lock.retentionOf", () => lock.retentionOf(name)),
      forgetEarlier: (name) => again("lock.forgetEarlier", () => lock.forgetEarlier(name)),
    },
    create: (name, bytes) =>
      again("create", async (tries) => {
        const outcome = await store.create(name, bytes);
        if (outcome === "created" || tries === 1) return outcome;
        return sameBytes(await store.read(name), bytes) ? "created" : "existed";
      }),
    replace: (name, bytes) => again("replace", () => store.replace(name, bytes)),
    read: (name) => again("read", () => store.read(name)),
    size: (name) => again("size", () => store.size(name)),
    remove: (names) => again("remove", () => store.remove(names)),

    async *list(prefix): AsyncGenerator<StoredObject> {
      const given = new Set<string>();
      const startedMs = deps.clock.monotonicMs();
      for (let tries = 1;; tries++) {
        try {
          for await (const object of store.list(prefix)) {
            if (given.has(object.name)) continue;
            given.add(object.name);
            yield object;
          }
          return;
        } catch (error) {
          await pause("list", tries, startedMs, error);
        }
      }
    },
  };
}

/** From 0 up to but not including 1. */
function fraction(random: Random): number {
  const bytes = random(4);
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0) / 2 ** 32;
}
