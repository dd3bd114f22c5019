/** The function `drill`: restores done to prove that restores work, leg by leg. docs/http.md. */
import { sweepDrillDatabases } from "../drills/database.ts";
import type { DrillDeps } from "../drills/deps.ts";
import { requestDrill } from "../drills/drill_queries.ts";
import { runDrillLeg } from "../drills/leg.ts";
import { loadZstd } from "../format/zstd.ts";
import { readIdentity, recognise } from "../identity/identity_queries.ts";
import { placeIn } from "../identity/settle_place.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Needs } from "./admission.ts";
import { attachCall, launchRun } from "./call_queries.ts";
import { type AcceptedCall, type FrontDeps, handle, type Leg, legWork, type Outcome } from "./door.ts";
import { besideByFunction, drillServer, refuseByPerson, ringOnce } from "./drill_deps.ts";
import { projectRef } from "./environment.ts";
import { databaseOf } from "./front.ts";
import { firstStore } from "./places.ts";
import { type DrillRequest, drillRequest } from "./requests.ts";

export interface DrillDoorDeps extends FrontDeps {
  readonly legs: { readonly drill: Leg };
  /** Drops databases that drills left; their names. */
  readonly sweepDrills: (connection: Connection) => Promise<readonly string[]>;
}

export function drillDoorDeps(front: FrontDeps, fetch: Fetch): DrillDoorDeps {
  const { environment, clock, random, log, budget } = front;
  const deps = (connection: Connection): DrillDeps => {
    const ring = ringOnce(environment);
    const database = databaseOf(environment);
    return {
      connection,
      database,
      server: drillServer(environment, (name) => databaseOf(environment, name)),
      beside: besideByFunction(database.label),
      clock,
      random,
      log,
      ring,
      open: async (row) => {
        refuseByPerson(row);
        const { prefix } = await readIdentity(connection);
        const store = firstStore({ environment, fetch, clock, random, log });
        return { store: placeIn(store, prefix), ring: await ring(), compressor: await loadZstd() };
      },
    };
  };
  return {
    ...front,
    legs: {
      drill: async (connection, run, worker) => {
        await recognise(connection, projectRef(environment));
        await runDrillLeg(deps(connection), run, { worker, budget: budget.next() });
      },
    },
    sweepDrills: async (connection) =>
      await sweepDrillDatabases(deps(connection), (await readIdentity(connection)).install),
  };
}

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `not_found`, `run_not_found`, `run_state`, those of the database. */
export function handleDrill(request: Request, deps: DrillDoorDeps): Promise<Response> {
  return handle({ functionName: "drill", schema: drillRequest, needs, act }, request, deps);
}

/** It takes room and time of the server, and shows nothing. */
function needs({ action }: DrillRequest): Needs {
  return action === "start" ? "fresh second factor" : "machines";
}

async function act(action: DrillRequest, call: AcceptedCall, deps: DrillDoorDeps): Promise<Outcome> {
  const { connection } = call;
  switch (action.action) {
    case "start": {
      const { run, drill, joined } = await requestDrill(connection, action.drill, "http");
      const document = { run, drill, joined };
      if (joined) return { status: 202, document };
      await attachCall(connection, call.nonce, run, "drill");
      const work = legWork("drill", run, call, deps);
      if (work !== "busy") return { status: 202, document, work };
      await launchRun(connection, run);
      return { status: 202, document };
    }
    case "leg": {
      const status = await attachCall(connection, call.nonce, action.run, "drill");
      const work = legWork("drill", action.run, call, deps);
      if (work === "busy") return { status: 202, document: { run: action.run, status, leg: "busy" } };
      return { status: 202, document: { run: action.run, status, leg: "begun" }, work };
    }
    case "sweep":
      return { status: 200, document: { dropped: await deps.sweepDrills(connection) } };
  }
}
