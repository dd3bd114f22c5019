/** Calls of nobody known: counted in Postgres by address. Whoever was refused too often is told to wait. */
import type { Clock } from "../clock.ts";
import { asHoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Database } from "../postgres/connection.ts";
import { refuseAddress } from "./call_queries.ts";
import { createPauseMemory } from "./pause_memory.ts";

export interface RefusedCall {
  readonly address: string;
  readonly functionName: string;
  /** A word that the audit groups by. */
  readonly reason: string;
}

/** Counts the call; returns the seconds for which this address gets no other answer, 0 for none. Never rejects. */
export type CountRefusal = (open: () => Database, call: RefusedCall) => Promise<number>;

/** Sessions of the database that an isolate spends on strangers at a time. */
const sessionsAtMost = 2;

/** Of one isolate: whoever is known to wait costs no session of the database. */
export function createCountRefusal({ clock, log }: { readonly clock: Clock; readonly log: Log }): CountRefusal {
  const paused = createPauseMemory(clock);
  let sessions = 0;
  return async (open, { address, functionName, reason }) => {
    const left = paused.left(address);
    if (left > 0) return left;
    if (sessions >= sessionsAtMost) return 1;
    sessions++;
    try {
      const connection = await open().connect("holdfast:refusal");
      try {
        const pause = await refuseAddress(connection, address, functionName, reason);
        paused.remember(address, pause);
        return pause;
      } finally {
        await connection.close();
      }
    } catch (error) {
      // The call is refused all the same.
      log.error("refusal.not_counted", { function: functionName, code: asHoldfastError(error).code });
      return 0;
    } finally {
      sessions--;
    }
  };
}

/**
 * The address that the platform's edge saw. It is good for a count and no more: what stands in front of the edge may write
 * what it likes, and no header at all is one address like any other.
 */
export function addressOf(headers: Headers): string {
  const seen = headers.get("cf-connecting-ip") ?? headers.get("x-forwarded-for")?.split(",").at(-1) ?? "";
  return seen.trim().slice(0, 100) || "unknown";
}
