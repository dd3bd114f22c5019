/** The function `incident`: keeps the public status page at what the database says. docs/http.md. */
import { recognise } from "../identity/identity_queries.ts";
import { keepPage, type KeptPage } from "../incidents/keep_page.ts";
import { openStatusPage } from "../incidents/publish_page.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Fetch } from "../store/http_call.ts";
import { endCall } from "./call_queries.ts";
import { type AcceptedCall, type FrontDeps, handle, type Outcome, type SlotWork, slotWork } from "./door.ts";
import { type Environment, projectRef, variables } from "./environment.ts";
import { secondVariable, storeAddress } from "./places.ts";
import { type IncidentRequest, incidentRequest } from "./requests.ts";

export interface IncidentDeps extends FrontDeps {
  /** Brings the public status page to what the database says. Errors, which it records: those of settings and store. */
  readonly keepPage: (connection: Connection) => Promise<KeptPage>;
}

/** Call it once when the isolate starts. */
export function incidentDeps(deps: FrontDeps, fetch: Fetch): IncidentDeps {
  const { environment, clock, random, log } = deps;
  return {
    ...deps,
    keepPage: async (connection) => {
      await recognise(connection, projectRef(environment));
      const open = () => openStatusPage((name) => pageVariable(environment, name), { fetch, clock, random, log });
      return await keepPage(connection, open, clock);
    },
  };
}

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `setting_missing`, those of the database. */
export function handleIncident(request: Request, deps: IncidentDeps): Promise<Response> {
  const needs = () => "second factor" as const;
  return handle({ functionName: "incident", schema: incidentRequest, needs, act }, request, deps);
}

function act(_: IncidentRequest, call: AcceptedCall, deps: IncidentDeps): Promise<Outcome> {
  const work = pageWork(call, deps);
  return Promise.resolve(
    work === "busy" ? { status: 202, document: { page: "busy" } } : { status: 202, document: { page: "begun" }, work },
  );
}

/** Where it is busy the next minute tries again. What goes wrong is recorded; nothing is thrown. */
function pageWork(call: AcceptedCall, deps: IncidentDeps): SlotWork {
  return slotWork(
    { name: "page", of: {} },
    deps,
    async () => await deps.keepPage(call.connection),
    (_, failure) => endCall(call.connection, call.nonce, failure?.code ?? "done"),
  );
}

/** The store of the backups is the one that is used where none is named: the page may not be in it. */
function pageVariable(environment: Environment, name: string): string | undefined {
  return name === variables.store ? storeAddress(environment) : secondVariable(environment, name);
}
