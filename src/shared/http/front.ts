/** From a function's runtime to what every door needs: a function that does nothing else carries none of the other rooms. */
import { type Clock, systemClock } from "../clock.ts";
import { createLog, type LogLevel, type LogLine } from "../log.ts";
import type { Database } from "../postgres/connection.ts";
import { openDatabase } from "../postgres/pg_connection.ts";
import { webCryptoRandom } from "../random.ts";
import { inDatabase } from "../restore/new_database.ts";
import type { Fetch } from "../store/http_call.ts";
import type { FrontDeps } from "./door.ts";
import { type Environment, optional, publishableKey, required, variables } from "./environment.ts";
import { createIsolateBudget } from "./isolate_budget.ts";
import { createLegSlot } from "./leg_slot.ts";
import { createLetIn } from "./people.ts";
import { type CheckPerson, createCheckPerson } from "./person.ts";
import { createCountRefusal } from "./refusals.ts";
import { unwaitedClose } from "./unwaited_close.ts";

/** What only the runtime can give. */
export interface IsolateRuntime {
  readonly environment: Environment;
  readonly waitUntil: (work: Promise<void>) => void;
  readonly fetch: Fetch;
  readonly write: (line: LogLine) => void;
  /** Default: the clock of this machine. */
  readonly clock?: Clock;
}

/** Call it once when the isolate starts; its slot and its budget are the isolate's. Throws nothing. */
export function frontDeps({ environment, waitUntil, fetch, write, clock = systemClock }: IsolateRuntime): FrontDeps {
  const log = createLog(write, logLevel(environment));
  return {
    environment,
    clock,
    random: webCryptoRandom,
    log,
    waitUntil,
    slot: createLegSlot(),
    budget: createIsolateBudget(clock),
    checkPerson: personCheck(environment, fetch),
    letIn: createLetIn({ clock, log }),
    countRefusal: createCountRefusal({ clock, log }),
    openDatabase: databaseOf,
  };
}

/** Nothing is fetched before a person calls. Errors: `setting_missing`. */
function personCheck(environment: Environment, fetch: Fetch): CheckPerson {
  let check: CheckPerson | undefined;
  return (token, now, address) => {
    const projectUrl = required(environment, variables.projectUrl).replace(/\/+$/, "");
    const issuer = optional(environment, variables.authIssuer) ?? `${projectUrl}/auth/v1`;
    check ??= createCheckPerson({ projectUrl, issuer, apiKey: publishableKey(environment), fetch });
    return check(token, now, address);
  };
}

/** The project's own, or another one of its server. */
export function databaseOf(environment: Environment, name?: string): Database {
  const caPem = optional(environment, variables.databaseAuthority);
  const own = { url: required(environment, variables.databaseUrl), ...(caPem === undefined ? {} : { caPem }) };
  return unwaitedClose(openDatabase(name === undefined ? own : inDatabase(own, name)));
}

function logLevel(environment: Environment): LogLevel {
  const wanted = optional(environment, variables.logLevel);
  return wanted === "debug" || wanted === "warn" || wanted === "error" ? wanted : "info";
}
