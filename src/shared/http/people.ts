/** People are let in one after the other: whoever may sign up has a genuine token, and each is judged by a session of the database. */
import type { Clock } from "../clock.ts";
import { asHoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { admit, type Needs, tooMany } from "./admission.ts";
import { noteRefusals, type RefusedTimes } from "./call_queries.ts";
import { createPauseMemory } from "./pause_memory.ts";
import type { PersonClaims } from "./person.ts";
import { createTurns } from "./turns.ts";

/**
 * Judges a person, and gives the session in which they were let in; it is the caller's to close. Errors: those of `admit`,
 * `too_many_calls`, those of the database.
 */
export type LetIn = (
  open: () => Database,
  person: PersonClaims,
  functionName: string,
  needs: Needs,
) => Promise<Connection>;

/** Sessions that an isolate spends on judging people, and how many calls wait for one: of them all, and of one person. */
const line = { atOnce: 2, waiting: 100, waitingOfOne: 8 } as const;
/** Refusals without a session that wait to be told with the next one, by person, function and reason. */
const untoldAtMost = 1000;

/**
 * Of one isolate. Whoever is refused gives their session up before the next one is judged; whoever is let in keeps it. Persons who
 * are known to wait, and those for whom the line is too long, cost none: their refusals are counted with the next session. An
 * isolate that ends before has written them to its log only.
 */
export function createLetIn({ clock, log }: { readonly clock: Clock; readonly log: Log }): LetIn {
  const turns = createTurns(line);
  const paused = createPauseMemory(clock);
  const untold = new Map<string, RefusedTimes>();

  function count(person: string, functionName: string, reason: string): void {
    const key = `${functionName} ${reason} ${person}`;
    const times = (untold.get(key)?.times ?? 0) + 1;
    if (times === 1 && untold.size >= untoldAtMost) return;
    untold.set(key, { person, functionName, reason, times });
  }

  async function tell(connection: Connection): Promise<void> {
    if (untold.size === 0) return;
    // In one order, so that no two isolates wait for each other's rows.
    const refusals = [...untold].sort(([a], [b]) => a < b ? -1 : 1).map(([, one]) => one);
    untold.clear();
    await noteRefusals(connection, refusals).catch((error: unknown) => {
      log.error("refusal.not_counted", { calls: refusals.length, code: asHoldfastError(error).code });
    });
  }

  return async (open, person, functionName, needs) => {
    const seconds = paused.left(person.sub);
    if (seconds > 0) {
      count(person.sub, functionName, "paused");
      throw tooMany(seconds);
    }
    let judged = false;
    try {
      return await turns.take(person.sub, async () => {
        judged = true;
        const connection = await open().connect("holdfast:person");
        try {
          await admit(connection, person, functionName, needs);
          return connection;
        } catch (error) {
          const { code, waitSeconds } = asHoldfastError(error);
          if (code === "too_many_refusals") paused.remember(person.sub, waitSeconds ?? 0);
          await tell(connection);
          await connection.close();
          throw error;
        }
      });
    } catch (error) {
      if (!judged) count(person.sub, functionName, asHoldfastError(error).code);
      throw error;
    }
  };
}
