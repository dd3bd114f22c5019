/**
 * The function `monitor`: looks at what SQL cannot see, and says how backups stand. docs/http.md. The one function that also takes
 * a GET: a scraper sends nothing else, and has a token of its own that opens the figures and no more.
 */
import { parseKeyRing } from "../crypto/key_ring.ts";
import { recognise } from "../identity/identity_queries.ts";
import { readMetrics } from "../jobs/monitor_queries.ts";
import { lookAround, type PlaceToProbe } from "../monitor/look.ts";
import { type StatusDocument, statusDocument } from "../monitor/status.ts";
import type { Connection } from "../postgres/connection.ts";
import type { StorePair } from "../store/apart.ts";
import type { Fetch } from "../store/http_call.ts";
import { openStore } from "../store/open_store.ts";
import { secondaryCredentials } from "../store/secondary.ts";
import type { Needs } from "./admission.ts";
import { metricsAnswer } from "./answer.ts";
import { endLook } from "./call_queries.ts";
import { refusal } from "./caller.ts";
import {
  type AcceptedCall,
  type FrontDeps,
  handle,
  type Outcome,
  refused,
  type SlotWork,
  slotWork,
  turnedAway,
} from "./door.ts";
import { optional, projectRef, variables } from "./environment.ts";
import { isMetricsToken } from "./metrics_token.ts";
import { credentials, type PlaceDeps, secondVariable, storePair } from "./places.ts";
import { type MonitorRequest, monitorRequest } from "./requests.ts";

const functionName = "monitor";

/** Where a store is down, the others are looked at all the same: a few tries each. */
const probed = { maxTries: 3, deadlineMs: 20_000 } as const;

export interface MonitorDeps extends FrontDeps {
  /** Errors: those of settings and database. */
  readonly status: (connection: Connection) => Promise<StatusDocument>;
  /** Tells the database what only a function can see, and lets it look. Errors: those of settings, keys and database. */
  readonly look: (connection: Connection) => Promise<void>;
}

/** Call it once when the isolate starts. */
export function monitorDeps(deps: FrontDeps, fetch: Fetch): MonitorDeps {
  const { environment, clock, random, log } = deps;
  return {
    ...deps,
    status: async (connection) => await statusDocument(connection, storePair(environment)),
    look: async (connection) => {
      await recognise(connection, projectRef(environment));
      const stores = storePair(environment);
      const ring = parseKeyRing(environment[variables.keys]);
      const places = placesToProbe(stores, { environment, fetch, clock, random, log });
      await lookAround({ connection, clock, fetch, random, places, stores, ring });
    },
  };
}

function placesToProbe(pair: StorePair, deps: PlaceDeps): PlaceToProbe[] {
  return ([["first", pair.first], ["second", pair.second]] as const).flatMap(([place, address]) => {
    if (address === undefined) return [];
    const credentialsOf = () =>
      place === "first"
        ? credentials(deps.environment, address)
        : secondaryCredentials(address, (name) => secondVariable(deps.environment, name));
    const opened = (by: Fetch) => openStore(address, credentialsOf(), { ...deps, fetch: by }, probed);
    return [{ place, label: opened(deps.fetch).label, open: opened }];
  });
}

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, those of settings and database. */
export async function handleMonitor(request: Request, deps: MonitorDeps): Promise<Response> {
  const token = /^Bearer (\S{1,8192})$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  // Without a token a GET is turned away as by every other function.
  if (request.method === "GET" && token !== undefined) return await scraped(token, request, deps);
  return await handle({ functionName, schema: monitorRequest, needs, act }, request, deps);
}

function needs({ action }: MonitorRequest): Needs {
  return action === "look" ? "machines" : "second factor";
}

async function act(action: MonitorRequest, call: AcceptedCall, deps: MonitorDeps): Promise<Outcome> {
  switch (action.action) {
    case "status":
      return { status: 200, document: await deps.status(call.connection) };
    case "metrics":
      return { status: 200, document: null, metrics: await readMetrics(call.connection) };
    case "look": {
      const work = lookWork(call, deps);
      if (work === "busy") return { status: 202, document: { look: "busy" } };
      return { status: 202, document: { look: "begun" }, work };
    }
  }
}

/** What is wrong with the token is not told; whoever tries again and again has to wait, and whoever has it never does. */
async function scraped(token: string, request: Request, deps: MonitorDeps): Promise<Response> {
  if (!(await isMetricsToken(token, optional(deps.environment, variables.metricsTokenHash)))) {
    return await turnedAway({ functionName }, request.headers, refusal(), deps);
  }
  try {
    const connection = await deps.openDatabase(deps.environment).connect("holdfast:metrics");
    try {
      return metricsAnswer(await readMetrics(connection));
    } finally {
      await connection.close();
    }
  } catch (error) {
    return refused({ functionName }, error, true, deps);
  }
}

/** Where it is busy the next look comes in five minutes. What goes wrong raises an alert; nothing is thrown. */
function lookWork(call: AcceptedCall, deps: MonitorDeps): SlotWork {
  return slotWork(
    { name: "look", of: {} },
    deps,
    async () => await deps.look(call.connection),
    (_, failure) => endLook(call.connection, call.nonce, failure),
  );
}
